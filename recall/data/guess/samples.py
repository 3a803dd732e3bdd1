"""Reads a sample of a table: rows of its beginning, its middle and its end. A log of any length costs the same."""

from __future__ import annotations

import collections
import csv
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from recall.core.canonical import plain
from recall.core.errors import DataError
from recall.core.json_lines import read_json_lines
from recall.core.tables import expand_paths, read_header, read_table, table_format

_ROWS = 10_000
_DECODED_ROWS = 2_000_000  # of one row group, to come to its end
_BLOCK_BYTES = 4 << 20
_WHOLE_BYTES = 32 << 20
_NUMBERS = frozenset("+-.,:/0123456789 ")
_PUBLISHED = {
    ("u.data", "u.item", "u.user", "ratings.dat", "movies.dat", "users.dat"): "movielens",
    ("behaviors.tsv", "news.tsv"): "mind",
    ("sequences.txt",): "sequences",
}


class Sample(NamedTuple):
    """Hold rows of a table.

    Attributes:
      path: the first file of the table.
      table: rows of some places of the files, columns as read.
      rows: number of rows of all files; None where counting them would mean to read them.
      is_whole: whether `table` is all there is.
    """

    path: Path
    table: pa.Table
    rows: int | None
    is_whole: bool


def read_sample(pattern: str | Path, *, most: int = _ROWS) -> Sample:
    """Read a sample of a table.

    Small files are read whole; of others three places of the first, the middle and the last file.

    Args:
      pattern: a path or glob.
      most: rows of each place of a Parquet file. Of text files a place is a block of 4 MB.

    Raises:
      DataError: no file matches, a file cannot be read, or its first line holds no names of columns.
    """
    files = expand_paths(pattern)
    _refuse_published_formats(files[0])
    kinds = [table_format(path) for path in files]
    if kinds[0] in ("csv", "tsv"):
        _require_names(files[0], read_header(files[0]))
    chosen = sorted({0, len(files) // 2, len(files) - 1})
    parts: list[pa.Table] = []
    complete = []
    for number in chosen:
        tables, is_whole = _parts_of(files[number], kinds[number], most)
        parts += tables
        complete.append(is_whole)
    is_whole = all(complete) and len(chosen) == len(files)
    table = _joined(parts, files[0])
    rows = len(table) if is_whole else None
    if rows is None and set(kinds) == {"parquet"}:
        rows = sum(pq.read_metadata(path).num_rows for path in files)
    return Sample(files[0], table, rows, is_whole)


def _parts_of(path: Path, kind: str, most: int) -> tuple[list[pa.Table], bool]:
    """Read some places of a file; returns them, and whether they are all of it."""
    if kind == "parquet":
        try:
            with pq.ParquetFile(path) as file:
                if file.metadata.num_rows <= 3 * most:
                    return [_plain(file.read())], True
                return list(_places_of_parquet(file, most)), False
        except (OSError, pa.ArrowException):
            return [read_table(path)], True  # tells what is wrong
    if path.stat().st_size <= _WHOLE_BYTES and path.suffix.lower() != ".gz":
        return [read_table(path)], True
    if path.suffix.lower() == ".gz" and path.stat().st_size <= _WHOLE_BYTES // 8:
        return [read_table(path)], True
    return list(_places_of_text(path, kind)), False


def _places_of_parquet(file: pq.ParquetFile, most: int) -> Iterator[pa.Table]:
    """Read the first rows of some row groups, and the last rows of the last one."""
    last = file.metadata.num_row_groups - 1
    for group in sorted({0, (last + 1) // 2, last}):
        yield _plain(pa.Table.from_batches([next(file.iter_batches(most, row_groups=[group]))]))
    if most < file.metadata.row_group(last).num_rows <= _DECODED_ROWS:
        batch = collections.deque(file.iter_batches(most, row_groups=[last]), maxlen=1)[0]
        yield _plain(pa.Table.from_batches([batch]))


def _places_of_text(path: Path, kind: str) -> Iterator[pa.Table]:
    """Read blocks of a text file; what begins in the middle of a line is left out. Of gzip only the first is read."""
    if path.suffix.lower() == ".gz":
        with gzip.open(path) as stream:
            yield _parse(_whole_lines(stream.read(_BLOCK_BYTES)), kind)
        return
    size = path.stat().st_size
    with path.open("rb") as stream:
        first = stream.read(_BLOCK_BYTES)
        yield _parse(_whole_lines(first), kind)
        header = b"" if kind == "jsonl" else first[: first.find(b"\n") + 1]
        for start in (size // 2, size - _BLOCK_BYTES):
            stream.seek(start)
            block = _whole_lines(stream.read(_BLOCK_BYTES))
            try:
                yield _parse(header + block[block.find(b"\n") + 1 :], kind)
            except pa.ArrowException:  # the block began inside of quotes
                continue


def _whole_lines(block: bytes) -> bytes:
    return block[: block.rfind(b"\n") + 1] or block


def _parse(block: bytes, kind: str) -> pa.Table:
    if kind == "jsonl":
        return read_json_lines(lambda: io.BytesIO(block), block_bytes=max(len(block), 1))
    text = block.removeprefix(b"\xef\xbb\xbf")
    quoted = kind == "csv"
    names = _first_line(text, kind)
    return pa.csv.read_csv(
        io.BytesIO(text),
        read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
        parse_options=pa.csv.ParseOptions(
            delimiter="," if quoted else "\t",
            quote_char='"' if quoted else False,
            newlines_in_values=quoted,
            invalid_row_handler=lambda row: "skip",
        ),
        convert_options=pa.csv.ConvertOptions(
            column_types={name: pa.string() for name in names}, strings_can_be_null=True, null_values=[""]
        ),
    )


def _first_line(text: bytes, kind: str) -> list[str]:
    line = text[: text.find(b"\n")].decode("utf-8", "replace").rstrip("\r")
    return next(csv.reader([line])) if kind == "csv" else line.split("\t")


def _plain(table: pa.Table) -> pa.Table:
    return pa.table([plain(column) for column in table.columns], names=table.column_names)


def _joined(parts: list[pa.Table], path: Path) -> pa.Table:
    """Put the parts of files together; files of other columns or types than the first are left out."""
    usable = [part for part in parts if part.schema.equals(parts[0].schema)]
    if not usable or not sum(map(len, usable)):
        raise DataError(f"{path}: has no rows; expected a table with at least one")
    return pa.concat_tables(usable).combine_chunks()


def _require_names(path: Path, header: list[str]) -> None:
    """Refuse a file whose first line is a row: half of its values are numbers or times, or some repeat."""
    numbers = [name for name in header if name and set(name) <= _NUMBERS]
    if 2 * len(numbers) >= len(header) or "" in header[1:] or len(set(header)) < len(header):
        shown = ", ".join(header[:6])
        raise DataError(
            f"init: {path}: its first line ({shown[:80]}) looks like a row; write the names of the columns above it, "
            "e.g. user_id, item_id, time"
        )


def _refuse_published_formats(path: Path) -> None:
    """Name the command that converts a public data set of a format of its own."""
    for names, reader in _PUBLISHED.items():
        if path.name.removesuffix(".gz") in names:
            folder = path.parent
            written = f"{reader}-data"
            raise DataError(
                f"init: {path}: has a format of its own; run `recall dataset {reader} {folder} --out {written}`, "
                f"then `recall init --events {written}/events.parquet --items {written}/items.parquet`"
            )
