"""Keeps what a later run needs of a log in the place of the log: its state, and its last part as it was.

STATE/users.parquet   of each user with a click before the tail: how many, the last ones, and all items
STATE/items.parquet   when each item was exposed last
STATE/tail.parquet    the events of the tail, ordered and each once, ids as text
STATE/shown.parquet   what was shown and not clicked in sessions that go on in the tail; with `data.refused`
STATE/histories/NAME.parquet   of a further history: the last entries of each user before the tail, and all in it

Everything before the tail is settled: no event can change it. What comes late, but within the tail, finds its place.
The counts of items before the tail are in the posterior's buckets, at whose edge the tail begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recall.config.data import DataConfig
from recall.core.arrays import AnyInts, Int64s
from recall.core.errors import DataError
from recall.core.parquet import write_parts
from recall.core.tables import is_uri
from recall.data.compaction import Base
from recall.data.event_counts import BucketCounts
from recall.data.events import Piece
from recall.data.examples import HISTORY_SCHEMA, UserEvents
from recall.data.further_histories import ENTRY_SCHEMA
from recall.data.prepared import PreparedData
from recall.data.prepared_files import flat
from recall.data.refusals import sessions

STATE = "state"
USERS, ITEMS_SEEN = f"{STATE}/users.parquet", f"{STATE}/items.parquet"
TAIL, SHOWN = f"{STATE}/tail.parquet", f"{STATE}/shown.parquet"
SINCE = "since"
"""Entry of the manifest of data that goes on from other data."""
SETTLED = -1
"""The split of clicks that were settled before: they are history, and no examples."""
ITEM_SCHEMA = pa.schema([("item_id", pa.string()), ("last_ms", pa.int64())])
USER_SCHEMA = HISTORY_SCHEMA.append(pa.field("clicks", pa.int64()))
SHOWN_SCHEMA = ENTRY_SCHEMA
_USERS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Settled:
    """Hold the settled part of an earlier run's log.

    Attributes:
      prepared: the data of that run.
      from_ms: the tail begins here: everything before is settled.
      end_ms: the end of the log that it read.
    """

    prepared: PreparedData
    from_ms: int
    end_ms: int

    @classmethod
    def of(cls, directory: Path, data: DataConfig) -> Settled:
        """Open the data of an earlier run.

        Args:
          directory: its data.
          data: the settings of today.

        Raises:
          DataError: it cannot be continued; says why, and what to do.
        """
        prepared = PreparedData.load(directory)
        state = prepared.manifest.get(STATE)
        where = f"--from: {directory}"
        if state is None:
            raise DataError(
                f"{where}: keeps no state to go on from; {_why_none(data) or 'run it again, in a new directory'}"
            )
        if reason := _why_none(data):
            raise DataError(f"{where}: {reason}; leave --from out")
        settings, posterior = prepared.manifest["posterior"], data.posterior
        if (settings["bucket_ms"], settings["delay_ms"]) != (posterior.bucket, posterior.delay):
            raise DataError(f"{where}: data.posterior has other buckets or another delay; set them back")
        if settings.get("half_lives_ms", []) != list(data.half_lives_ms) or prepared.audience != data.audience:
            raise DataError(f"{where}: data.posterior has other half_lives or another audience; set them back")
        lengths = {name: history.length or data.history for name, history in data.histories.items()}
        if prepared.history_lengths != lengths:
            raise DataError(f"{where}: data.histories has other names or lengths; set them back")
        return cls(prepared, int(state["from_ms"]), int(prepared.manifest["last_time_ms"]))

    @property
    def state(self) -> dict[str, Any]:
        """Return the counts of the settled part, and which files were read."""
        found: dict[str, Any] = self.prepared.manifest[STATE]
        return found

    def new_pieces(self, pieces: Iterable[Piece]) -> list[Piece]:
        """Leave out the files of the log that were read before.

        Raises:
          DataError: a file that was read before has changed, or none is new.
        """
        read: dict[str, list[int]] = self.state["files"]
        pieces, new = list(pieces), []
        for piece in pieces:
            if piece.path not in read:
                new.append(piece)
            elif not is_uri(piece.path) and file_stat(piece.path) != read[piece.path]:
                raise DataError(
                    f"{piece.path}: has changed since {self.prepared.directory} read it, and a run that goes on reads "
                    "new files alone; write what is new into files of its own, or run without --from"
                )
        if not new:
            raise DataError(
                f"none of the {len({piece.path for piece in pieces}):,} files of the log is new since "
                f"{self.prepared.directory}; there is nothing to go on with"
            )
        return new

    def rows_in(self, item_ids: pa.StringArray) -> Int64s:
        """Return the row of each of that run's items in another catalogue, int64 [items]; -1 where it lacks one."""
        return pc.index_in(self.prepared.item_ids, value_set=item_ids).fill_null(-1).to_numpy().astype(np.int64)

    def first_bucket(self, *, asked_ms: int) -> int:
        """Return the first bucket that is not known yet at a moment, or the first that is not compacted already."""
        history = self.prepared.posterior_history
        found = (asked_ms - history.delay_ms) // history.bucket_ms
        return found if history.base is None else max(found, history.base.bucket + 1)

    def counts(self, before: int, *, half_lives_ms: Sequence[int]) -> tuple[BucketCounts, Base]:
        """Return the counts before the tail, compacted before a bucket; items are rows of that run's catalogue."""
        history = self.prepared.posterior_history
        until = self.from_ms // history.bucket_ms
        return history.compacted(before=before, until=until, half_lives_ms=half_lives_ms)

    def users(self, item_ids: pa.StringArray) -> Iterator[pa.Table]:
        """Read the users in parts, `USER_SCHEMA`, with rows of another catalogue; items that it lacks are left out."""
        rows = np.append(self.rows_in(item_ids), -1)
        with pq.ParquetFile(self.prepared.file(USERS)) as file:
            for batch in file.iter_batches(_USERS_AT_ONCE):
                yield _with_rows(pa.Table.from_batches([batch]), rows)

    def last_exposures(self) -> Int64s:
        """Read when each of that run's items was exposed last, int64 [items]; 0 where it never was."""
        return pq.read_table(self.prepared.file(ITEMS_SEEN))["last_ms"].to_numpy()

    @property
    def tail(self) -> Path:
        """Return the file with the events of the tail."""
        return self.prepared.file(TAIL)

    @property
    def shown(self) -> Path | None:
        """Return the file with what was shown in sessions that go on; None without `data.refused`."""
        return self.prepared.file(SHOWN) if SHOWN in self.prepared.manifest["files"] else None

    @property
    def histories(self) -> dict[str, Path]:
        """Return the files with the entries of the further histories, by name."""
        return {name: self.prepared.file(state_of_history(name)) for name in self.prepared.history_lengths}


