"""Transforms the log in the training data job: pieces of the log -> ordered events and counts -> shards of examples.

Elements are (partition, batch); a batch is Arrow IPC bytes or their position in a file. There are two linear pipelines,
each with one terminal collection and without side outputs, which some runners lose. Tables for the driver or the second
pipeline lie in a scratch folder under a name made of the key.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.audience_blocks import write_sources
from pipelines.exchange import Handed, Scratch, from_bytes, partitioned
from pipelines.posterior_blocks import read_history
from pipelines.storage import read_log
from recall.config.data import DataConfig
from recall.data.clock import Clock
from recall.data.content_prior.item_priors import ItemPriors
from recall.data.event_counts import BucketCounts, count_buckets, count_totals
from recall.data.events import Piece, event_schema, sort_events
from recall.data.examples import Clicks, ExampleBuilder, UserEvents, example_schema
from recall.data.features.vocabulary import Vocabulary
from recall.data.further_histories import ENTRY_SCHEMA, FurtherHistory, sort_entries
from recall.data.posterior import Prior
from recall.data.prepared_files import REFIT, shard_path
from recall.data.refusals import Refusals
from recall.data.settled import after_settled, after_shown, settled_clicks, shown_in_open_sessions
from recall.data.splits import SPLITS, TEST, TRAIN, TimeBoundaries, TimeHistogram, split_by_last_click
from recall.data.tfrecords import encode_examples, frame_records

THE_LOG = ""
"""Name of the log itself, beside the names of further histories."""
TAIL, SETTLED_USERS, SHOWN, ENTRIES = "<tail>", "<users>", "<shown>", "<entries>"
"""Names of what an earlier run kept: the last events of its log, what its users had clicked and been shown before, and
the entries of a further history, whose name follows."""

Source = tuple[str, Piece]


def collect_events(
    pipeline: beam.Pipeline,
    pieces: Sequence[Source],
    *,
    data: DataConfig,
    scratch: Scratch,
    partitions: int,
    clocks: Mapping[str, Clock | None] | None = None,
) -> beam.pvalue.PCollection[int]:
    """Add the steps of the first pipeline: log files -> ordered events per user, and counts per item and bucket.

    Both are written to the scratch folder.

    Args:
      pipeline: pipeline to add the steps to.
      pieces: pieces of the log and of further histories to read.
      data: settings of columns, split and buckets.
      scratch: holds `catalogue` (item ids) if events of other items are to be rejected.
      partitions: number of parts of the users, and of the items.
      clocks: which times are believed, for the log and each further history; default: every one.

    Returns:
      Keys of the item partitions that were written.
    """
    return (
        pipeline
        | "ListPieces" >> beam.Create(list(enumerate(pieces)))  # which spreads them over the workers
        | "ReadEvents" >> beam.ParDo(ReadEvents(data, scratch, partitions, clocks))
        | "GroupByUser" >> beam.GroupByKey()
        | "SortUsers" >> beam.ParDo(SortUsers(data, scratch, partitions))
        | "GroupByItem" >> beam.GroupByKey()
        | "CountBuckets" >> beam.ParDo(CountBuckets(scratch))
    )


def write_examples(pipeline: beam.Pipeline, job: ExampleJob) -> beam.pvalue.PCollection[int]:
    """Add the steps of the second pipeline: ordered events -> TFRecord shards, and totals in the scratch folder.

    Returns:
      Numbers of the shards.
    """
    return (
        pipeline
        | "ListShards" >> beam.Create(list(range(job.data.shards)))  # which spreads them over the workers
        | "WriteShards" >> beam.ParDo(WriteShards(job))
    )


class ReadEvents(beam.DoFn):
    """Read the log: (number, source) -> (user partition, (history, events or entries)).

    Rejected rows are written to the scratch folder.
    """

    def __init__(
        self, data: DataConfig, scratch: Scratch, partitions: int, clocks: Mapping[str, Clock | None] | None = None
    ) -> None:
        self._clocks = clocks or {}
        self._logs = {THE_LOG: data.events, **data.further_logs}
        self._own = {name for name, history in data.histories.items() if history.domain == "own"}
        self._scratch, self._partitions = scratch, partitions
        self._known_items: pa.StringArray | None = None

    def setup(self) -> None:
        """Load the catalogue, which would be too large for the graph."""
        if self._scratch.exists("catalogue", 0):
            self._known_items = self._scratch.read("catalogue")["item"].combine_chunks()

    def process(self, element: tuple[int, Source]) -> Iterator[tuple[int, tuple[str, Handed]]]:
        """Read, validate and partition one piece."""
        number, (history, piece) = element
        if history.startswith("<"):
            yield from self._kept(number, history, piece)
            return
        known = None if history in self._own else self._known_items
        clock = self._clocks.get(history)
        read = read_log(Piece(*piece), self._logs[history], known_items=known, clock=clock)
        events, rejected = read.accepted, read.rejected
        if len(rejected):
            self._scratch.write(f"rejected{history and '.'}{history}", number, rejected)
        of_piece = {"history": [history], "accepted": [len(events)], "without_zone": [read.without_zone]}
        self._scratch.write("read", number, pa.table({**of_piece, "assumed": [json.dumps(read.assumed)]}))
        if history:
            events = events.filter(events["click"]).select(ENTRY_SCHEMA.names).cast(ENTRY_SCHEMA)
        parts = partitioned(events, "user", partitions=self._partitions)
        for partition, batch in self._scratch.hand_on("piece", number, parts):
            yield partition, (history, batch)

    def _kept(self, number: int, kind: str, piece: Piece) -> Iterator[tuple[int, tuple[str, Handed]]]:
        """Read what an earlier run kept; events of items that left the catalogue are dropped."""
        name = kind
        if kind == SETTLED_USERS:
            table = self._scratch.read("kept_users", piece.row_groups[0])
        else:
            with pq.ParquetFile(piece.path) as file:
                table = file.read_row_groups(list(piece.row_groups))
            if self._known_items is not None:
                table = table.filter(pc.is_in(table["item"], value_set=self._known_items))
        if kind.startswith(ENTRIES):
            name = kind.removeprefix(ENTRIES)
        elif kind == TAIL:
            table, name = table.cast(event_schema(self._logs[THE_LOG])), THE_LOG
            of_piece = {"history": [THE_LOG], "accepted": [len(table)], "without_zone": [0], "assumed": ["[]"]}
            self._scratch.write("read", number, pa.table(of_piece))
        parts = partitioned(table, table.column_names[0], partitions=self._partitions)
        for partition, batch in self._scratch.hand_on("piece", number, parts):
            yield partition, (name, batch)


class SortUsers(beam.DoFn):
    """Order events: (user partition, batches of events) -> (item partition, counts).

    Ordered events are written to the scratch folder.
    """

    def __init__(self, data: DataConfig, scratch: Scratch, partitions: int) -> None:
        self._data, self._scratch, self._partitions = data, scratch, partitions

    def process(self, element: tuple[int, Iterable[tuple[str, Handed]]]) -> Iterator[tuple[int, Handed]]:
        """Order the events, drop duplicates, and count."""
        partition, sources = element
        batches = defaultdict(list)
        for history, batch in sources:
            batches[history].append(self._scratch.taken(batch))
        log = batches.pop(THE_LOG, None)
        for kind, name in ((SETTLED_USERS, "settled"), (SHOWN, "settled_shown")):
            if (kept := batches.pop(kind, None)) is not None:
                self._scratch.write(name, partition, from_bytes(kept))
        for history, entries in batches.items():
            self._scratch.write(f"entries.{history}", partition, sort_entries(from_bytes(entries)))
        if log is None:
            return
        events, duplicates = sort_events(from_bytes(log))
        self._scratch.write("events", partition, events)

        user, item = (events[name].combine_chunks() for name in ("user", "item"))
        time_ms, click = events["time_ms"].to_numpy(), events["click"].to_numpy()
        summary = {"duplicates": duplicates, "events": len(events), "clicks": int(click.sum())}
        summary |= {"users": len(user.dictionary), "last_time_ms": int(time_ms.max())}
        summary |= {"first_time_ms": int(time_ms.min())}
        if self._data.split.by == "time":
            self._scratch.write("histogram", partition, TimeHistogram.of(time_ms, click).table())
        split = split_by_last_click(user.indices.to_numpy(), click)
        for code, name in enumerate(SPLITS):
            summary[f"{name}_events"] = int((split == code).sum())
            summary[f"{name}_clicks"] = int(click[split == code].sum())
        summary["last_training_ms"] = int(time_ms[split == TRAIN].max(initial=np.iinfo(np.int64).min))
        self._scratch.write("summary", partition, pa.table({name: [value] for name, value in summary.items()}))

        codes = item.indices.to_numpy()
        if self._data.events.time_unit == "order":
            counts = count_totals(codes, split, click)
        else:
            counts = count_buckets(codes, time_ms, click, bucket_ms=self._data.posterior.bucket)
        parts = partitioned(counts.table(item.dictionary), "item", partitions=self._partitions)
        yield from self._scratch.hand_on("counts", partition, parts)


class CountBuckets(beam.DoFn):
    """Add up counts: (item partition, counts of parts of the log) -> partition.

    The counts of the whole log are written to the scratch folder.
    """

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch

    def process(self, element: tuple[int, Iterable[Handed]]) -> Iterator[int]:
        """Add up the counts of each item and bucket."""
        partition, batches = element
        table = from_bytes(self._scratch.taken(batch) for batch in batches)
        items = table["item"].combine_chunks().dictionary_encode()
        counts = BucketCounts.from_tables([table], item=items.indices.to_numpy()).aggregated()
        self._scratch.write("buckets", partition, counts.table(items.dictionary))
        yield partition


@dataclass(frozen=True)
class ExampleJob:
    """Hold the settings of a worker that writes examples.

    Attributes:
      data: settings of history, triggers, layout, number of shards.
      scratch: holds `catalogue` (item ids), the posterior history (`write_history`), `item_priors` if items have
        priors of their own, `events`, and of each further history `entries` and, for an own domain, `vocabulary`.
      partitions: number of parts of the users; shard i takes every shards-th part, beginning with i.
      boundaries: boundaries of a split by time; None splits by last click.
      prior: prior of the smoothed CTR of all items.
      refit: whether the held-out clicks become training examples as well, in shards of their own.
      tail_ms: the state of users is kept as of this moment; None where no run can go on from this one.
    """

    data: DataConfig
    scratch: Scratch
    partitions: int
    boundaries: TimeBoundaries | None
    prior: Prior
    refit: bool = False
    tail_ms: int | None = None


class WriteShards(beam.DoFn):
    """Write shards: number of a shard -> the same number; its TFRecord files are in the scratch folder."""

    def __init__(self, job: ExampleJob) -> None:
        self._job = job

    def setup(self) -> None:
        """Map the catalogue into memory, and load priors and vocabularies."""
        data, prior = self._job.data, self._job.prior
        if self._job.scratch.exists("item_priors", 0):
            prior = prior._replace(items=ItemPriors.from_table(self._job.scratch.read("item_priors")))
        self._item_ids = self._job.scratch.read("catalogue")["item"].combine_chunks()
        self._builder = ExampleBuilder(
            posterior=read_history(self._job.scratch, data=data, prior=prior),
            history=data.history,
            trigger_window_ms=data.trigger.window,
            explicit_trigger=data.events.trigger is not None,
            refusals=Refusals(data.refused.count, data.refused.gap) if data.refused.count else None,
        )
        self._no_events = event_schema(data.events).empty_table()
        self._vocabularies = {
            name: Vocabulary.from_table(self._job.scratch.read(f"vocabulary.{name}"))
            for name, history in data.histories.items()
            if history.domain == "own"
        }

    def process(self, shard: int) -> Iterator[int]:
        """Write the user partitions of a shard one by one; its files appear at the end, or not at all."""
        job = self._job
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(job.scratch.storage.writing(name))
                for name in shard_names(shard, shards=job.data.shards, refit=job.refit)
            ]
            for partition in range(shard, job.partitions, job.data.shards):
                further = {name: self._further(name, partition) for name in job.data.histories}
                for name, history in further.items():
                    job.scratch.write(f"histories.{name}", partition, history.recent())
                if any(job.scratch.exists(name, partition) for name in ("events", "settled", "settled_shown")):
                    self._write_partition(partition, files, further)
        yield shard

    def _further(self, name: str, partition: int) -> FurtherHistory:
        settings, scratch = self._job.data.histories[name], self._job.scratch
        stored = f"entries.{name}"
        entries = scratch.read(stored, partition) if scratch.exists(stored, partition) else ENTRY_SCHEMA.empty_table()
        items = entries["item"].combine_chunks()
        codes = (
            self._vocabularies[name].encode(items)
            if settings.domain == "own"
            else pc.index_in(items, value_set=self._item_ids).fill_null(-1).to_numpy()
        )
        return FurtherHistory.of(entries, codes, length=settings.length or self._job.data.history)

    def _write_partition(
        self, partition: int, files: Sequence[BinaryIO], further: Mapping[str, FurtherHistory]
    ) -> None:
        job = self._job
        table = job.scratch.read("events", partition) if job.scratch.exists("events", partition) else self._no_events
        events = UserEvents.from_table(table, item_ids=self._item_ids, boundaries=job.boundaries)
        settled = job.scratch.read("settled", partition) if job.scratch.exists("settled", partition) else None
        if job.scratch.exists("settled_shown", partition):
            events = after_shown(events, job.scratch.read("settled_shown", partition), item_ids=self._item_ids)
        if settled is not None:
            events = after_settled(events, settled)
        clicks = self._builder.prepare(events).joined(further)
        written = {f"{name}_examples": int((clicks.split == split).sum()) for split, name in enumerate(SPLITS)}
        for split, (name, file) in enumerate(zip(SPLITS, files, strict=False)):
            written[f"{name}_records"] = _write(file, _examples(clicks, split, layout=job.data.layout))
        if job.refit:
            tables = _refit_examples(self._builder.learning(clicks, events), layout=job.data.layout)
            written[f"{REFIT}_records"] = _write(files[-1], tables)
        job.scratch.write("written", partition, pa.table({name: [value] for name, value in written.items()}))

        new = np.flatnonzero(events.split >= TRAIN)
        ones = np.ones(len(new), np.int64)
        splits, click = events.split[new].astype(np.int64), events.click[new].astype(np.int64)
        totals = BucketCounts(events.rows[new], splits, ones, click, events.time_ms[new])
        job.scratch.write("totals", partition, totals.aggregated().table())
        before = settled_clicks(events.users, settled)
        trained, every = (
            before + np.bincount(clicks.user[chosen], minlength=len(before))
            for chosen in (clicks.split == TRAIN, clicks.split >= TRAIN)
        )
        users = {"user": events.users, "clicks": trained, "all_clicks": every}
        job.scratch.write("users", partition, pa.table(users))
        job.scratch.write("histories", partition, clicks.serving_histories(job.data.history))
        if job.tail_ms is not None:
            early = (clicks.split >= TRAIN) & (clicks.time_ms < job.tail_ms)
            counts = before + np.bincount(clicks.user[early], minlength=len(before))
            state = clicks.serving_histories(job.data.history, until_ms=job.tail_ms)
            counts = counts[pc.index_in(state["user_id"], value_set=events.users).to_numpy()]
            job.scratch.write("state", partition, state.append_column("clicks", pa.array(counts)))
            if job.data.refused.count:
                shown = shown_in_open_sessions(
                    events, before_ms=job.tail_ms, gap_ms=job.data.refused.gap, item_ids=self._item_ids
                )
                job.scratch.write("shown", partition, shown)
        if job.data.audience:
            write_sources(job.scratch, partition, clicks)


def shard_names(shard: int, *, shards: int, refit: bool) -> list[str]:
    """Name the files of a shard, one per split, and the one of the refit where there is one."""
    names = [*SPLITS, *([REFIT] if refit else [])]
    return [shard_path(Path(), name, shard=shard, shards=shards).name for name in names]


def _write(file: BinaryIO, tables: Iterable[pa.Table]) -> int:
    """Write tables of examples as records, and return their number."""
    records = 0
    for table in tables:
        file.write(frame_records(encode_examples(table)))
        records += len(table)
    return records


def _refit_examples(clicks: Clicks, *, layout: str) -> Iterator[pa.Table]:
    """Yield what a refit learns from beside the training examples: the held-out clicks; by user, all clicks."""
    if layout == "user":
        return _examples(dataclasses.replace(clicks, split=np.zeros_like(clicks.split)), TRAIN, layout=layout)
    held_out = dataclasses.replace(clicks, split=np.where(clicks.split > TRAIN, TRAIN, TEST).astype(np.int8))
    return _examples(held_out, TRAIN, layout=layout)


def _examples(clicks: Clicks, split: int, *, layout: str) -> Iterator[pa.Table]:
    tables = clicks.user_examples() if split == TRAIN and layout == "user" else clicks.examples(split)
    schema = example_schema(
        layout,
        split,
        weighted=clicks.weight is not None,
        histories=clicks.further,
        refused=clicks.refused is not None,
    )
    return (table.cast(schema) for table in tables)
