"""Summarises the workers' tables in the driver: checks, split, totals, encoded tables."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.exchange import Scratch
from pipelines.retiring import Gone, reused_codes
from recall.config.data import DataConfig, SplitConfig
from recall.config.experiment import Config
from recall.core.arrays import Int64s
from recall.core.errors import DataError
from recall.data.catalogue import ItemTable, UserTable
from recall.data.clock import end_of_log, events_per_bucket
from recall.data.event_counts import BucketCounts
from recall.data.features.table_encoder import TableEncoder, Tower
from recall.data.item_attributes import attribute_columns
from recall.data.item_totals import ItemTotals
from recall.data.posterior import Prior
from recall.data.prepared_files import EncodedRows
from recall.data.settled import Settled
from recall.data.splits import SPLITS, TimeBoundaries, TimeHistogram

UNKNOWN_ITEM = "item is not in the items file"
_REASONS_SHOWN = 3
_READ_SCHEMA = pa.schema([("history", pa.string()), ("accepted", pa.int64())])


class HeldOut(NamedTuple):
    """Hold the results of the split.

    Attributes:
      boundaries: boundaries of a split by time, else None.
      prior: prior of the smoothed CTR, from the training events.
      moments_ms: starts of validation, test and serving; None for a log without a clock.
    """

    boundaries: TimeBoundaries | None
    prior: Prior
    moments_ms: dict[str, int] | None


@dataclass(frozen=True)
class LogSummary:
    """Hold totals of the log.

    Attributes:
      totals: sums over the partitions, as `SortUsers` names them; splits are by last click.
      first_time_ms: time of the first event.
      last_time_ms: time of the last event.
      last_training_ms: time of the last training event, if the split is by last click.
      histogram: histogram of the times, if the split is by time.
      end_ms: the end of the log, which the ages of items count to: see `end_of_log`.
      events_after_end: number of events after it.
    """

    totals: dict[str, int]
    first_time_ms: int
    last_time_ms: int
    last_training_ms: int
    histogram: TimeHistogram | None
    end_ms: int
    events_after_end: int = 0

    @classmethod
    def read(cls, scratch: Scratch, split: SplitConfig) -> LogSummary:
        """Add up the summaries of the workers."""
        parts = scratch.read_all("summary")
        columns: dict[str, list[int]] = pa.concat_tables(parts).to_pydict() if parts else {}
        histogram = None
        if split.by == "time":
            histogram = TimeHistogram.merge(TimeHistogram.from_table(table) for table in scratch.each("histogram"))
        last_time_ms, last_training_ms = (
            max(columns.pop(name, [0]), default=0) for name in ("last_time_ms", "last_training_ms")
        )
        first_time_ms = min(columns.pop("first_time_ms", [0]), default=0)
        totals = {name: sum(values) for name, values in columns.items()}
        return cls(totals, first_time_ms, last_time_ms, last_training_ms, histogram, end_ms=last_time_ms)

    def with_end(self, scratch: Scratch, *, bucket_ms: int) -> LogSummary:
        """Return the summary of a log with a clock, ended where `end_of_log` says; reads the counts per bucket."""
        parts = [events_per_bucket(*(table[name].to_numpy() for name in ("bucket", "exposures")))
                 for table in scratch.each("buckets")]  # fmt: skip
        nothing = np.zeros(0, np.int64)
        buckets, events = (np.concatenate([nothing, *(part[place] for part in parts)]) for place in (0, 1))
        end_ms, after = end_of_log(buckets, events, bucket_ms=bucket_ms, last_ms=self.last_time_ms)
        return dataclasses.replace(self, end_ms=end_ms, events_after_end=after)

    def counts(self, rejected: pa.Table) -> dict[str, Any]:
        """Return the manifest's counts that are known before any example is written."""
        totals = self.totals
        return {
            "rows_read": totals["events"] + totals["duplicates"] + len(rejected),
            "rejected": reasons(rejected),
            **{name: totals[name] for name in ("duplicates", "events", "clicks", "users")},
        }

    def split(self, data: DataConfig, settled: Settled | None = None) -> HeldOut:
        """Find boundaries and prior.

        Args:
          data: settings of the split and the prior.
          settled: the part of the log that an earlier run has settled.

        Raises:
          DataError: a split has no clicks.
        """
        strength = data.posterior.prior_strength
        if self.histogram:
            shares = {"validation": data.split.validation, "test": data.split.test}
            if settled is None:
                boundaries = self.histogram.boundaries(**shares, end_ms=self.end_ms)
            else:
                boundaries = self.histogram.boundaries_after(settled.end_ms, **shares)
            events, clicks = self.histogram.training_counts(boundaries)
            if settled is not None:
                events, clicks = events + settled.state["events"], clicks + settled.state["clicks"]
            prior = Prior.of_training(events=events, clicks=clicks, strength=strength)
            starts = {"validation": boundaries.validation_start_ms, "test": boundaries.test_start_ms}
            return HeldOut(boundaries, prior, {**starts, "serving": self.end_ms})
        if not self.totals["test_clicks"]:
            raise DataError(
                f"split by last_click: no user has three clicks or more ({self.totals['users']:,} users in the log), "
                "so nothing can be held out; use more of the log, or split: {by: time}"
            )
        prior = Prior.of_training(
            events=self.totals["train_events"], clicks=self.totals["train_clicks"], strength=strength
        )
        if data.events.time_unit == "order":
            return HeldOut(None, prior, None)
        before = self.last_training_ms
        return HeldOut(None, prior, {"validation": before, "test": before, "serving": self.end_ms})


