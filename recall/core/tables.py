"""Reads tables (CSV, TSV, JSON lines, gzipped or not, and Parquet) and interprets their numbers.

`canonical.py` interprets their ids, categories and tags.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from recall.core.arrays import Bools, Float64s
from recall.core.canonical import Column, flat, plain, texts
from recall.core.errors import DataError
from recall.core.json_lines import read_json_lines
from recall.core.partitions import visible

_ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
# A record has to fit into one block; texts of items can be long.
_BLOCK_BYTES = 1 << 24
_UNREADABLE = (OSError, EOFError, UnicodeDecodeError, csv.Error, pa.ArrowException)
_URI = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_CHANGED_TYPE = re.compile(r"Column\(/(\S+)\) changed from (\w+) to (\w+)")
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


def expand_paths(pattern: str | Path) -> list[Path]:
    """List the files of a path or glob (`**` and `{one,two}`, too), sorted by name.

    A folder stands for the tables in it and in the folders below, such as the partitions `dt=2024-01-01/`. Its hidden
    files (`.name`, `_name`) and, where it holds files with the ending of a table, other files are passed over.

    Raises:
      DataError: no file matches, a folder holds none, the name of one is no UTF-8, or this is a URI.
    """
    if is_uri(pattern):
        raise DataError(
            f"{pattern}: expected a local path; only `recall prepare` and the Beam command read logs by URI"
        )
    exact = Path(pattern)
    found = [exact] if exact.exists() else [Path(name) for name in _matches(str(pattern))]
    files = [path for path in found if path.is_file()]
    if not files or exact.is_dir():
        files = [file for folder in found if folder.is_dir() for file in tables_in(folder)]
    if not files:
        hint = "tables in it, or in folders below" if exact.is_dir() else "a file, a folder, or a glob like logs/*.csv"
        what = "is a folder without a table" if exact.is_dir() else "matches no file"
        raise DataError(f"{pattern}: {what}; expected {hint}")
    files = sorted(set(files))
    for path in files:
        if not is_utf8(path):
            raise DataError(f"{str(path)!a}: the file's name is no UTF-8, which no reader of tables takes; rename it")
    return files


def _matches(pattern: str) -> list[str]:
    """List what matches a glob, or one of the globs that `{one,two}` stands for, as in shells."""
    if not (braces := re.search(r"\{([^{}]*,[^{}]*)\}", pattern)):
        return glob.glob(pattern, recursive=True)
    start, end = braces.span()
    return [name for part in braces[1].split(",") for name in _matches(pattern[:start] + part + pattern[end:])]


def tables_in(folder: Path) -> list[Path]:
    """List the tables in a folder and the folders below, in any order; hidden names are passed over."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [folder / name for name in table_names(str(path.relative_to(folder)) for path in files)]


def table_names(names: Iterable[str]) -> list[str]:
    """Keep the names of tables among the files of a folder, given relative to it.

    Files with the ending of a table; where there is none all of them, for their format may be declared.
    """
    shown = [name for name in names if all(visible([part]) for part in name.split("/"))]
    return [name for name in shown if _ending(name) in _ENDINGS] or shown


def is_utf8(path: Path) -> bool:
    """Tell whether a path can be written as UTF-8: names on Linux may be any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def is_uri(path: str | Path) -> bool:
    """Tell whether a path names a file of another file system, such as gs://bucket/log.parquet."""
    return _URI.match(str(path)) is not None


def table_format(path: Path, declared: str = "auto") -> str:
    """Return `csv`, `tsv`, `jsonl` or `parquet`: the declared format, or for `auto` the format of the ending.

    Raises:
      DataError: the ending says nothing.
    """
    if declared != "auto":
        return declared
    ending = _ending(path.name)
    if ending not in _ENDINGS:
        raise DataError(
            f"{path}: its ending does not tell the format; expected .csv, .tsv, .jsonl (each also .gz) or .parquet, "
            "or set `format`"
        )
    return _ENDINGS[ending]


