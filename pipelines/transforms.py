"""The transforms of the training data job. Elements are (partition, Arrow IPC bytes of a whole batch).

Two linear pipelines, each with one terminal collection and without side outputs, so that runners which lose those
work too. What the driver or the second pipeline needs lies in a scratch folder under a name made of the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.exchange import Scratch, from_bytes, partitioned
from recall.config import DataConfig, EventsConfig
from recall.events import Piece, read_events, sort_events
from recall.examples import Clicks, ExampleBuilder, UserEvents, example_schema
from recall.posterior import BucketCounts, PosteriorHistory, Prior, count_buckets, count_totals
from recall.prepared import shard_path
from recall.records import encode_examples, frame_records
from recall.splits import SPLITS, TRAIN, TimeBoundaries, TimeHistogram, split_by_last_click


def collect_events(
    pipeline: beam.Pipeline, pieces: Sequence[Piece], *, data: DataConfig, scratch: Scratch, partitions: int
) -> beam.pvalue.PCollection[int]:
    """Log files -> ordered events per user partition, and counts per item and bucket, in the scratch folder.

    Args:
      pipeline: what to add the steps to.
      pieces: what to read.
      data: columns, split and buckets.
      scratch: holds `catalogue` (item ids) if events of other items are to be rejected.
      partitions: how many parts users, and items, are cut into.

    Returns:
      Keys of the item partitions that were written.
    """
    return (
        pipeline
        | "ListPieces" >> beam.Create(list(enumerate(pieces)))
        | "SpreadPieces" >> beam.Reshuffle()
        | "ReadEvents" >> beam.ParDo(ReadEvents(data.events, scratch, partitions))
        | "GroupByUser" >> beam.GroupByKey()
        | "SortUsers" >> beam.ParDo(SortUsers(data, scratch, partitions))
        | "GroupByItem" >> beam.GroupByKey()
        | "CountBuckets" >> beam.ParDo(CountBuckets(scratch))
    )


def write_examples(pipeline: beam.Pipeline, job: ExampleJob) -> beam.pvalue.PCollection[int]:
    """Ordered events -> TFRecord shards, and totals in the scratch folder; returns the numbers of the shards."""
    return (
        pipeline
        | "ListShards" >> beam.Create(list(range(job.data.shards)))
        | "SpreadShards" >> beam.Reshuffle()
        | "WriteShards" >> beam.ParDo(WriteShards(job))
    )


class ReadEvents(beam.DoFn):
    """(number, piece) -> (user partition, events); rejected rows go to the scratch folder."""

    def __init__(self, events: EventsConfig, scratch: Scratch, partitions: int) -> None:
        self._events, self._scratch, self._partitions = events, scratch, partitions
        self._known_items: pa.StringArray | None = None

    def setup(self) -> None:
        """Loads the catalogue, which would be too large for the graph."""
        if self._scratch.exists("catalogue", 0):
            self._known_items = self._scratch.read("catalogue")["item"].combine_chunks()

    def process(self, element: tuple[int, Piece]) -> Iterator[tuple[int, bytes]]:
        """Reads, validates and partitions one piece."""
        number, piece = element
        events, rejected = read_events(Piece(*piece), self._events, known_items=self._known_items)
        if len(rejected):
            self._scratch.write("rejected", number, rejected)
        yield from partitioned(events, "user", partitions=self._partitions)


class SortUsers(beam.DoFn):
    """(user partition, batches of events) -> (item partition, counts); ordered events go to the scratch folder."""

    def __init__(self, data: DataConfig, scratch: Scratch, partitions: int) -> None:
        self._data, self._scratch, self._partitions = data, scratch, partitions

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, bytes]]:
        """Orders the events, drops duplicates, and counts."""
        partition, batches = element
        events, duplicates = sort_events(from_bytes(batches))
        self._scratch.write("events", partition, events)

        user, item = (events[name].combine_chunks() for name in ("user", "item"))
        time_ms, click = events["time_ms"].to_numpy(), events["click"].to_numpy()
        summary = {"duplicates": duplicates, "events": len(events), "clicks": int(click.sum())}
        summary |= {"users": len(user.dictionary), "last_time_ms": int(time_ms.max())}
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
        yield from partitioned(counts.table(item.dictionary), "item", partitions=self._partitions)


class CountBuckets(beam.DoFn):
    """(item partition, counts of parts of the log) -> key; the counts of the log go to the scratch folder."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[int]:
        """Adds up the counts of each item and bucket."""
        partition, batches = element
        table = from_bytes(batches)
        items = table["item"].combine_chunks().dictionary_encode()
        counts = BucketCounts.from_tables([table], item=items.indices.to_numpy()).aggregated()
        self._scratch.write("buckets", partition, counts.table(items.dictionary))
        yield partition