def after_settled(events: UserEvents, users: pa.Table) -> UserEvents:
    """Put the settled clicks of users in front of their events, as clicks of the split `SETTLED`.

    Args:
      events: events of some users.
      users: `USER_SCHEMA`, the settled clicks of users of the same partition, whether they have events or not.

    Returns:
      The events of all of them. A user who has clicked more than the last ones that are kept has each item once more in
      front, so that what was seen stays seen.
    """
    ids = pa.concat_arrays([events.users, users["user_id"].combine_chunks()]).unique()
    ids = ids.take(pc.array_sort_indices(ids))
    own = pc.index_in(events.users, value_set=ids).to_numpy()[events.user]
    settled = pc.index_in(users["user_id"].combine_chunks(), value_set=ids).to_numpy()
    recent, times, seen = (flat(users[name]) for name in ("recent", "recent_time_ms", "seen"))
    lengths = np.diff(recent.offsets.to_numpy())
    first_ms = np.append(times.values.to_numpy(), 0)[recent.offsets.to_numpy()[:-1]]
    is_cut = users["clicks"].to_numpy() > lengths
    seen_lengths = np.where(is_cut, np.diff(seen.offsets.to_numpy()), 0)
    of_seen = np.repeat(is_cut, np.diff(seen.offsets.to_numpy()))
    user = np.concatenate([np.repeat(settled, seen_lengths), np.repeat(settled, lengths), own])
    rows = np.concatenate([seen.values.to_numpy()[of_seen], recent.values.to_numpy(), events.rows])
    time_ms = np.concatenate([np.repeat(first_ms - 1, seen_lengths), times.values.to_numpy(), events.time_ms])
    return _in_front(events, ids, user, rows, time_ms, click=True)


