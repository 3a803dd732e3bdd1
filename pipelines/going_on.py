"""Lets a job go on from what an earlier run has settled, and keeps what the next one needs: `recall.data.settled`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.exchange import Scratch, from_bytes, partitioned
from pipelines.posterior_blocks import write_base
from pipelines.summaries import OrderedLog
from pipelines.transforms import ENTRIES, SETTLED_USERS, SHOWN, TAIL, Source
from recall.config.data import DataConfig
from recall.core.arrays import Int64s
from recall.core.tables import is_uri
from recall.core.times import MS_PER_HOUR
from recall.data.compaction import joined_half_lives
from recall.data.event_counts import BucketCounts
from recall.data.events import Piece, event_schema
from recall.data.settled import SINCE, STATE, USER_SCHEMA, Settled, file_stat, kept_entries, write_state
from recall.data.splits import TRAIN
from recall.evaluation.trending import HALF_LIVES_HOURS

_MARGIN_MS = 24 * MS_PER_HOUR


def new_sources(sources: Sequence[Source], settled: Settled | None) -> list[Source]:
    """Leave out the files that the earlier run read; see `Settled.new_pieces`."""
    if settled is None:
        return list(sources)
    new = set(settled.new_pieces([piece for _, piece in sources]))
    return [source for source in sources if source[1] in new]


def kept_sources(settled: Settled | None, scratch: Scratch, item_ids: pa.StringArray) -> list[Source]:
    """List what the first pipeline reads beside new files: the tail, and what users had clicked before it.

    Args:
      settled: of the earlier run; None: nothing.
      scratch: gets the users, by rows of today's catalogue.
      item_ids: string [items], today's catalogue.
    """
    if settled is None:
        return []
    kept = list[Source]()
    for part, users in enumerate(settled.users(item_ids)):
        scratch.write("kept_users", part, users)
        kept.append((SETTLED_USERS, Piece("", (part,))))
    files = {TAIL: settled.tail, **{ENTRIES + name: path for name, path in settled.histories.items()}}
    files |= {SHOWN: settled.shown} if settled.shown else {}
    for kind, path in files.items():  # a row group at a time: one worker need not hold all of a long tail
        groups = pq.read_metadata(path).num_row_groups
        kept += [(kind, Piece(str(path), (group,))) for group in range(groups)]
    return kept


def add_settled_counts(
    settled: Settled,
    scratch: Scratch,
    data: DataConfig,
    *,
    item_ids: pa.StringArray,
    partitions: int,
    refresh_ms: int | None = None,
) -> None:
    """Add the settled counts of items to the counts of the tail and the new events, and to the totals of training.

    What no later moment tells apart is compacted: of each item the buckets that had closed when the first moment comes
    that anybody asks for, and of its audience all but the last clicks before. So tables do not grow with the log.

    Args:
      settled: of the earlier run.
      scratch: holds `buckets` by item partition, which are replaced.
      data: settings of buckets and audience.
      item_ids: string [items], today's catalogue.
      partitions: number of parts of the items.
      refresh_ms: rolling evaluation asks for moments up to so long before its first click.
    """
    before = settled.first_bucket(asked_ms=settled.from_ms - max(_MARGIN_MS, refresh_ms or 0))
    of_trend = (round(hours * MS_PER_HOUR) for hours in HALF_LIVES_HOURS)
    half_lives_ms = joined_half_lives(data.half_lives_ms, tuple(of_trend))
    counts, base = settled.counts(before, half_lives_ms=half_lives_ms)
    rows = settled.rows_in(item_ids)
    if len(base.item):
        write_base(scratch, base.remapped(rows))
    counts = counts._replace(item=rows[counts.item])
    counts = counts.take(np.flatnonzero(counts.item >= 0))
    for partition, part in partitioned(counts.table(item_ids), "item", partitions=partitions):
        tables = [from_bytes([part])]
        if scratch.exists("buckets", partition):
            tables.append(scratch.read("buckets", partition))
        table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        items = table["item"].combine_chunks()
        merged = BucketCounts.from_tables([table], item=items.indices.to_numpy()).aggregated()
        scratch.write("buckets", partition, merged.table(items.dictionary))
    totals = counts._replace(bucket=np.full(len(counts.item), TRAIN, np.int64)).aggregated()
    scratch.write("settled_totals", 0, totals.table())
    if data.audience:
        scratch.write("settled_audience", 0, _settled_audience(settled, rows, before=before, last=data.audience))


def _settled_audience(settled: Settled, rows: Int64s, *, before: int, last: int) -> pa.Table:
    """Return the settled clicks of audiences as `write_sources` writes clicks; before a bucket the last of each item.

    Of their times only the buckets are known; within one they keep their order.
    """
    history = settled.prepared.audience_history
    old = np.flatnonzero(history.bucket < before)
    to_come = np.searchsorted(history.item[old], history.item[old], side="right") - np.arange(len(old))
    asked = (history.bucket >= before) & (history.bucket < settled.from_ms // history.bucket_ms)
    asked[old[to_come <= last]] = True
    early = np.flatnonzero(asked)
    item, bucket, source = history.item[early], history.bucket[early], rows[history.source[early]]
    begins = np.flatnonzero(np.append(True, (item[1:] != item[:-1]) | (bucket[1:] != bucket[:-1]))[: len(item)])
    place = np.arange(len(item)) - np.repeat(begins, np.diff(np.append(begins, len(item))))
    time_ms, row = bucket * history.bucket_ms + place, rows[item]
    known = np.flatnonzero((row >= 0) & (source >= 0))
    order = known[np.argsort(row[known], kind="stable")]
    return pa.table({"item": row[order], "time_ms": time_ms[order], "source": source[order]})


def about_state(
    scratch: Scratch,
    data: DataConfig,
    log: OrderedLog,
    *,
    tail_ms: int,
    files: Mapping[str, list[int]],
    settled: Settled | None,
) -> dict[str, Any]:
    """Describe the state for the manifest: the entries `state` and, of a run that goes on, `since`.

    Args:
      scratch: holds `buckets` by item partition.
      data: settings of the log.
      log: its summary.
      tail_ms: the tail begins here.
      files: what was read of the log until now, see `files_of`.
      settled: of the earlier run.
    """
    events = clicks = 0
    for table in scratch.each("buckets"):
        early = table["bucket"].to_numpy() < tail_ms // data.posterior.bucket
        events += int(table["exposures"].to_numpy()[early].sum())
        clicks += int(table["clicks"].to_numpy()[early].sum())
    first_ms = log.summary.first_time_ms
    about = {"from_ms": tail_ms, "events": events, "clicks": clicks, "first_ms": first_ms, "files": dict(files)}
    if settled is None:
        return {STATE: about}
    made_of = settled.prepared.manifest.get("fingerprint")
    since = {"fingerprint": made_of, "end_ms": settled.end_ms, "from_ms": settled.from_ms}
    return {STATE: about, SINCE: since}


def keep_state(scratch: Scratch, folder: Path, data: DataConfig, *, tail_ms: int, item_ids: pa.StringArray) -> None:
    """Write the files that the next run needs of this one; see `recall.data.settled`.

    Args:
      scratch: holds `last_exposures`, and `events`, `state`, `shown` and entries by user partition.
      folder: DIR/data.
      data: settings of the log.
      tail_ms: the tail begins here.
      item_ids: string [items], the catalogue; entries of other items are dropped, as no example has them.
    """

    def entries(name: str, length: int) -> Iterator[pa.Table]:
        for table in scratch.each(f"entries.{name}"):
            known = table.filter(pc.is_in(table["item"], value_set=item_ids))
            yield kept_entries(known, tail_ms=tail_ms, length=length)

    lengths = {name: history.length or data.history for name, history in data.histories.items()}
    write_state(
        folder,
        users=(table.cast(USER_SCHEMA) for table in scratch.each("state")),
        items=scratch.read("last_exposures"),
        tail=(table.filter(pc.greater_equal(table["time_ms"], tail_ms)) for table in scratch.each("events")),
        schema=event_schema(data.events),
        shown=scratch.each("shown") if data.refused.count else None,
        histories={name: entries(name, length) for name, length in lengths.items()},
    )


def files_of(sources: Sequence[Source], settled: Settled | None) -> dict[str, list[int]]:
    """Return the files of the log that were read until now, with what tells that one has changed."""
    found: dict[str, list[int]] = dict(settled.state["files"]) if settled else {}
    return found | {piece.path: [] if is_uri(piece.path) else file_stat(piece.path) for _, piece in sources}
