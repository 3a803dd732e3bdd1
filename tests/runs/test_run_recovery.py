"""Tests that running again notices and mends damage, and that a killed run leaves nothing that loads."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from recall.config.experiment import Config
from recall.core.errors import ArtifactError
from recall.data.prepared import PreparedData
from recall.runs.run import Run
from recall.serving.recaller import Recaller
from tests.conftest import Experiment
from tests.helpers.finished_run import CHEAP

if TYPE_CHECKING:
    from tests.helpers.finished_run import Printed


Printing = Callable[[Config, Path], "Printed"]


# Damage


def test_a_truncated_shard_is_noticed_and_prepared_again(printing: Printing, copied: Path, settings: Config) -> None:
    shard = next((copied / "data").glob("train-00000*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-7])
    printed = printing(settings, copied)
    with pytest.raises(ArtifactError, match=r"the manifest says .* run `recall prepare --run .*` again"):
        printed.run.train()
    printed.run.prepare()
    assert printed.skipped() == []
    assert sorted(map(len, records(shard))) == sorted(map(len, records_of(whole, copied)))
    printed.run.train()
    assert printed.skipped() == ["train gated"], "equal data needs no other model"


def records(path: Path) -> list[bytes]:
    return [record.numpy() for record in tf.data.TFRecordDataset(str(path))]


def records_of(content: bytes, folder: Path) -> list[bytes]:
    (folder / "shard").write_bytes(content)
    return records(folder / "shard")


@pytest.mark.parametrize("part", ["data/posterior.parquet", "model/checkpoint/best.index"])
def test_a_byte_that_changed_is_noticed_when_a_step_looks_whether_it_is_done(
    copied: Path, settings: Config, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    flip_a_byte(copied / part)
    redone = []
    monkeypatch.setattr("pipelines.training_data.prepare", lambda *args, **kwargs: redone.append("data"))
    monkeypatch.setattr("pipelines.training_data.counts_table", lambda manifest: "")
    monkeypatch.setattr("pipelines.training_data.print_notes", lambda *args: None)
    monkeypatch.setattr("recall.training.train.train", lambda *args, **kwargs: redone.append("model"))
    run = Run(settings, copied)
    run.prepare()
    run.train()
    assert redone == [part.split("/")[0]]


def test_edited_vectors_are_noticed_and_made_again(printing: Printing, copied: Path, settings: Config) -> None:
    path = copied / "vectors" / "vectors.parquet"
    before = pq.read_table(path)
    flip_a_byte(path)
    printed = printing(settings, copied)
    shutil.rmtree(copied / "index")
    with pytest.raises(ArtifactError, match=r"vectors\.parquet: its checksum differs .* run `recall vectors` again"):
        printed.run.index()
    printed.run.vectors()
    assert printed.skipped() == []
    assert pq.read_table(path).equals(before)


def test_a_damaged_index_is_noticed_and_built_again(printing: Printing, copied: Path, settings: Config) -> None:
    version = copied / "index" / "versions" / (copied / "index" / "CURRENT").read_text().strip()
    flip_a_byte(version / "ids.parquet")
    with pytest.raises(ArtifactError, match=r"ids\.parquet: its checksum differs"):
        Recaller.load(copied)
    printed = printing(settings, copied)
    printed.run.index()
    assert printed.skipped() == []
    Recaller.load(copied)


def test_metrics_that_were_cut_off_are_noticed(copied: Path, settings: Config) -> None:
    path = copied / "metrics.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(ArtifactError, match=r"metrics\.json: cannot be read .* run `recall evaluate --run .*` again"):
        Run(settings, copied).report()


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# Kills


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_that_loads_and_running_again_finishes(
    experiment: Experiment, finish: Callable[[Config], Path], tmp_path: Path
) -> None:
    settings = experiment(*CHEAP)
    finished = finish(settings)
    (tmp_path / "experiment.yaml").write_text(settings.to_yaml())
    directory = tmp_path / "run"

    kill_when(directory, lambda: any(directory.glob(".data.*")), tmp_path / "experiment.yaml")
    assert not (directory / "data").exists()
    with pytest.raises(ArtifactError, match="not there yet"):
        PreparedData.load(directory / "data")
    with pytest.raises(ArtifactError, match="not there yet; run `recall prepare"):
        Run(settings, directory).train()

    kill_when(directory, lambda: any(directory.glob(".model-training/*")), tmp_path / "experiment.yaml")
    PreparedData.load(directory / "data", verify=True)
    assert not (directory / "model").exists()
    with pytest.raises(ArtifactError, match="run `recall train"):
        Recaller.load(directory)

    run = Run.open(directory)
    assert run.config == settings
    run.train()
    run.vectors()
    run.index()
    again, undisturbed = (Recaller.load(path).recall(["u001"], k=20) for path in (directory, finished))
    assert set(again.ids[0]) & set(undisturbed.ids[0])
    assert not list(directory.glob(".model*"))


def kill_when(directory: Path, reached: Callable[[], bool], experiment: Path) -> None:
    """Start `recall run` and kill it as soon as it has reached a point."""
    process = subprocess.Popen(
        [sys.executable, "-m", "recall.cli", "run", str(experiment), "--out", str(directory)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        while not reached():
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            time.sleep(0.001)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
