"""Tests `recall doctor`: a whole machine, packages that are missing or of another version, and a run's parts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from recall.runs import doctor
from tests.test_packaging import HIDE

WITHOUT_SCANN = """
import json
import numpy as np
import recall
from recall.config.index import IndexConfig
vectors = np.eye(300, dtype=np.float32)
ids = [f"i{number}" for number in range(300)]
index = recall.build_index(ids, vectors, config=IndexConfig(exact_below=10))
found = index.search(vectors[:3], 1).ids[:, 0].tolist()
try:
    recall.build_index(ids, vectors, config=IndexConfig(kind="scann"))
except recall.RecallError as error:
    print(json.dumps([index.report["reason"], found, str(error)]))
"""


@pytest.mark.slow
def test_a_machine_that_runs_the_tests_has_nothing_to_mend(tmp_path: Path) -> None:
    found = {finding.name: finding for finding in doctor.examine()}
    assert [finding for finding in found.values() if finding.state == "bad"] == []
    assert re.match(r"2\.20\.\d+ with Keras 2\.20", found["TensorFlow"].text)
    assert found["ScaNN"].text == "its TensorFlow ops load"
    assert int(found["cores"].text) >= 1
    assert "tensorflow 2.20" in found["core packages"].text
    assert "apache-beam 2.77" in found["extra train"].text


def test_a_missing_package_of_the_core_is_bad_and_of_an_extra_a_note() -> None:
    lines = [Requirement("no-such-package-1"), Requirement('no-such-package-2; extra == "serve"')]
    core = doctor._requirements("core", lines, extra="", absent="bad")
    serve = doctor._requirements("serve", lines, extra="serve", absent="note")
    assert (core.state, serve.state) == ("bad", "note")
    assert core.text == "without no-such-package-1; run `pip install 'recall-towers'`"
    assert serve.text == "without no-such-package-2; run `pip install 'recall-towers[serve]'`"


def test_a_package_of_another_version_is_named_with_what_was_expected() -> None:
    lines = [Requirement('numpy < 1; extra == "serve"')]
    found = doctor._requirements("serve", lines, extra="serve", absent="note")
    assert found.state == "bad"
    assert re.fullmatch(r"numpy \S+ \(expected <1\); run `pip install 'recall-towers\[serve\]'`", found.text)


def test_a_directory_that_is_no_run_is_to_be_mended(tmp_path: Path) -> None:
    (found,) = doctor._run(tmp_path)
    assert found.state == "bad"
    assert str(tmp_path) in found.text


@pytest.mark.slow
def test_without_scann_search_is_exact_and_asking_for_scann_is_one_line() -> None:
    script = f"HIDDEN = ['scann']{HIDE}{WITHOUT_SCANN}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reason, found, message = json.loads(done.stdout.strip().splitlines()[-1])
    assert reason == "ScaNN is not installed; on this machine all search is exact"
    assert found == ["i0", "i1", "i2"]
    assert message.startswith("expected ScaNN, which is not installed here")