@dataclass(frozen=True)
class OrderedLog:
    """Hold the ordered log: what later steps read of it.

    Attributes:
      items: the catalogue, with the items of the log that it lacked where `data.items.unknown` is add.
      summary: totals of the log.
      held_out: boundaries of the split and the prior CTR.
      rejected: rows that could not be used, with their reasons.
    """

    items: ItemTable
    summary: LogSummary
    held_out: HeldOut
    rejected: pa.Table


def reasons(rejected: pa.Table) -> dict[str, int]:
    """Count rejected rows per reason, most frequent first."""
    counts = rejected.group_by("reason").aggregate([("reason", "count")])
    pairs = zip(counts["reason"].to_pylist(), counts["reason_count"].to_pylist(), strict=True)
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def require_usable(summary: LogSummary, rejected: pa.Table, *, data: DataConfig, items: ItemTable) -> None:
    """Raise DataError if the log has no rows, no usable row, no click, or nothing refused where examples carry it."""
    path = data.events.path
    if not summary.totals and not len(rejected):
        raise DataError(f"{path}: the log has no rows; expected at least some exposures and clicks")
    if not summary.totals:
        shown = ", ".join(f"{reason} ({count:,})" for reason, count in list(reasons(rejected).items())[:_REASONS_SHOWN])
        unknown = rejected.filter(pc.equal(rejected["reason"], UNKNOWN_ITEM))["item"]
        sides = f" (the log has item {unknown[0].as_py()!r}, the file {items.ids[0].as_py()!r})" if len(unknown) else ""
        raise DataError(
            f"{path}: none of the {len(rejected):,} rows can be used: {shown}{sides}; "
            "check the columns and the time_unit that data.events names"
        )
    if not summary.totals["clicks"]:
        raise DataError(
            f"{path}: none of the {summary.totals['events']:,} events is a click; check data.events.click "
            "(a row is a click when its column is at least at_least)"
        )
    if data.refused.count and summary.totals["clicks"] == summary.totals["events"]:
        raise DataError(
            f"{path}: all {summary.totals['events']:,} events are clicks, so that nothing was shown and not clicked, "
            f"which data.refused: {data.refused.count} asks for; use a log with all exposures, or data.refused: 0"
        )


