"""Tables given from Python: written once into the run, found there by every step, refused before anything else."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recall.config.experiment import Config, load_config
from recall.core.errors import ConfigError, DataError
from recall.data.catalogue import check_files
from recall.data.fingerprints import data_fingerprint
from recall.data.given import with_own_inputs, write_given

EVENTS = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [7, 8, 7], "time": [10, 20, 30]})
ITEMS = pd.DataFrame({"item_id": [7, 8], "tags": [["a"], ["b"]]})
USERS = pd.DataFrame({"user_id": [1, 2], "age": ["20", "30"]})
FEATURES = {
    "user": [{"name": "age", "type": "category"}],
    "behaviour": [{"name": "item_id", "type": "id"}],
    "meta": [{"name": "tags", "type": "tags"}],
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """An experiment without paths."""
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump({"data": {"events": {}, "items": {}, "users": {}}, "features": FEATURES}))
    return load_config(path)


def tables(**changed: Any) -> dict[str, Any]:
    return {"events": EVENTS, "items": ITEMS, "users": USERS, **changed}


def test_tables_are_in_the_run_and_the_experiment_reads_them(config: Config, tmp_path: Path) -> None:
    found = write_given(config, tmp_path / "run", tables())
    check_files(found)
    assert pq.read_table(found.data.events.path).to_pandas().equals(EVENTS)
    assert found.data.items.path == tmp_path / "run" / "inputs" / "items.parquet"
    assert sorted(path.name for path in (tmp_path / "run" / "inputs").iterdir()) == [
        "events.parquet", "items.parquet", "manifest.json", "users.parquet",
    ]  # fmt: skip


def test_equal_tables_leave_the_files_as_they_are_however_they_are_cut(config: Config, tmp_path: Path) -> None:
    first = write_given(config, tmp_path / "run", tables())
    fingerprint = data_fingerprint(first)
    before = (tmp_path / "run" / "inputs" / "events.parquet").stat().st_mtime_ns
    table = pa.Table.from_pandas(EVENTS)
    pieces = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=1))
    second = write_given(config, tmp_path / "run", tables(events=pieces))
    assert (tmp_path / "run" / "inputs" / "events.parquet").stat().st_mtime_ns == before
    assert data_fingerprint(second) == fingerprint
    other = write_given(config, tmp_path / "run", tables(events=EVENTS[:2]))
    assert data_fingerprint(other) != fingerprint


def test_a_run_that_is_copied_elsewhere_keeps_its_inputs(config: Config, tmp_path: Path) -> None:
    run = tmp_path / "run"
    given = write_given(config, run, tables())
    (run / "config.yaml").write_text(with_own_inputs(given, run).to_yaml())
    fingerprint = data_fingerprint(given)
    shutil.copytree(run, tmp_path / "elsewhere" / "copy")
    shutil.rmtree(run)
    moved = load_config(tmp_path / "elsewhere" / "copy" / "config.yaml")
    assert moved.data.items.path == tmp_path / "elsewhere" / "copy" / "inputs" / "items.parquet"
    assert data_fingerprint(moved) == fingerprint


def test_files_of_the_experiment_and_given_tables_go_together(config: Config, tmp_path: Path) -> None:
    ITEMS.to_parquet(tmp_path / "items.parquet")
    config = config.replaced(data={"items": {"path": str(tmp_path / "items.parquet")}})
    found = write_given(config, tmp_path / "run", {"events": EVENTS, "users": USERS})
    check_files(found)
    assert found.data.items.path == tmp_path / "items.parquet"
    assert with_own_inputs(found, tmp_path / "run").data.items.path == tmp_path / "items.parquet"


def test_a_path_that_neither_the_file_nor_a_table_gives_is_named(config: Config, tmp_path: Path) -> None:
    found = write_given(config, tmp_path / "run", {"events": EVENTS})
    with pytest.raises(
        ConfigError, match=r"data\.items\.path: is missing; add it, or give the table to recall\.Run"
    ) as error:
        check_files(found)
    assert "data.users.path: is missing" in str(error.value)
    assert "data.events" not in str(error.value)
    with pytest.raises(ConfigError, match=r"data\.events\.path: is missing; .*data=\{'events': \.\.\.\}"):
        data_fingerprint(config)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"clicks": EVENTS}, ConfigError, r"data: found 'clicks'; expected tables of events, items, users"),
        ({"events": EVENTS[:0]}, DataError, r"data\['events'\]: has no rows"),
        (
            {"events": EVENTS.rename(columns={"time": "ts"})},
            DataError,
            r"data\.events\.time: data\['events'\] has no column time; its columns are user_id, item_id, ts\. Rename",
        ),
        ({"items": ITEMS[["item_id"]]}, DataError, r"features\.meta\[0\]: data\['items'\] has no column tags"),
        ({"users": USERS[["age"]]}, DataError, r"data\.users\.id: data\['users'\] has no column user_id"),
        ({"events": "events.parquet"}, DataError, r"data\['events'\]: expected a frame .* found str"),
    ],
)
def test_a_table_that_cannot_be_used_leaves_nothing_behind(
    config: Config, tmp_path: Path, given: Mapping[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        write_given(config, tmp_path / "run", {"items": ITEMS, **given})
    assert not (tmp_path / "run").exists()
    write_given(config, tmp_path / "run", tables())
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(kind, match=message):
        write_given(config, tmp_path / "run", given)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
