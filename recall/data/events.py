"""Reads events from log files, sets aside unusable rows, orders the rest and drops exact duplicates."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recall.config.data import EventsConfig
from recall.core.arrays import Bools, Int32s, Int64s
from recall.core.canonical import LONGEST_ID, Column, id_dictionary, is_long_id, plain, used_only
from recall.core.errors import DataError
from recall.core.ordering import order_of
from recall.core.partitions import partition_values, with_partitions
from recall.core.tables import expand_paths, parse_numbers, read_header, read_table, table_format
from recall.core.times import parse_times
from recall.core.untyped import UNTYPED, untyped_dictionary
from recall.data.click_weights import click_weights
from recall.data.clock import Clock, require_unit

_ID = pa.dictionary(pa.int32(), pa.string())  # each text once: compared, cut and sent as numbers
EVENT_SCHEMA = pa.schema(
    [("user", _ID), ("item", _ID), ("time_ms", pa.int64()), ("click", pa.bool_()), ("trigger", _ID)]
)
_KEYS = EVENT_SCHEMA.names
REJECTED_SCHEMA = pa.schema(
    [("file", pa.string()), ("row", pa.int64())]
    + [(name, pa.string()) for name in ("reason", "user", "item", "time", "click")]
)
# Row groups are read together until they hold about this many rows: 1M rows of a log are some 50 MB as Arrow.
_ROWS_PER_PIECE = 1_000_000


class Note(NamedTuple):
    """Hold what was assumed of a file, a sentence for people; notes of one topic say the same of several files."""

    topic: str
    text: str


class Piece(NamedTuple):
    """Hold the part of the log that one worker reads at once: a file, or row groups of a Parquet file.

    Attributes:
      path: the file.
      row_groups: numbers of the row groups; none means the whole file.
      first_row: data row of the file that the piece begins with.
    """

    path: str
    row_groups: tuple[int, ...] = ()
    first_row: int = 0


class ReadRows(NamedTuple):
    """Hold the rows of a piece of the log.

    Attributes:
      accepted: events (`event_schema`), in the order of the file.
      rejected: unusable rows (`REJECTED_SCHEMA`), likewise.
      without_zone: number of rows whose time said no offset from UTC.
      assumed: what was assumed of a file without types.
    """

    accepted: pa.Table
    rejected: pa.Table
    without_zone: int
    assumed: tuple[Note, ...] = ()


def event_schema(events: EventsConfig) -> pa.Schema:
    """Return `EVENT_SCHEMA`, with `weight` float32 where the log has weights."""
    return EVENT_SCHEMA.append(pa.field("weight", pa.float32())) if events.weight else EVENT_SCHEMA


def plan_pieces(events: EventsConfig, *, section: str = "data.events", click_key: str = "click") -> list[Piece]:
    """Cut the log into pieces, after a look at the columns of each file.

    Args:
      events: names and meaning of the columns.
      section: section of the experiment file that names them.
      click_key: key of the click rule's column in that section.

    Raises:
      DataError: no file matches, a file cannot be read, or lacks a column (says which there are).
    """
    return [piece for path in expand_paths(events.path) for piece in _pieces_of(path, events, section, click_key)]


def _pieces_of(path: Path, events: EventsConfig, section: str, click_key: str) -> Iterator[Piece]:
    if events.format == "sequences":
        yield Piece(str(path))
        return
    names = [*read_header(path, events.format), *partition_values(path)]
    for key, column in log_columns(events).items():
        if column not in names:
            raise DataError(
                f"{section}.{click_key if key == 'click' else key}: {path} has no column {column}; "
                f"its columns are {', '.join(names)}"
            )
    if table_format(path, events.format) != "parquet":
        yield Piece(str(path))
        return
    metadata = pq.read_metadata(path)
    groups: list[int] = []
    first_row = rows = 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        rows += metadata.row_group(group).num_rows
        if rows >= _ROWS_PER_PIECE or group + 1 == metadata.num_row_groups:
            yield Piece(str(path), tuple(groups), first_row)
            groups, first_row, rows = [], first_row + rows, 0


def read_events(
    piece: Piece, events: EventsConfig, *, known_items: pa.StringArray | None = None
) -> tuple[pa.Table, pa.Table]:
    """Read a piece of the log as `read_rows` does, and believe every time."""
    read = read_rows(piece, events, known_items=known_items)
    return read.accepted, read.rejected


def read_rows(
    piece: Piece, events: EventsConfig, *, known_items: pa.StringArray | None = None, clock: Clock | None = None
) -> ReadRows:
    """Read a piece of the log, and separate usable rows from unusable ones.

    Args:
      piece: the part of the log to read.
      events: names and meaning of the columns.
      known_items: ids of the catalogue; None accepts every item.
      clock: which times are believed; None believes every one.

    Raises:
      DataError: the file is truncated or otherwise unreadable, or its times are in another unit.
    """
    if events.format == "sequences":
        raw, rows = _read_sequences(Path(piece.path))
    else:
        raw = _read_raw(piece, events)
        rows = np.arange(piece.first_row, piece.first_row + len(raw))
    is_typed = events.format == "sequences" or table_format(Path(piece.path), events.format) not in UNTYPED
    return validate_events(
        raw, rows, events=events, piece=piece, known_items=known_items, clock=clock, is_typed=is_typed
    )


def validate_events(
    raw: pa.Table,
    rows: Int64s,
    *,
    events: EventsConfig,
    piece: Piece,
    known_items: pa.StringArray | None,
    clock: Clock | None = None,
    is_typed: bool = True,
) -> ReadRows:
    """Parse the columns, and set unusable rows aside with the first reason that applies.

    Args:
      raw: columns user, item, time and, where the log has them, click, trigger and columns of the weights, of any type.
      rows: int64 [rows], where each row stands in its file.
      events: unit of time, click rule and weights.
      piece: source of the rows, for errors and the rejected rows.
      known_items: ids of the catalogue; None accepts every item.
      clock: as of `read_rows`.
      is_typed: whether the file has types; the ids of a file without are read as `untyped.py` says.

    Raises:
      DataError: a column holds values that are none, or ids that have lost digits.
    """
    assumed = list[Note]()
    user = _ids(raw, "user", events, piece, assumed=None if is_typed else assumed)
    item = _ids(raw, "item", events, piece, assumed=None if is_typed else assumed)
    with _naming("time", events.time, piece):
        time = parse_times(raw["time"], events.time_unit, time_zone=events.time_zone)
    reasons = [
        ("user is missing", _is_null(user)),
        ("item is missing", _is_null(item)),
        (f"user id is longer than {LONGEST_ID} characters", _is_long(user)),
        (f"item id is longer than {LONGEST_ID} characters", _is_long(item)),
        ("time is missing", time.missing),
        ("time cannot be read", time.unreadable),
    ]
    if clock:
        readable = time.ms[~(time.missing | time.unreadable)]
        require_unit(readable, raw["time"], events, now_ms=clock.now_ms, where=f"{piece.path}: {events.time}")
        reasons += clock.faults(time.ms)
    click = np.ones(len(raw), bool)
    if events.click:
        with _naming("click", events.click.column, piece):
            value, wrong = parse_numbers(raw["click"])
        reasons += [("click is missing", np.isnan(value) & ~wrong), ("click is not a number", wrong)]
        click = value >= events.click.at_least
    if known_items is not None:
        known = pc.is_in(item.dictionary, value_set=known_items).to_numpy(zero_copy_only=False)
        unknown = ~np.append(known, False)[item.indices.fill_null(-1).to_numpy()]
        reasons.append(("item is not in the items file", unknown))
    trigger = pa.nulls(len(raw), _ID)
    if events.trigger:
        trigger = _ids(raw, "trigger", events, piece, assumed=None if is_typed else assumed)
    columns = [user, item, pa.array(time.ms), pa.array(click), trigger]
    if events.weight:
        with _naming("weight", ", ".join(events.weight.columns.values()), piece):
            weight, faults = click_weights(raw, events.weight, click=click)
        columns.append(pa.array(weight))
        reasons += faults

    reason = np.select([mask for _, mask in reasons], range(len(reasons)), default=-1)
    accepted = pa.table(columns, schema=event_schema(events))
    refused = np.flatnonzero(reason >= 0)
    rejected = REJECTED_SCHEMA.empty_table()
    if len(refused):
        names = [reasons[code][0] for code in reason[refused]]
        accepted, rejected = accepted.filter(pa.array(reason < 0)), _rejected(raw, refused, rows[refused], names, piece)
    return ReadRows(accepted, rejected, time.without_zone, tuple(assumed))


def sort_events(events: pa.Table) -> tuple[pa.Table, int]:
    """Order the events of whole users, and drop exact duplicates.

    Args:
      events: columns of `event_schema`; all events of each user that occurs, in any order.

    Returns:
      The events by (user, time_ms, item, click, trigger), ids as dictionaries in the order of their text; and how
      many rows were dropped because another row agreed with them in all five columns. What else is known of an
      event (its weight) is no part of its identity: of rows that agree the largest value is kept.
    """
    user, users = _ranks(events["user"])
    item, items = _ranks(events["item"])
    trigger, triggers = _ranks(events["trigger"])
    time_ms = events["time_ms"].to_numpy()
    click = events["click"].to_numpy()
    keys = (user, time_ms, item, click, trigger)
    order = order_of(*keys[:2], ties=keys[2:])
    user, time_ms, item, click, trigger = ordered = [key[order] for key in keys]
    differs = np.zeros(len(order), bool)
    differs[:1] = True
    for key in ordered:
        differs[1:] |= key[1:] != key[:-1]
    columns = {
        "user": _dictionary(user[differs], users),
        "item": _dictionary(item[differs], items),
        "time_ms": pa.array(time_ms[differs]),
        "click": pa.array(click[differs]),
        "trigger": _dictionary(trigger[differs], triggers),
    }
    starts = np.flatnonzero(differs)
    for name in events.column_names:
        if name not in _KEYS:
            values = events[name].to_numpy()[order]
            columns[name] = pa.array(np.maximum.reduceat(values, starts) if len(starts) else values)
    return pa.table(columns), len(order) - len(starts)


def log_columns(events: EventsConfig) -> dict[str, str]:
    """Map the keys of the log's columns in the experiment file to their names."""
    columns = {"user": events.user, "item": events.item, "time": events.time}
    if events.click:
        columns["click"] = events.click.column
    if events.trigger:
        columns["trigger"] = events.trigger
    if events.weight:
        columns |= events.weight.columns
    return columns


