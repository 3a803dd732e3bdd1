"""Tests that running again notices and mends damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from recall.config.experiment import Config
from recall.core.errors import ArtifactError
from recall.runs.run import Run
from recall.serving.recaller import Recaller

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
