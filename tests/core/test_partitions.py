"""Folders called `column=value`: their values as columns, and which files of a folder are tables."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from recall.core.partitions import partition_folders, partition_values, with_partitions
from recall.core.tables import expand_paths


def test_folders_give_columns_and_the_file_name_none() -> None:
    assert partition_values("/logs/dt=2024-01-31/country=de/a=b.parquet") == {"dt": "2024-01-31", "country": "de"}
    assert partition_values("logs/part.parquet") == {}


def test_escapes_are_decoded_and_the_name_of_null_is_null() -> None:
    path = "logs/at=2024-01-31 10%3A00/tag=__HIVE_DEFAULT_PARTITION__/x=/=y/part.parquet"
    assert partition_values(path) == {"at": "2024-01-31 10:00", "tag": None, "x": ""}


def test_partition_folders_of_an_address_are_kept_one_below_the_other() -> None:
    assert partition_folders("gs://bucket/logs/dt=2024-01-31/hour=7/part.csv") == "dt=2024-01-31/hour=7"
    assert partition_folders("gs://bucket/logs/part.csv") == ""


def test_a_column_of_the_file_stays_as_it_is() -> None:
    table = pa.table({"dt": ["of the file"], "n": [1]})
    found = with_partitions(table, "dt=of a folder/country=de/p.csv", ["dt", "country", "n"])
    assert found.to_pylist() == [{"dt": "of the file", "n": 1, "country": "de"}]


@pytest.mark.parametrize("pattern", ["logs", "logs/", "logs/dt=*", "logs/dt=*/", "logs/dt=*/*.csv", "logs/**/*.csv"])
def test_a_folder_is_its_tables_without_hidden_files(tmp_path: Path, pattern: str) -> None:
    names = ["dt=1/a.csv", "dt=1/_SUCCESS", "dt=2/.part.csv.tmp", "dt=2/b.csv", "_temporary/c.csv", "README.md"]
    for name in names:
        path = tmp_path / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n")
    if pattern == "logs/**/*.csv":  # what a glob names is what is read
        (tmp_path / "logs" / "_temporary" / "c.csv").unlink()
    found = [str(path.relative_to(tmp_path / "logs")) for path in expand_paths(f"{tmp_path}/{pattern}")]
    assert found == ["dt=1/a.csv", "dt=2/b.csv"]


def test_files_without_an_ending_are_tables_where_no_other_is_there(tmp_path: Path) -> None:
    for name in ("part-00001", "part-00000", "_SUCCESS"):
        (tmp_path / name).write_text("x\n")
    assert [path.name for path in expand_paths(tmp_path)] == ["part-00000", "part-00001"]
