"""A run of tables given from Python: the same data as from files, and done steps that stay done."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from recall.core.artifacts import read_manifest
from recall.data.prepared import PreparedData
from recall.runs.run import Run
from tests.conftest import Experiment

ROLES = ("events", "items", "users")


@pytest.mark.slow
def test_tables_give_the_data_of_files_and_a_later_run_finds_them(
    experiment: Experiment, community: Path, prepared: PreparedData, tmp_path: Path
) -> None:
    config = experiment(*(f"data.{role}.path=nowhere" for role in ROLES))
    tables = {role: pd.read_parquet(community / f"{role}.parquet") for role in ROLES}
    Run(config, tmp_path, data=tables).prepare()
    for path in (*prepared.directory.glob("*.tfrecord"), prepared.directory / "items.parquet"):
        assert (tmp_path / "data" / path.name).read_bytes() == path.read_bytes(), path.name
    assert read_manifest(tmp_path / "data", made_by="prepare")["notes"] == prepared.manifest["notes"]

    made = (tmp_path / "data" / "manifest.json").stat().st_mtime_ns
    Run.open(tmp_path).prepare()
    Run(config, tmp_path, data=tables).prepare()
    assert (tmp_path / "data" / "manifest.json").stat().st_mtime_ns == made