@dataclass(frozen=True)
class ExampleJob:
    """What a worker needs to write examples.

    Attributes:
      data: history, triggers, layout, number of shards.
      scratch: holds `catalogue` (item ids), `history` (entries of the posterior history) and `events`.
      partitions: how many parts the users were cut into; shard i takes every shards-th, beginning with i.
      directory: where the shards go.
      boundaries: of a split by time; None splits by last click.
      prior: of the smoothed CTR.
    """

    data: DataConfig
    scratch: Scratch
    partitions: int
    directory: str
    boundaries: TimeBoundaries | None
    prior: Prior


class WriteShards(beam.DoFn):
    """Number of a shard -> that number; its TFRecord file of each split is written."""

    def __init__(self, job: ExampleJob) -> None:
        self._job = job

    def setup(self) -> None:
        """Maps the catalogue and the posterior history into memory."""
        data = self._job.data
        history = PosteriorHistory.from_table(
            self._job.scratch.read("history"),
            bucket_ms=data.posterior.bucket,
            delay_ms=data.posterior.delay,
            prior=self._job.prior,
            clock=data.events.time_unit != "order",
        )
        self._item_ids = self._job.scratch.read("catalogue")["item"].combine_chunks()
        self._builder = ExampleBuilder(
            posterior=history,
            history=data.history,
            trigger_window_ms=data.trigger.window,
            explicit_trigger=data.events.trigger is not None,
        )

    def process(self, shard: int) -> Iterator[int]:
        """Goes through the user partitions of a shard one by one."""
        job = self._job
        files = [
            shard_path(Path(job.directory), split, shard=shard, shards=job.data.shards).open("wb")
            for split in range(len(SPLITS))
        ]
        try:
            for partition in range(shard, job.partitions, job.data.shards):
                if job.scratch.exists("events", partition):
                    self._write_partition(partition, files)
        finally:
            for file in files:
                file.close()
        yield shard

    def _write_partition(self, partition: int, files: Sequence[BinaryIO]) -> None:
        job = self._job
        events = UserEvents.from_table(
            job.scratch.read("events", partition), item_ids=self._item_ids, boundaries=job.boundaries
        )
        clicks = self._builder.prepare(events)
        written = {}
        for split, (name, file) in enumerate(zip(SPLITS, files, strict=True)):
            written[f"{name}_records"] = 0
            written[f"{name}_examples"] = int((clicks.split == split).sum())
            for table in _examples(clicks, split, layout=job.data.layout):
                file.write(frame_records(encode_examples(table)))
                written[f"{name}_records"] += len(table)
        job.scratch.write("written", partition, pa.table({name: [value] for name, value in written.items()}))

        ones = np.ones(len(events.rows), np.int64)
        totals = BucketCounts(
            events.rows, events.split.astype(np.int64), ones, events.click.astype(np.int64), events.time_ms
        )
        job.scratch.write("totals", partition, totals.aggregated().table())
        trained = np.bincount(clicks.user[clicks.split == TRAIN], minlength=len(events.users))
        job.scratch.write("users", partition, pa.table({"user": events.users, "clicks": trained}))
        job.scratch.write("histories", partition, clicks.serving_histories(job.data.history))


def _examples(clicks: Clicks, split: int, *, layout: str) -> Iterator[pa.Table]:
    tables = clicks.user_examples() if split == TRAIN and layout == "user" else clicks.examples(split)
    schema = example_schema(layout, split, weighted=clicks.weight is not None)
    return (table.cast(schema) for table in tables)
