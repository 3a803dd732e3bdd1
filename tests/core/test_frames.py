"""Tables of other libraries: each gives the same plain rows, read in parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pytest

from recall.core.errors import DataError
from recall.core.frames import open_frame, plain_tables

ROWS = [
    {"id": 7, "name": "x", "tags": ["a", "b"], "vector": [0.5, 1.5]},
    {"id": 8, "name": None, "tags": [], "vector": [2.0, -1.0]},
    {"id": 9, "name": "z", "tags": ["c"], "vector": [0.0, 0.25]},
]


def polars(rows: list[dict[str, Any]]) -> Any:
    library = pytest.importorskip("polars")
    types = {"name": library.Categorical, "vector": library.Array(library.Float32, 2)}
    return library.DataFrame(rows).with_columns(library.col(name).cast(kind) for name, kind in types.items())


def duckdb(rows: list[dict[str, Any]]) -> Any:
    table = pa.Table.from_pylist(rows)
    library = pytest.importorskip("duckdb")
    return library.connect().from_arrow(table)


def huggingface(rows: list[dict[str, Any]]) -> Any:
    filler = {"id": 0, "name": "", "tags": [""], "vector": [0.0]}
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_list([filler, *rows]).select(range(1, len(rows) + 1))


def reader(rows: list[dict[str, Any]]) -> pa.RecordBatchReader:
    table = pa.Table.from_pylist(rows)
    return pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=2))


LIBRARIES: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "pandas": lambda rows: pd.DataFrame(rows, index=[5, 3, 4]),
    "polars": polars,
    "polars, lazy": lambda rows: polars(rows).lazy(),
    "pyarrow": pa.Table.from_pylist,
    "pyarrow, reader": reader,
    "pyarrow, dataset": lambda rows: pyarrow.dataset.dataset(pa.Table.from_pylist(rows)),
    "duckdb": duckdb,
    "datasets": huggingface,
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_gives_the_same_plain_rows(library: str, tmp_path: Path) -> None:
    frame = open_frame(LIBRARIES[library](ROWS), what="events", staging=tmp_path / "staging")
    assert set(frame.names) >= {"id", "name", "tags", "vector"}
    table = pa.concat_tables(plain_tables(frame, what="events"))
    assert table.to_pylist() == ROWS  # an index without a name is no column
    assert table.schema.metadata is None
    assert table.schema.field("name").type == pa.string()
    assert not pa.types.is_fixed_size_list(table.schema.field("vector").type)


def test_a_long_table_comes_in_parts_of_a_million_rows(tmp_path: Path) -> None:
    frame = open_frame(pd.DataFrame({"n": np.arange(2_500_000)}), what="events", staging=tmp_path / "staging")
    assert [len(table) for table in plain_tables(frame, what="events")] == [1 << 20, 1 << 20, 2_500_000 - (2 << 20)]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ([{"id": 1}], r"events: expected a frame of pandas or polars, .*, found list; make one of it"),
        (pd.DataFrame({"id": [1, "x"]}), r"events: Arrow cannot read it .* give each column values of one type"),
    ],
)
def test_what_is_no_table_is_one_clear_error(frame: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_frame(frame, what="events", staging=tmp_path / "staging")