def _read_raw(piece: Piece, events: EventsConfig) -> pa.Table:
    columns = log_columns(events)
    named = list(dict.fromkeys(columns.values()))
    in_file = _in_file(piece, events, named)
    if piece.row_groups:
        table = _read_row_groups(piece, columns, in_file)
    else:
        table = read_table(piece.path, format=events.format, columns=in_file)
    table = with_partitions(table, piece.path, named)
    return pa.table({name: table[column] for name, column in columns.items()})


def _in_file(piece: Piece, events: EventsConfig, named: list[str]) -> list[str]:
    """Return the columns that the file holds; the names of its folders give the others."""
    given = partition_values(piece.path).keys() & set(named)
    if not given:
        return named
    header = read_header(piece.path, events.format)
    return [name for name in named if name not in given or name in header]


def _read_row_groups(piece: Piece, columns: dict[str, str], names: list[str]) -> pa.Table:
    try:
        ids = {columns[name] for name in ("user", "item", "trigger") if name in columns}
        # Read as dictionaries, whether the file has any or not, texts are not copied out row by row.
        schema = pq.read_schema(piece.path)
        texts = [field.name for field in schema if field.name in ids and pa.types.is_string(field.type)]
        with pq.ParquetFile(piece.path, read_dictionary=texts) as file:
            table = file.read_row_groups(list(piece.row_groups), columns=names, use_threads=False)
            return pa.table([plain(column) for column in table.columns], names=table.column_names)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{piece.path}: cannot be read as parquet ({' '.join(str(error).split())}); the file may be truncated"
        ) from error


