"""Reads tables of other libraries in batches: pandas, polars, pyarrow, DuckDB and Hugging Face datasets.

None of these is imported. A table is known by what it offers: the Arrow PyCapsule interface (`__arrow_c_stream__`:
frames of pandas and polars, tables and readers of pyarrow, relations of DuckDB), or the methods of a lazy frame of
polars, of a pyarrow dataset and of a Hugging Face dataset. Lazy ones are never held whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from recall.core.canonical import plain
from recall.core.errors import DataError

_ROWS = 1 << 20  # of a batch, at most
_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls an index without a name
_EXPECTED = (
    "a frame of pandas or polars, a table, reader or dataset of pyarrow, a relation of DuckDB, or a dataset of "
    "Hugging Face"
)


class Frame(NamedTuple):
    """Hold a table that is read once, in batches.

    Attributes:
      names: its columns.
      batches: its rows, in order.
    """

    names: list[str]
    batches: Iterable[pa.RecordBatch]


def open_frame(frame: Any, *, what: str, staging: Path) -> Frame:
    """Open a table of any of the libraries.

    Args:
      frame: the table.
      what: name of the table, for errors.
      staging: path of a file that does not exist: a lazy frame of polars streams its result there, and the caller
        removes it.

    Raises:
      DataError: this is no such table, or Arrow has no type for one of its columns.
    """
    try:
        if hasattr(frame, "__arrow_c_stream__"):
            reader = pa.RecordBatchReader.from_stream(frame)
            return Frame(reader.schema.names, reader)
        if hasattr(frame, "sink_parquet") and hasattr(frame, "collect_schema"):
            return Frame(list(frame.collect_schema().names()), _sunk(frame, staging))
        if hasattr(frame, "scanner"):
            reader = frame.scanner().to_reader()
            return Frame(reader.schema.names, reader)
        if hasattr(frame, "with_format") and hasattr(frame, "column_names") and hasattr(frame, "iter"):
            tables = frame.with_format("arrow").iter(batch_size=_ROWS)
            return Frame(list(frame.column_names), (batch for table in tables for batch in table.to_batches()))
    except pa.ArrowException as error:
        raise DataError(f"{what}: {_told(error)}") from error
    found = f"{type(frame).__module__.partition('.')[0]}.{type(frame).__name__}".removeprefix("builtins.")
    raise DataError(f"{what}: expected {_EXPECTED}, found {found}; make one of it, e.g. pandas.DataFrame(rows)")


def plain_tables(frame: Frame, *, what: str) -> Iterator[pa.Table]:
    """Yield the rows of a table in parts of a million rows at most, all of one schema of plain types.

    Categories become their values, views and long texts become text, vectors of one length become lists, and an unnamed
    index of pandas is left out: what Parquet keeps, and `read_table` gives back.

    Raises:
      DataError: a later batch does not have the types of the first, or cannot be read.
    """
    schema: pa.Schema | None = None
    try:
        for batch in frame.batches:
            for start in range(0, len(batch), _ROWS):
                columns = {
                    name: _storable(column)
                    for name, column in zip(batch.schema.names, batch.slice(start, _ROWS).columns, strict=True)
                    if not _INDEX.fullmatch(name)
                }
                table = pa.table(columns)
                schema = schema or table.schema
                yield table.cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{what}: {_told(error)}") from error


def _storable(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        # The values first: Arrow takes nothing out of a dictionary of string views, as polars gives it.
        values = _storable(column.dictionary)
        return pa.DictionaryArray.from_arrays(column.indices, values).dictionary_decode()
    column = plain(column)
    kind = column.type
    if pa.types.is_large_string(kind):
        return column.cast(pa.string())
    if pa.types.is_fixed_size_list(kind):  # Parquet keeps no values of a null, and pyarrow then fails to read them
        return column.cast(pa.list_(kind.value_type))
    return column


def _sunk(frame: Any, staging: Path) -> Iterator[pa.RecordBatch]:
    frame.sink_parquet(staging)
    with pq.ParquetFile(staging) as file:
        yield from file.iter_batches(_ROWS)


def _told(error: Exception) -> str:
    return f"Arrow cannot read it ({' '.join(str(error).split())}); give each column values of one type"