def _ending(name: str) -> str:
    """Return the ending that tells the format, in small letters: `.csv` of `LOG.CSV.gz`."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])


def read_header(path: str | Path, format: str = "auto") -> list[str]:
    """Read the column names of a table.

    Cheap but for JSON lines, which are parsed whole: a field may turn up first in the last line.

    Raises:
      DataError: the file is missing, empty or unreadable.
    """
    path = Path(path)
    kind = table_format(path, format)
    try:
        if kind == "parquet":
            return cast("list[str]", pa.parquet.read_schema(path).names)
        if kind == "jsonl":
            return cast("list[str]", read_json_lines(lambda: _open(path), block_bytes=_BLOCK_BYTES).column_names)
        with _open(path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
            lines = csv.reader(text) if kind == "csv" else (line.rstrip("\r\n").split("\t") for line in text)
            header = next((line for line in lines if any(line)), None)
    except _UNREADABLE as error:
        raise _unreadable(path, kind, error) from error
    if header is None:
        raise DataError(f"{path}: is empty; expected a header line with the column names")
    return header


def read_table(path: str | Path, *, format: str = "auto", columns: Sequence[str] | None = None) -> pa.Table:
    """Read one file.

    CSV and TSV values come as strings, the empty one as null. CSV quotes as RFC 4180 says; TSV does not quote:
    a tab separates values and the end of a line ends a record, whatever quotes the text holds.

    Args:
      path: the file.
      format: csv, tsv, jsonl or parquet; auto decides by the ending.
      columns: names to keep, in this order, each once in the result; default: all columns. Others are not parsed
        (except in JSON lines).

    Returns:
      A table with the columns asked for; zero rows if there is only a header.

    Raises:
      DataError: names the file and says what is wrong: missing, empty, truncated, not of its format, not UTF-8,
        or without one of the columns, in which case it lists those that it has.
    """
    path = Path(path)
    kind = table_format(path, format)
    wanted = None if columns is None else list(dict.fromkeys(columns))
    try:
        if kind == "jsonl":
            table = read_json_lines(lambda: _open(path), block_bytes=_BLOCK_BYTES)
            _check_columns(path, table.column_names, wanted)
            return table if wanted is None else table.select(wanted)
        names = read_header(path, kind)
        _check_columns(path, names, wanted)
        if kind == "parquet":
            # ParquetFile, as read_table would make columns out of folders called key=value.
            table = pa.parquet.ParquetFile(path).read(columns=wanted).select(names if wanted is None else wanted)
            return pa.table([plain(column) for column in table.columns], names=table.column_names)
        return _read_delimited(path, kind, names if wanted is None else wanted)
    except _UNREADABLE as error:
        raise _unreadable(path, kind, error) from error


def parse_numbers(column: Column) -> tuple[Float64s, Bools]:
    """Parse numbers, and mark the values that are not numbers.

    Null, NaN, and empty text or the text `nan` are missing. Booleans count as 0 and 1, also as text (pandas writes
    `True`). Other text and infinities are not numbers.

    Returns:
      float64 [rows] with NaN where missing or not a number, and bool [rows], true where a value is not a number.
    """
    array = flat(column)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    if pa.types.is_temporal(array.type) or pa.types.is_nested(array.type):
        return np.full(len(array), np.nan), array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
        values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
        wrong = np.isinf(values)
    else:
        values, wrong = _parse_text(texts(array, expected="numbers"))
    values = np.where(wrong, np.nan, values)
    return values, wrong


def numbers(column: Column, *, what: str = "column") -> Float64s:
    """Parse numbers as float64 [rows], NaN where missing; see `parse_numbers`.

    Args:
      column: numbers, booleans or text.
      what: name of the column in an error.

    Raises:
      DataError: some values are not numbers; says how many and shows the first.
    """
    values, wrong = parse_numbers(column)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{what}: expected numbers, found {int(wrong.sum()):,} other values, the first in data row {row + 1:,}: "
            f"{column[row].as_py()!r}; correct them or leave them empty"
        )
    return values


def _parse_text(text: pa.StringArray) -> tuple[Float64s, Bools]:
    lower = pc.utf8_lower(text)
    truth = pc.is_in(lower, pa.array(["true", "false"]))
    if pc.any(truth).as_py():
        text = pc.if_else(truth, pc.if_else(pc.equal(lower, "true"), "1", "0"), text)
    missing = pc.or_(pc.is_null(text), pc.fill_null(pc.equal(lower, "nan"), False))
    readable = pc.fill_null(pc.match_substring_regex(text, _NUMBER), False)
    clean = pc.if_else(readable, pc.utf8_ltrim(text, characters="+"), pa.scalar(None, pa.string()))
    values = clean.cast(pa.float64()).to_numpy(zero_copy_only=False)
    wrong = ~(missing.to_numpy(zero_copy_only=False) | readable.to_numpy(zero_copy_only=False))
    return values, wrong | np.isinf(values)


def _delimiter(kind: str) -> str:
    return "\t" if kind == "tsv" else ","


def _open(path: Path) -> BinaryIO:
    # gzip of the standard library checks length and CRC at the end, so a truncated file is an error.
    return cast("BinaryIO", gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _read_delimited(path: Path, kind: str, columns: list[str]) -> pa.Table:
    quoted = kind == "csv"
    with _open(path) as stream:
        counted = _QuoteCounter(stream)
        table = pa.csv.read_csv(
            counted,
            read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=pa.csv.ParseOptions(
                delimiter=_delimiter(kind), quote_char='"' if quoted else False, newlines_in_values=quoted
            ),
            convert_options=pa.csv.ConvertOptions(
                include_columns=columns,
                column_types={name: pa.string() for name in columns},
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    if quoted and counted.quotes % 2:
        _check_quotes_close(path)
    return table


class _QuoteCounter(io.RawIOBase):
    """Pass bytes on, and count the quotes among them."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.quotes = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self.quotes += block.count(b'"')
        return block


