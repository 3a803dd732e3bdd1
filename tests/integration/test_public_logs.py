"""Public logs from the published files to training data: the command, its files, and the example made for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recall.config.experiment import load_config
from recall.data.prepared import PreparedData
from tests.helpers.finished_run import Outcome
from tests.helpers.published_sets import PUBLISH

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
EXAMPLE_OF = {"kuairand": "kuairand_1k"}


@pytest.mark.parametrize("name", PUBLISH)
def test_a_set_as_published_is_prepared_by_two_commands(
    name: str, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    PUBLISH[name](tmp_path / "published")
    outcome = command("dataset", name, tmp_path / "published", "--out", tmp_path / "data")
    assert outcome.code == 0, outcome.err
    example = (EXAMPLES / f"{EXAMPLE_OF.get(name, name)}.yaml").read_text()
    example = re.sub(r"\.\./runs/[\w]+-data", str(tmp_path / "data"), example)
    (tmp_path / "experiment.yaml").write_text(re.sub(r"clusters: \[.*?\]", "clusters: [2, 4]", example))
    outcome = command("prepare", "--config", tmp_path / "experiment.yaml", "--run", tmp_path / "run")
    assert outcome.code == 0, outcome.err

    counts = PreparedData.load(tmp_path / "run" / "data").manifest["counts"]
    assert counts["rows_read"] == pq.read_metadata(tmp_path / "data" / "events.parquet").num_rows
    assert not counts["rejected"]
    assert counts["known"]["items"]["known"] == counts["known"]["items"]["in_log"]
    assert min(counts["examples"].values()) > 0
    assert "../runs/" not in (tmp_path / "experiment.yaml").read_text()
    load_config(tmp_path / "run" / "config.yaml")
