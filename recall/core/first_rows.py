"""Reads the first rows of one column of a table, for a look at a file before all of it is read."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from recall.core.errors import DataError
from recall.core.partitions import partition_column
from recall.core.tables import table_format

_BLOCK_BYTES = 1 << 20
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, csv.Error, pa.ArrowException, DataError)


def first_rows(path: str | Path, column: str, *, rows: int, format: str = "auto", row_group: int = 0) -> pa.Array:
    """Read the first values of a column; fewer than `rows` where a block of the file ends before.

    Args:
      path: the file.
      column: name of the column.
      rows: number of rows at most.
      format: as of `read_table`.
      row_group: row group of a Parquet file to begin with.

    Returns:
      The values, of any type; of a partition where the file lacks the column; none where the file cannot be read,
      which is for its real reader to tell.
    """
    path = Path(path)
    try:
        kind = table_format(path, format)
        if kind == "parquet":
            with pq.ParquetFile(path) as file:
                batches = file.iter_batches(rows, row_groups=[row_group], columns=[column])
                return next(batches).column(0) if file.metadata.num_rows else pa.nulls(0)
        with _opened(path) as stream:
            return (
                _of_lines(stream, column, rows) if kind == "jsonl" else _delimited(stream, kind, column).slice(0, rows)
            )
    except (*_UNREADABLE, StopIteration):
        return partition_column(path, column, rows=1)


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _of_lines(stream: BinaryIO, column: str, rows: int) -> pa.Array:
    values = [json.loads(line).get(column) for line in itertools.islice(stream, rows) if line.strip()]
    return pa.array(values, from_pandas=True)


def _delimited(stream: BinaryIO, kind: str, column: str) -> pa.Array:
    quoted = kind == "csv"
    reader = pa.csv.open_csv(
        stream,
        read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
        parse_options=pa.csv.ParseOptions(
            delimiter="," if quoted else "\t", quote_char='"' if quoted else False, newlines_in_values=quoted
        ),
        convert_options=pa.csv.ConvertOptions(include_columns=[column], column_types={column: pa.string()}),
    )
    return reader.read_next_batch().column(0)