def _read_sequences(path: Path) -> tuple[pa.Table, Int64s]:
    """Read lines `user item item ...`, oldest first: the position in the line, from 0, is the time.

    Returns:
      Columns user, item, time and click (always 1), one row per item (one without item for a user without any), and
      the number of the line that each comes from, from 0.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = pa.array(content.decode("utf-8-sig").splitlines(), pa.string())
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as lines of text ({error}); the file may be truncated") from error
    words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(lines))
    filled = pc.not_equal(pc.utf8_trim_whitespace(lines), "")
    words, numbers = words.filter(filled), np.flatnonzero(filled.to_numpy(zero_copy_only=False))
    tokens = words.flatten()
    counts = pc.list_value_length(words).to_numpy()
    starts = np.cumsum(counts) - counts
    line = np.repeat(np.arange(len(words)), np.maximum(counts - 1, 1))
    position = np.arange(len(line)) - np.searchsorted(line, line)
    has_item = counts[line] > 1
    items = tokens.take(pa.array(starts[line] + 1 + position, mask=~has_item))
    users = tokens.take(pa.array(starts[line]))
    raw = pa.table({"user": users, "item": items, "time": position, "click": np.ones(len(line), np.int64)})
    return raw, numbers[line]


@contextlib.contextmanager
def _naming(role: str, column: str, piece: Piece) -> Iterator[None]:
    """Put the key of the experiment file, the column and the file in front of a DataError."""
    try:
        yield
    except DataError as error:
        raise DataError(f"data.events.{role}: column {column} of {piece.path}: {error}") from error


def _ids(
    raw: pa.Table, role: str, events: EventsConfig, piece: Piece, *, assumed: list[Note] | None
) -> pa.DictionaryArray:
    """Read a column of ids; `assumed` collects what is assumed of a file without types."""
    column = getattr(events, role)
    with _naming(role, column, piece):
        ids = id_dictionary(raw[role])
        if assumed is None:
            return ids
        ids, found = untyped_dictionary(ids)
    if found:
        assumed.append(Note(f"{role} {found.kind}", f"column {column} of {Path(piece.path).name}: {found}"))
    return ids


def _is_long(ids: pa.DictionaryArray) -> Bools:
    is_long = is_long_id(ids.dictionary).to_numpy(zero_copy_only=False)
    return np.append(is_long, False)[ids.indices.fill_null(-1).to_numpy()]


def _is_null(array: pa.Array) -> Bools:
    return array.is_null().to_numpy(zero_copy_only=False)


def _rejected(raw: pa.Table, refused: Int64s, rows: Int64s, reasons: list[str], piece: Piece) -> pa.Table:
    found = raw.take(pa.array(refused))
    texts = {
        name: [None if value is None else str(value) for value in found[name].to_pylist()]
        if name in found.column_names
        else [None] * len(refused)
        for name in ("user", "item", "time", "click")
    }
    return pa.table(
        {"file": [piece.path] * len(refused), "row": rows, "reason": reasons, **texts}, schema=REJECTED_SCHEMA
    )


def _ranks(column: Column) -> tuple[Int32s, pa.StringArray]:
    """Rank each text among the sorted distinct ones (-1 for null); returns the ranks and the distinct texts."""
    encoded = used_only(id_dictionary(column))
    order = pc.array_sort_indices(encoded.dictionary).to_numpy()
    ranks = np.empty(len(order) + 1, np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    ranks[-1] = -1
    return ranks[encoded.indices.fill_null(-1).to_numpy()], encoded.dictionary.take(pa.array(order))


def _dictionary(codes: Int32s, values: pa.StringArray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), values)
