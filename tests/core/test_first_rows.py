"""The first rows of a column, in every format, beside the file as a whole."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recall.core.first_rows import first_rows


@pytest.fixture(params=["csv", "csv.gz", "tsv", "jsonl", "parquet"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / f"a.{request.param}"
    if request.param == "parquet":
        pq.write_table(pa.table({"b": [""] * 9, "at": range(9)}), path, row_group_size=4)
        return path
    mark = "\t" if request.param == "tsv" else ","
    lines = [mark.join(("b", "at")), *(f"{mark}{row}" for row in range(9))]
    if request.param == "jsonl":
        lines = [json.dumps({"b": "", "at": row}) for row in range(9)]
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_the_first_rows_of_a_column_are_read(path: Path) -> None:
    assert [int(value) for value in first_rows(path, "at", rows=3).to_pylist()] == [0, 1, 2]
    assert len(first_rows(path, "at", rows=100)) >= 4


def test_a_row_group_is_chosen(tmp_path: Path) -> None:
    pq.write_table(pa.table({"at": range(9)}), tmp_path / "a.parquet", row_group_size=4)
    assert first_rows(tmp_path / "a.parquet", "at", rows=2, row_group=1).to_pylist() == [4, 5]


@pytest.mark.parametrize("name", ["absent.csv", "a.csv", "a.parquet", "a.jsonl", "a.csv.gz", "a.unknown"])
def test_a_file_that_cannot_be_read_gives_no_rows(name: str, tmp_path: Path) -> None:
    if name != "absent.csv":
        (tmp_path / name).write_bytes(b"\xff\xfe{")
    assert len(first_rows(tmp_path / name, "at", rows=3)) == 0