def after_shown(events: UserEvents, shown: pa.Table, *, item_ids: pa.StringArray) -> UserEvents:
    """Put what was shown before the tail, in sessions that go on, in front of the events of users.

    Args:
      events: events of some users.
      shown: `SHOWN_SCHEMA`, of users of the same partition, by user and in order of time.
      item_ids: string [items], the catalogue; items that it lacks are left out.
    """
    rows = pc.index_in(shown["item"], value_set=item_ids).fill_null(-1).to_numpy().astype(np.int64)
    known = np.flatnonzero(rows >= 0)
    users = shown["user"].combine_chunks().take(pa.array(known))
    ids = pa.concat_arrays([events.users, users]).unique()
    ids = ids.take(pc.array_sort_indices(ids))
    own = pc.index_in(events.users, value_set=ids).to_numpy()[events.user]
    user = np.concatenate([pc.index_in(users, value_set=ids).to_numpy(), own])
    time_ms = np.concatenate([shown["time_ms"].to_numpy()[known], events.time_ms])
    return _in_front(events, ids, user, np.concatenate([rows[known], events.rows]), time_ms, click=False)


def _in_front(
    events: UserEvents, users: pa.StringArray, user: AnyInts, rows: Int64s, time_ms: Int64s, *, click: bool
) -> UserEvents:
    """Join settled events and later ones, by user; the columns hold the settled ones first, in order of time."""
    count = len(user) - len(events.user)
    order = np.argsort(user, kind="stable")

    def joined(settled: Any, values: Any) -> Any:
        return np.concatenate([np.full(count, settled, values.dtype), values])[order]

    return replace(
        events,
        users=users,
        user=user[order].astype(np.int32),
        rows=rows[order],
        time_ms=time_ms[order],
        click=joined(click, events.click),
        trigger=joined(-1, events.trigger),
        split=joined(SETTLED, events.split),
        weight=None if events.weight is None else joined(1, events.weight),
    )


def shown_in_open_sessions(events: UserEvents, *, before_ms: int, gap_ms: int, item_ids: pa.StringArray) -> pa.Table:
    """List what was shown and not clicked in the sessions that may go on at a moment.

    Only that these sessions go on is asked for later, so that all entries of a user have the time of the last event.

    Args:
      events: all events of some users, settled ones among them.
      before_ms: the moment.
      gap_ms: a longer time between two events ends a session.
      item_ids: string [items], the catalogue.

    Returns:
      `SHOWN_SCHEMA`, by user and in order of time.
    """
    early = np.flatnonzero(events.time_ms < before_ms)
    user, time_ms = events.user[early], events.time_ms[early]
    ends = np.flatnonzero(np.append(user[1:] != user[:-1], True)[: len(user)])
    last_ms = np.zeros(len(events.users), np.int64)
    last_ms[user[ends]] = time_ms[ends]
    session = sessions(user, time_ms, gap_ms)
    last = np.full(len(events.users), -1)
    last[user[ends]] = session[ends]
    chosen = (session == last[user]) & ~events.click[early] & (before_ms - last_ms[user] <= gap_ms)
    places = early[chosen]
    columns = [events.users.take(pa.array(events.user[places])), item_ids.take(pa.array(events.rows[places]))]
    return pa.table([*columns, last_ms[events.user[places]]], schema=SHOWN_SCHEMA)


def kept_entries(entries: pa.Table, *, tail_ms: int, length: int) -> pa.Table:
    """Keep of a further history all entries of the tail, and the last ones of each user before it.

    Args:
      entries: the result of `sort_entries`.
      tail_ms: the tail begins here.
      length: number of entries that an example carries.
    """
    user = entries["user"].combine_chunks().dictionary_encode().indices.to_numpy()
    time_ms = entries["time_ms"].to_numpy()
    old = np.flatnonzero(time_ms < tail_ms)
    to_come = np.searchsorted(user[old], user[old], side="right") - np.arange(len(old))
    kept = time_ms >= tail_ms
    kept[old[to_come <= length]] = True
    return entries.filter(pa.array(kept))


def state_of_history(name: str) -> str:
    """Name the file with the entries of a further history, relative to the directory."""
    return f"{STATE}/histories/{name}.parquet"


def settled_clicks(users: pa.StringArray, settled: pa.Table | None) -> Int64s:
    """Look up how many clicks of users are settled, int64 [users].

    Args:
      users: string [users].
      settled: `USER_SCHEMA`; None where nothing is settled.
    """
    if settled is None:
        return np.zeros(len(users), np.int64)
    places = pc.index_in(users, value_set=settled["user_id"].combine_chunks()).fill_null(-1).to_numpy()
    return np.append(settled["clicks"].to_numpy(), 0)[places]


