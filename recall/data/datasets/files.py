"""Holds what the readers of data sets share: their tables, and a reader of text files; `streams.py` writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from recall.core.errors import DataError
from recall.data.datasets.streams import write_tables

# A control character that no published file holds: stands in for separators of several characters.
_UNIT_SEPARATOR = b"\x1f"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Hold a data set as tables, with the column names that its example experiment uses.

    Attributes:
      events: one row per exposure (or per interaction, where the source has no exposures).
      items: the catalogue, one row per item, cold items included.
      users: one row per user, or None where the source has no profiles.
      extras: further tables of the source by name, e.g. the click histories of MIND.
      dropped: rows of the source that were not taken, by reason.
    """

    events: pa.Table
    items: pa.Table
    users: pa.Table | None = None
    extras: Mapping[str, pa.Table] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)

    def tables(self) -> dict[str, pa.Table]:
        """Return every table by the name of its file."""
        users = {} if self.users is None else {"users": self.users}
        return {"events": self.events, "items": self.items, **users, **self.extras}

    def write(self, folder: str | Path) -> list[Path]:
        """Write events.parquet, items.parquet, users.parquet and the extras, as `write_tables` does."""
        return write_tables(folder, self.tables())


def require_folder(folder: str | Path) -> Path:
    """Return the folder as a path.

    Raises:
      DataError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise DataError(f"{folder}: expected the folder of the unpacked data set, found {found} there")
    return folder


def require_file(folder: Path, name: str, *, of: str) -> Path:
    """Return the path of a file that the data set must have.

    Raises:
      DataError: says which file of which data set is missing, and what the folder holds instead.
    """
    path = folder / name
    if not path.is_file():
        raise DataError(f"{folder}: expected {name} of {of}; found {listing(folder)}. Give the folder as published")
    return path


def listing(folder: Path) -> str:
    """List the first few names in a folder, for error messages."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    shown = ", ".join(names[:6]) or "nothing"
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown


def read_delimited(
    path: Path,
    columns: Sequence[str],
    *,
    delimiter: str,
    encoding: str = "utf8",
    header: bool = False,
    quoted: bool = False,
) -> pa.Table:
    """Read a text table whose columns are known; all values are strings, empty ones null.

    Args:
      path: the file.
      columns: the column names: expected in the header line, or given to the columns in order.
      delimiter: one or several characters, like MovieLens' `::`.
      encoding: encoding of the text.
      header: whether the first line holds names.
      quoted: whether values may be in double quotes.

    Raises:
      DataError: unreadable, empty, another number of columns somewhere (says in which line), other names.
    """
    wrong: list[pa_csv.InvalidRow] = []
    try:
        table = _read_csv(path, columns, delimiter, encoding=encoding, header=header, quoted=quoted, wrong=wrong)
    except (OSError, pa.ArrowException, UnicodeError) as error:
        if wrong:
            row = wrong[0]
            raise DataError(
                f"{path}, line {row.number}: expected {row.expected_columns} columns ({', '.join(columns)}), "
                f"found {row.actual_columns}: {row.text[:80]!r}"
            ) from None
        raise DataError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); expected {', '.join(columns)}"
        ) from error
    if header and list(columns) != table.column_names:
        raise DataError(
            f"{path}: expected the header {','.join(columns)}, found {','.join(table.column_names)[:200]!r}"
        )
    return table


def _read_csv(
    path: Path,
    columns: Sequence[str],
    delimiter: str,
    *,
    encoding: str,
    header: bool,
    quoted: bool,
    wrong: list[pa_csv.InvalidRow],
) -> pa.Table:
    """Read strings as `read_delimited` does; a row with another number of columns goes to `wrong` and fails."""

    def remember(row: pa_csv.InvalidRow) -> str:
        wrong.append(row)
        return "error"

    source: Path | pa.BufferReader = path
    if len(delimiter) > 1:
        source = pa.BufferReader(path.read_bytes().replace(delimiter.encode(), _UNIT_SEPARATOR))
    return pa_csv.read_csv(
        source,
        # One thread: only then does a wrong row know its line number.
        read_options=pa_csv.ReadOptions(
            column_names=None if header else list(columns), encoding=encoding, use_threads=False
        ),
        parse_options=pa_csv.ParseOptions(
            delimiter=delimiter if len(delimiter) == 1 else _UNIT_SEPARATOR.decode(),
            quote_char='"' if quoted else False,
            invalid_row_handler=remember,
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in columns},
            strings_can_be_null=True,
            null_values=[""],
        ),
    )


def require_columns(path: Path, names: Sequence[str], wanted: Iterable[str]) -> None:
    """Check that a file has the columns that the data set publishes.

    Raises:
      DataError: names the first missing column and lists the columns of the file.
    """
    for name in wanted:
        if name not in names:
            raise DataError(f"{path}: has no column {name}; its columns are {', '.join(names)}")


def as_number(table: pa.Table, column: str, kind: pa.DataType, *, path: Path, first_line: int = 1) -> pa.Table:
    """Replace a string column by numbers.

    Args:
      table: the table read from `path`.
      column: its name in the table; must not be missing in any row.
      kind: Arrow type of the result.
      path: file, for the error message.
      first_line: line of the file that holds the table's row 0.

    Raises:
      DataError: a value is missing or no number; says in which line.
    """
    values = table[column]
    try:
        numbers = pc.cast(values, kind)
    except pa.ArrowInvalid:
        numbers = None
    if numbers is None or numbers.null_count:
        row, text = next((row, text) for row, text in enumerate(values.to_pylist()) if not _casts(text, kind))
        found = "nothing" if text is None else repr(text)
        raise DataError(f"{path}, line {row + first_line}: {column} is {found}; expected a number")
    return table.set_column(table.column_names.index(column), column, numbers)


def _casts(text: str | None, kind: pa.DataType) -> bool:
    try:
        return text is not None and pc.cast(pa.scalar(text, pa.string()), kind).is_valid
    except pa.ArrowInvalid:
        return False