def _check_quotes_close(path: Path) -> None:
    """Raise DataError if the file ends inside quotes, which Arrow reads as a value that reaches to the end.

    A second reading is worth it only when the number of quotes is odd. An odd number is no proof: a lone quote inside
    an unquoted value is harmless.
    """
    with _open(path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        line = 1
        try:
            for _ in reader:
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path}: the quotes of the record that starts in line {line:,} do not close ({error}); "
                'the file is truncated, or a " inside a value is not written as ""'
            ) from error


def _check_columns(path: Path, names: list[str], wanted: list[str] | None) -> None:
    for name in names if wanted is None else wanted:
        if name not in names:
            raise DataError(f"{path}: has no column {name}; its columns are {', '.join(names)}")
        if names.count(name) > 1:
            raise DataError(f"{path}: has {names.count(name)} columns called {name}; rename all but one")


def _unreadable(path: Path, kind: str, error: Exception) -> DataError:
    if not path.exists():
        return DataError(f"{path}: no such file; check the path")
    if path.is_file() and path.stat().st_size == 0:
        return DataError(f"{path}: is empty; expected a table as {kind}")
    if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
        return DataError(f"{path}: is not UTF-8 text; convert it, e.g. with iconv -f latin1 -t utf-8")
    if kind == "jsonl" and (mixed := _CHANGED_TYPE.search(str(error))):
        column, before, after = mixed.groups()
        return DataError(
            f"{path}: column {column.replace('/', '.')} holds a {before} in one row and a {after} in another "
            f"({' '.join(str(error).split())}); write all its values as one type, ids best as text"
        )
    return DataError(
        f"{path}: cannot be read as {kind} ({' '.join(str(error).split()) or type(error).__name__}); "
        "the file may be truncated or of another format"
    )
