"""Reads the values of Hive partitions: folders called `column=value`, such as `dt=2024-01-01/part-0.parquet`.

Spark, DuckDB, Hive and pyarrow write a column that they partition by into the names of folders and not into the files.
`tables.py` lists the files of such a folder; `recall/data/events.py` adds the columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import pyarrow as pa

_NULL = "__HIVE_DEFAULT_PARTITION__"
_HIDDEN = (".", "_")


def partition_values(path: str | Path) -> dict[str, str | None]:
    """Return the values that the folders of a path give to columns; the innermost folder of a name counts.

    Values are text, with escapes such as %3A decoded; the name that Hive gives to a missing value is None.
    """
    values = dict[str, str | None]()
    for folder in PurePosixPath(str(path)).parts[:-1]:
        column, equals, value = folder.partition("=")
        if equals and column:
            values[unquote(column)] = None if value == _NULL else unquote(value)
    return values


def partition_folders(path: str) -> str:
    """Return the folders of a path that are partitions, one below the other; empty text where there are none."""
    return "/".join(folder for folder in PurePosixPath(path).parts[:-1] if "=" in folder.strip("="))


def partition_column(path: str | Path, column: str, *, rows: int) -> pa.Array:
    """Return a column that the path's folders give, string [rows]; no rows where they do not name the column."""
    values = partition_values(path)
    if column not in values:
        return pa.nulls(0)
    return pa.repeat(pa.scalar(values[column], pa.string()), rows)


def with_partitions(table: pa.Table, path: str | Path, columns: Iterable[str]) -> pa.Table:
    """Append the columns that a file lacks and its folders give; a column of the file itself stays as it is."""
    values = partition_values(path)
    for column in columns:
        if column not in table.column_names and column in values:
            table = table.append_column(column, partition_column(path, column, rows=len(table)))
    return table


def visible(names: Iterable[str]) -> list[str]:
    """Keep the names that readers of a folder of files read, in the given order.

    Names that begin with a dot or an underscore are marks and leftovers of writers, such as `_SUCCESS`.
    """
    return [name for name in names if not name.startswith(_HIDDEN)]