def notes_of_log(scratch: Scratch) -> list[str]:
    """List what the workers assumed of the files that they read, each topic once."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for table in scratch.read_all("read"):
        for topic, text in json.loads(table["assumed"][0].as_py()):
            first.setdefault(topic, text)
            counts[topic] += 1
    return [
        text + (f"; and so in {counts[topic] - 1:,} more files" if counts[topic] > 1 else "")
        for topic, text in first.items()
    ]


def require_all_read(scratch: Scratch, summary: LogSummary, *, pieces: int, clock: bool) -> None:
    """Raise DataError if events got lost between the stages of the first pipeline, as with some runners.

    Args:
      scratch: tables of the workers.
      summary: totals, read from `scratch`.
      pieces: number of pieces to read.
      clock: whether the log has a clock; without, only training events are counted per item.
    """
    read = pa.concat_tables([_READ_SCHEMA.empty_table(), *scratch.read_all("read")], promote_options="default")
    if len(read) != pieces:
        raise _lost(f"{len(read):,} of {pieces:,} pieces of the log were read", scratch)
    accepted = sum(read.filter(pc.field("history") == "")["accepted"].to_pylist())
    ordered = summary.totals.get("events", 0) + summary.totals.get("duplicates", 0)
    if ordered != accepted:
        raise _lost(f"{ordered:,} of {accepted:,} events were ordered", scratch)
    counted = sum(pc.sum(table["exposures"]).as_py() or 0 for table in scratch.each("buckets"))
    expected = summary.totals.get("events" if clock else "train_events", 0)
    if counted != expected:
        raise _lost(f"{counted:,} of {expected:,} events were counted", scratch)


def require_all_written(scratch: Scratch, summary: LogSummary) -> None:
    """Raise DataError if not every click became an example."""
    written = scratch.read_all("written")
    examples = sum(sum(table[f"{name}_examples"].to_pylist()) for table in written for name in SPLITS)
    if examples != summary.totals["clicks"]:
        raise _lost(f"{examples:,} of {summary.totals['clicks']:,} clicks became examples", scratch)


def _lost(what: str, scratch: Scratch) -> DataError:
    return DataError(
        f"the workers lost data: {what}; do all of them reach {scratch.folder}? If so, use another --runner: this one "
        "drops elements"
    )


def item_totals(scratch: Scratch, *, items: int) -> ItemTotals:
    """Count the events of the whole log per item and split; what is settled is training."""
    tables = itertools.chain(scratch.each("totals"), scratch.each("settled_totals"))
    return ItemTotals.of_parts((BucketCounts.from_tables([table]) for table in tables), items=items)


class EncodedTables(NamedTuple):
    """Hold the encoded catalogue and users.

    Attributes:
      items: the catalogue.
      users: the users.
      user_id_column: raw column of user ids.
      clipped: by table and feature, the number of values that lie far from all others and count as the nearest end of
        their range.
      judged: what a judged model knows where what is served knows more; see `PreparedData.judged`.
    """

    items: EncodedRows
    users: EncodedRows
    user_id_column: str
    clipped: dict[str, dict[str, int]]
    judged: dict[str, Any]


def encode_tables(
    config: Config,
    items: ItemTable,
    users: UserTable | None,
    *,
    item_clicks: Int64s,
    all_item_clicks: Int64s,
    user_clicks: pa.Table,
    settled: Settled | None = None,
    gone: Gone | None = None,
) -> EncodedTables:
    """Fit both encoders and encode the catalogue and the users.

    Args:
      config: experiment, with features and seed.
      items: the catalogue.
      users: the profiles, if there is a file.
      item_clicks: int64 [items], training clicks.
      all_item_clicks: int64 [items], clicks of the whole log.
      user_clicks: columns user, clicks and all_clicks: training clicks and all clicks of every user of the log.
      settled: what an earlier run has settled; its encoders go on.
      gone: what nobody saw for long: its ids give their rows back, where there is an earlier run that gave them.
    """
    features = config.features
    if settled is not None:
        item_encoder = settled.prepared.item_encoder
        if gone is not None:
            item_encoder = item_encoder.retired(items.table, is_gone=gone.items)
            all_item_clicks = np.where(gone.items, 0, all_item_clicks)
    else:
        of_towers: dict[Tower, Any] = {"behaviour": features.behaviour, "meta": features.meta}
        item_encoder = TableEncoder.fit(of_towers, items.table, clicks=item_clicks, seed=config.seed)
    title = config.data.items.title
    judged: dict[str, Any] = {}
    if config.learns_from_all:
        judged["items"], before = _sizes(item_encoder), item_encoder
        item_encoder = item_encoder.extended(items.table, clicks=all_item_clicks)
        judged["reused"] = {"items": reused_codes(before, item_encoder)}
    titles = items.table[title].combine_chunks() if title else None
    attributes = attribute_columns(items.table, features.item, further=config.data.items.attributes)
    encoded_items = EncodedRows(items.ids, item_encoder.encode(items.table), item_encoder, titles, attributes)

    ids, table, id_column, known = _all_users(config, users, user_clicks)
    position = pc.index_in(ids, value_set=user_clicks["user"].combine_chunks()).fill_null(-1).to_numpy()
    clicks, all_clicks = (np.append(user_clicks[name].to_numpy(), 0)[position] for name in ("clicks", "all_clicks"))
    if settled is not None:
        user_encoder = settled.prepared.user_encoder
        if gone is not None:
            is_gone = gone.users_among(ids)
            user_encoder = user_encoder.retired(table, is_gone=is_gone)
            all_clicks = np.where(is_gone, 0, all_clicks)
    else:
        user_encoder = TableEncoder.fit({"user": features.user}, table[:known], clicks=clicks[:known], seed=config.seed)
    if config.learns_from_all:
        judged |= {"users": _sizes(user_encoder), "user_rows": known}
        before = user_encoder
        user_encoder = user_encoder.extended(table, clicks=all_clicks)
        judged["reused"]["users"] = reused_codes(before, user_encoder)
    return EncodedTables(
        encoded_items,
        EncodedRows(ids, user_encoder.encode(table), user_encoder),
        id_column,
        {"items": _clipped(item_encoder, items.table), "users": _clipped(user_encoder, table)},
        judged,
    )


def _sizes(encoder: TableEncoder) -> dict[str, int]:
    """Return the number of codes of each feature that has a vocabulary."""
    return {name: vocabulary.size for name, vocabulary in encoder.vocabularies.items()}


def _clipped(encoder: TableEncoder, table: pa.Table) -> dict[str, int]:
    """Count clipped numbers by feature. None of the vectors that an encoder was fitted on is, so they are not read."""
    vectors = {fitted.feature.source for _, fitted in encoder.features if fitted.feature.type == "embedding"}
    return encoder.clipped(table.drop_columns([name for name in table.column_names if name in vectors]))


def _all_users(
    config: Config, users: UserTable | None, user_clicks: pa.Table
) -> tuple[pa.StringArray, pa.Table, str, int]:
    """Join the users file and the users with clicks that it lacks: ids, raw table, its id column.

    Users with training clicks stand after the file. Where what is served learns from the whole log, users with held-out
    clicks alone come last; the fourth result is the number of users before them.
    """
    named, clicks = user_clicks["user"].combine_chunks(), user_clicks["clicks"].to_numpy()
    later = (clicks == 0) & (user_clicks["all_clicks"].to_numpy() > 0) & config.learns_from_all
    trained, held_out = (_sorted(named.filter(pa.array(chosen))) for chosen in (clicks > 0, later))
    if users is None:
        ids = pa.concat_arrays([trained, held_out])
        # Without a file all that can be known of a user is his id, whatever the feature calls it.
        names = list(dict.fromkeys(feature.source for feature in config.features.user)) or [config.data.events.user]
        return ids, pa.table(dict.fromkeys(names, ids)), names[0], len(trained)
    assert config.data.users
    id_column = config.data.users.id
    trained, held_out = (new.filter(pc.invert(pc.is_in(new, value_set=users.ids))) for new in (trained, held_out))
    new = pa.concat_arrays([trained, held_out])
    ids = pa.concat_arrays([users.ids, new])
    table = users.table.set_column(users.table.column_names.index(id_column), id_column, users.ids)
    added = {field.name: new if field.name == id_column else pa.nulls(len(new), field.type) for field in table.schema}
    known = len(users.ids) + len(trained)
    return ids, pa.concat_tables([table, pa.table(added, schema=table.schema)]), id_column, known


def _sorted(values: pa.StringArray) -> pa.StringArray:
    return values.take(pc.array_sort_indices(values))