def write_state(
    directory: Path,
    *,
    users: Iterable[pa.Table],
    items: pa.Table,
    tail: Iterable[pa.Table],
    schema: pa.Schema,
    shown: Iterable[pa.Table] | None = None,
    histories: Mapping[str, Iterable[pa.Table]] | None = None,
) -> None:
    """Write all files.

    Args:
      directory: DIR/data.
      users: `USER_SCHEMA` in parts.
      items: `ITEM_SCHEMA`.
      tail: events in parts.
      schema: schema of the events; ids are written as text.
      shown: `SHOWN_SCHEMA` in parts, with `data.refused`.
      histories: `ENTRY_SCHEMA` in parts, by name of a further history.
    """
    (directory / STATE).mkdir()
    write_parts(directory / USERS, users, USER_SCHEMA)
    pq.write_table(items, directory / ITEMS_SEEN)
    plain = pa.schema([(field.name, _plain(field.type)) for field in schema])
    write_parts(directory / TAIL, (part.cast(plain) for part in tail), plain)
    if shown is not None:
        write_parts(directory / SHOWN, shown, SHOWN_SCHEMA)
    for name, entries in (histories or {}).items():
        path = directory / state_of_history(name)
        path.parent.mkdir(exist_ok=True)
        write_parts(path, entries, ENTRY_SCHEMA)


def tail_start(end_ms: int, data: DataConfig, settled: Settled | None = None) -> int:
    """Return the moment that the tail of a log begins with: an edge of a bucket, `data.tail` or more before its end.

    Nothing is kept from before the tail that a run went on from, though `data.tail` may have become longer.
    """
    found = (end_ms - data.tail) // data.posterior.bucket * data.posterior.bucket
    return found if settled is None else max(found, settled.from_ms)


def keeps_state(data: DataConfig) -> bool:
    """Tell whether a log can be gone on from, so that its state is kept."""
    return _why_none(data) is None


def file_stat(path: str) -> list[int]:
    """Return size and time of the last change of a file, by which one that was read is known again."""
    found = Path(path).stat()
    return [found.st_size, found.st_mtime_ns]


def _why_none(data: DataConfig) -> str | None:
    """Say why a run cannot be gone on from; None where it can."""
    if data.events.time_unit == "order":
        return "a log without a clock (data.events.time_unit: order) has no new part"
    if data.split.by != "time":
        return f"data.split.by: {data.split.by} holds out the last clicks of all users, and with new ones they change"
    if data.layout == "user":
        return "data.layout: user trains on whole users, of which a new part knows too little; take layout: click"
    if own := [name for name, history in data.histories.items() if history.domain == "own"]:
        return f"data.histories.{own[0]} has items of its own, whose ids are collected from the whole log"
    if data.posterior.content_prior.enabled:
        return "data.posterior.content_prior is fitted to the whole log"
    return None


def _with_rows(table: pa.Table, rows: Int64s) -> pa.Table:
    """Map the items of users, `USER_SCHEMA`, to the rows of another catalogue, int64 [items]; -1 where it lacks one."""
    recent, times = (flat(table[name]) for name in ("recent", "recent_time_ms"))
    recent, times = _remapped(recent, rows, beside=times)
    seen, _ = _remapped(flat(table["seen"]), rows)
    columns = {"user_id": table["user_id"], "recent": recent, "seen": seen, "recent_time_ms": times}
    return pa.table({**columns, "clicks": table["clicks"]}).cast(USER_SCHEMA)


def _remapped(lists: pa.Array, rows: Int64s, *, beside: pa.Array | None = None) -> tuple[pa.Array, pa.Array | None]:
    """Map the values of lists, and drop those that map to -1, and what stands beside them."""
    values, offsets = rows[lists.values.to_numpy()], lists.offsets.to_numpy()
    kept = values >= 0
    before = np.append(0, np.cumsum(kept))
    new = pa.array(before[offsets].astype(np.int32))
    others = None
    if beside is not None:
        others = pa.ListArray.from_arrays(new, pa.array(beside.values.to_numpy()[kept]))
    return pa.ListArray.from_arrays(new, pa.array(values[kept])), others


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
