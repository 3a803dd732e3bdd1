"""Tables in parts: written as one file, or not at all; distinct numbers of many arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recall.core.errors import DataError
from recall.data.datasets import StreamedDataset
from recall.data.datasets.streams import distinct, parquet_parts

ITEMS = pa.table({"item_id": [1]})


def test_parts_become_the_file_of_the_whole_table(tmp_path: Path) -> None:
    table = pa.table({"user_id": np.arange(10), "name": [str(n) for n in range(10)]})
    parts = [table.slice(0, 0), table.slice(0, 3), table.slice(3)]
    StreamedDataset(events=lambda: iter(parts), items=ITEMS, extras={"more": lambda: iter(parts[:1])}).write(tmp_path)
    pq.write_table(table, tmp_path / "expected.parquet")
    assert (tmp_path / "events.parquet").read_bytes() == (tmp_path / "expected.parquet").read_bytes()
    assert pq.read_table(tmp_path / "more.parquet").equals(table.slice(0, 0))


def test_an_error_in_a_later_part_leaves_the_files_of_before(tmp_path: Path) -> None:
    def broken() -> Iterator[pa.Table]:
        yield ITEMS
        raise DataError("line 7: item is 'x'")

    StreamedDataset(events=lambda: iter([ITEMS]), items=ITEMS).write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match="line 7"):
        StreamedDataset(events=broken, items=pa.table({"item_id": [2]})).write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_without_rows_has_one_empty_part_with_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([], pa.int8()), "b": pa.array([], pa.string())}), tmp_path / "x.parquet")
    [part] = parquet_parts(tmp_path / "x.parquet", ["b"])
    assert part.schema == pa.schema([("b", pa.string())])


@pytest.mark.parametrize("merged_at_once", [1, 50, 1 << 24])
def test_distinct_numbers_are_those_of_all_arrays(monkeypatch: pytest.MonkeyPatch, merged_at_once: int) -> None:
    monkeypatch.setattr("recall.data.datasets.streams._MERGED_AT_ONCE", merged_at_once)
    arrays = [np.random.default_rng(seed).integers(0, 300, 40) for seed in range(20)]
    assert distinct(arrays).tolist() == sorted(set(np.concatenate(arrays).tolist()))
    assert distinct([]).tolist() == []
