"""Tests samples of tables: bounded however long a file is, from several places, and no file without names."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recall.core.errors import DataError
from recall.data.guess import samples
from recall.data.guess.samples import read_sample


def numbered(rows: int) -> pa.Table:
    return pa.table({"user_id": [f"u{row % 7}" for row in range(rows)], "row": range(rows)})


def write(table: pa.Table, path: Path, separator: str = ",") -> Path:
    lines = [separator.join(table.column_names)]
    lines += [separator.join(map(str, row.values())) for row in table.to_pylist()]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_small_table_is_read_whole(tmp_path: Path) -> None:
    pq.write_table(numbered(50), tmp_path / "log.parquet")
    found = read_sample(tmp_path / "log.parquet")
    assert (len(found.table), found.rows, found.is_whole) == (50, 50, True)


@pytest.mark.parametrize("group", [100_000, 700])
def test_of_a_long_parquet_file_a_few_rows_of_begin_and_end_are_read(group: int, tmp_path: Path) -> None:
    pq.write_table(numbered(10_000), tmp_path / "log.parquet", row_group_size=group)
    found = read_sample(tmp_path / "log.parquet", most=600)
    rows = found.table["row"].to_pylist()
    assert (found.rows, found.is_whole) == (10_000, False)
    assert len(rows) <= 4 * 600
    assert (min(rows), max(rows)) == (0, 9_999)
    assert found.table["user_id"].type == pa.string()


def test_of_long_text_files_blocks_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_BLOCK_BYTES", 2_000)
    monkeypatch.setattr(samples, "_WHOLE_BYTES", 4_000)
    found = read_sample(write(numbered(20_000), tmp_path / "log.csv"))
    rows = sorted(int(row) for row in found.table["row"].to_pylist())
    assert len(rows) < 1_000
    assert (rows[0], rows[-1], found.rows) == (0, 19_999, None)
    assert any(8_000 < row < 12_000 for row in rows), "nothing of the middle"
    packed = tmp_path / "log.tsv.gz"
    packed.write_bytes(gzip.compress(write(numbered(20_000), tmp_path / "log.tsv", "\t").read_bytes()))
    assert read_sample(packed).table["row"][0].as_py() == "0"


def test_several_files_are_looked_at_and_counted(tmp_path: Path) -> None:
    for part in range(5):
        pq.write_table(numbered(10), tmp_path / f"part-{part}.parquet")
    found = read_sample(f"{tmp_path}/*.parquet")
    assert (len(found.table), found.rows, found.is_whole) == (30, 50, False)


def test_a_file_without_names_of_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.tsv").write_text("196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    with pytest.raises(DataError, match=r"first line \(196, 242, 3, 881250949\) looks like a row; write the names"):
        read_sample(tmp_path / "log.tsv")


@pytest.mark.parametrize(("name", "reader"), [("u.data", "movielens"), ("behaviors.tsv", "mind")])
def test_a_public_format_is_referred_to_its_reader(name: str, reader: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("196\t242\t3\t881250949\n")
    with pytest.raises(DataError, match=f"recall dataset {reader} {tmp_path} --out {reader}-data"):
        read_sample(tmp_path / name)


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id\n")
    with pytest.raises(DataError, match="has no rows"):
        read_sample(tmp_path / "log.csv")
