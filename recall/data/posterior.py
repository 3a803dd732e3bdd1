"""What is known of an item's success at a moment: exposures, clicks, smoothed CTR, age."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recall.core.arrays import AnyInts, Bools, Float32s, Float64s, Int32s, Int64s
from recall.core.ordering import order_of
from recall.data.content_prior.item_priors import ItemPriors
from recall.data.splits import SPLITS, TEST, TRAIN, VALIDATION

BUCKET_SCHEMA = pa.schema(
    [
        ("item", pa.int32()),
        ("bucket", pa.int64()),
        ("exposures", pa.int64()),
        ("clicks", pa.int64()),
        ("first_time_ms", pa.int64()),
    ]
)
_MS_PER_HOUR = 3_600_000
_NEVER = np.iinfo(np.int64).max


class Posterior(NamedTuple):
    """What was known of some items, one entry each.

    Attributes:
      exposures: int64 [n], clicks included.
      clicks: int64 [n].
      smoothed_ctr: float32 [n].
      age_hours: float32 [n], hours since the first exposure; 0 where there is none.
    """

    exposures: Int64s
    clicks: Int64s
    smoothed_ctr: Float32s
    age_hours: Float32s

    def stacked(self) -> Float32s:
        """float32 [n, 4], in the order of the attributes."""
        return np.stack([column.astype(np.float32) for column in self], axis=1)


class Prior(NamedTuple):
    """Pseudo-exposures that every item starts with: `strength` of them, clicked at rate `ctr`.

    Attributes:
      ctr: in (0, 1), of all items alike.
      strength: > 0.
      items: CTRs of each item's own that stand in its place, where `data.posterior.content_prior` asks for them.
    """

    ctr: float
    strength: float
    items: ItemPriors | None = None

    @classmethod
    def of_training(cls, *, events: int, clicks: int, strength: float) -> Prior:
        """The CTR of the training events, kept off 0 and 1 so that the smoothed CTR has a logarithm."""
        return cls(min(max(clicks / max(events, 1), 1e-6), 1 - 1e-6), strength)

    def ctr_of(self, rows: AnyInts, times_ms: Int64s) -> float | Float64s:
        """The CTR that items (rows of the catalogue, [n]) started from as of moments, int64 [n]."""
        return self.ctr if self.items is None else self.items.of(rows, times_ms)


def smoothed_ctr(
    clicks: Int64s, exposures: Int64s, prior: Prior, *, prior_ctr: float | Float64s | None = None
) -> Float32s:
    """Click-through rate shrunk towards a prior.

    (clicks + ctr * strength) / (exposures + strength), the posterior mean under a Beta prior (Wang et al.,
    "Click-through rate estimation for rare events in online advertising", 2011).

    Args:
      clicks: int64 [items], up to a moment.
      exposures: int64 [items], up to the same moment.
      prior: CTR in (0, 1) and strength > 0.
      prior_ctr: in place of the prior's CTR, of all items or float64 [items].

    Returns:
      float32 [items].

    Raises:
      ValueError: clicks exceed exposures somewhere; says how many rows and shows one.
    """
    wrong = np.flatnonzero(clicks > exposures)
    if len(wrong):
        row = wrong[0]
        raise ValueError(f"{len(wrong):,} rows have more clicks than exposures, the first is row {row}: "
                         f"{clicks[row]:,} clicks of {exposures[row]:,}")  # fmt: skip
    ctr = prior.ctr if prior_ctr is None else prior_ctr
    return ((clicks + ctr * prior.strength) / (exposures + prior.strength)).astype(np.float32)


def age_hours(now_ms: Int64s | int, first_time_ms: Int64s, *, known: Bools) -> Float32s:
    """Hours from an item's first exposure to now, float32 [n]; 0 where the item is not `known` yet.

    Clocks disagree: an exposure that comes later than now has just happened.
    """
    hours = (now_ms - np.where(known, first_time_ms, 0)) / _MS_PER_HOUR
    return np.where(known, np.maximum(hours, 0), 0).astype(np.float32)


class BucketCounts(NamedTuple):
    """Events per item and time bucket; parts of a log concatenate and aggregate to the counts of the log.

    Attributes:
      item: int [n], any code of an item.
      bucket: int64 [n], floor(time_ms / bucket_ms).
      exposures: int64 [n], clicks included.
      clicks: int64 [n].
      first_time_ms: int64 [n], of the earliest event.
    """

    item: AnyInts
    bucket: Int64s
    exposures: Int64s
    clicks: Int64s
    first_time_ms: Int64s

    @classmethod
    def from_tables(cls, tables: Iterable[pa.Table], item: AnyInts | None = None) -> BucketCounts:
        """What `table` returned for parts of a log, put together; `item` int [n] in place of their item columns."""
        whole = pa.concat_tables([*tables]) if (tables := list(tables)) else BUCKET_SCHEMA.empty_table()
        columns = [whole[name].to_numpy() for name in BUCKET_SCHEMA.names[1:]]
        return cls(whole["item"].to_numpy() if item is None else item, *columns)

    def table(self, items: pa.StringArray | None = None) -> pa.Table:
        """Columns as `BUCKET_SCHEMA`; with `items`, of which the codes are positions, as a dictionary of these ids."""
        item = pa.array(self.item.astype(np.int32))
        if items is not None:
            item = pa.DictionaryArray.from_arrays(item, items)
        return pa.table(dict(zip(BUCKET_SCHEMA.names, [item, *self[1:]], strict=True)))

    def take(self, positions: Int64s) -> BucketCounts:
        """Entries at `positions`."""
        return BucketCounts(
            self.item[positions],
            self.bucket[positions],
            self.exposures[positions],
            self.clicks[positions],
            self.first_time_ms[positions],
        )

    def aggregated(self) -> BucketCounts:
        """One entry per item and bucket, in that order."""
        if not len(self.item):
            return self
        if (dense := self._aggregated_densely()) is not None:
            return dense
        order = order_of(self.item, self.bucket)
        item, bucket = self.item[order], self.bucket[order]
        starts = np.flatnonzero(np.r_[True, (item[1:] != item[:-1]) | (bucket[1:] != bucket[:-1])])
        return BucketCounts(
            item[starts],
            bucket[starts],
            np.add.reduceat(self.exposures[order], starts),
            np.add.reduceat(self.clicks[order], starts),
            np.minimum.reduceat(self.first_time_ms[order], starts),
        )

    def _aggregated_densely(self) -> BucketCounts | None:
        """By a table with a cell for each item and bucket, without sorting; None if it would outgrow the entries."""
        first, last = int(self.bucket.min()), int(self.bucket.max())
        shape = int(self.item.max()) + 1, last - first + 1
        size = shape[0] * shape[1]
        if size > len(self.item):
            return None
        cell = self.item.astype(np.int64) * shape[1] + (self.bucket - first)
        filled = np.flatnonzero(np.bincount(cell, minlength=size))
        # bincount adds in float64, which is exact up to 2^53 events.
        totals = (np.bincount(cell, counts, minlength=size) for counts in (self.exposures, self.clicks))
        exposures, clicks = (total[filled].astype(np.int64) for total in totals)
        earliest = np.full(size, _NEVER)
        np.minimum.at(earliest, cell, self.first_time_ms)
        item, bucket = np.divmod(filled, shape[1])
        return BucketCounts(item.astype(self.item.dtype), bucket + first, exposures, clicks, earliest[filled])


def count_buckets(item: AnyInts, time_ms: Int64s, click: Bools, *, bucket_ms: int) -> BucketCounts:
    """Events per item and bucket.

    Args:
      item: int [events], any code of an item.
      time_ms: int64 [events].
      click: bool [events].
      bucket_ms: length of a bucket.
    """
    if not len(item):
        return BucketCounts(item, *(np.zeros(0, np.int64) for _ in range(4)))
    bucket = time_ms // bucket_ms
    order = order_of(item, bucket)
    item, bucket = item[order], bucket[order]
    starts = np.flatnonzero(np.append(True, (item[1:] != item[:-1]) | (bucket[1:] != bucket[:-1])))
    clicks_before = np.append(0, np.cumsum(click[order]))
    ends = np.append(starts[1:], len(item))
    first_time_ms = np.minimum.reduceat(time_ms[order], starts)
    return BucketCounts(
        item[starts], bucket[starts], ends - starts, clicks_before[ends] - clicks_before[starts], first_time_ms
    )


def count_totals(item: AnyInts, split: npt.NDArray[np.int8], click: Bools) -> BucketCounts:
    """Training totals per item in a single bucket, for logs without a clock; items without any are there with 0."""
    training = split == TRAIN
    zero = np.zeros(len(item), np.int64)
    counts = BucketCounts(item, zero, training.astype(np.int64), (training & click).astype(np.int64), zero)
    return counts.aggregated()


@dataclass(frozen=True)
class PosteriorHistory:
    """The posterior of every item at every moment.

    An example at time t sees the events in buckets that closed `delay_ms` before it:
    (bucket + 1) * bucket_ms <= t - delay_ms. Entries are sorted by item and bucket.

    Attributes:
      item: int32 [entries], row of the catalogue.
      bucket: int64 [entries].
      exposures: int64 [entries], of the item up to the end of the bucket, clicks included.
      clicks: int64 [entries], likewise.
      first_time_ms: int64 [entries], of the item's first event.
      bucket_ms: length of a bucket.
      delay_ms: how long a closed bucket takes to become known.
      prior: for the smoothed CTR.
      clock: False for logs that only have an order: a lookup then gives training totals, whatever the time.
    """

    item: Int32s
    bucket: Int64s
    exposures: Int64s
    clicks: Int64s
    first_time_ms: Int64s
    bucket_ms: int
    delay_ms: int
    prior: Prior
    clock: bool = True

    @classmethod
    def from_counts(
        cls, counts: BucketCounts, *, bucket_ms: int, delay_ms: int, prior: Prior, clock: bool = True
    ) -> PosteriorHistory:
        """Adds up the counts of a log; `counts.item` are rows of the catalogue."""
        counts = counts.aggregated()
        counts = counts.take(np.flatnonzero(counts.exposures))
        start = np.searchsorted(counts.item, counts.item)  # [entries], position of the item's first bucket
        return cls(
            counts.item.astype(np.int32),
            counts.bucket,
            _cumulative(counts.exposures, start),
            _cumulative(counts.clicks, start),
            counts.first_time_ms[start],
            bucket_ms,
            delay_ms,
            prior,
            clock,
        )

    @classmethod
    def from_table(
        cls, table: pa.Table, *, bucket_ms: int, delay_ms: int, prior: Prior, clock: bool = True
    ) -> PosteriorHistory:
        """From what `table` returned."""
        item, bucket, exposures, clicks, first = (table[name].to_numpy() for name in BUCKET_SCHEMA.names)
        return cls(item, bucket, exposures, clicks, first, bucket_ms, delay_ms, prior, clock)

    def table(self) -> pa.Table:
        """The entries, as `BUCKET_SCHEMA`."""
        return pa.table([getattr(self, name) for name in BUCKET_SCHEMA.names], schema=BUCKET_SCHEMA)

    def as_of(self, rows: AnyInts, times_ms: Int64s, *, own: Bools | None = None) -> Posterior:
        """What was known of items at moments.

        Args:
          rows: int [n], rows of the catalogue; rows without events are fine.
          times_ms: int64 [n].
          own: bool [n], where the lookup is for a training click that is itself among the totals; it is subtracted.
            Only without a clock: with one, an event never sees itself.
        """
        if not len(self.item):
            zeros = np.zeros(len(rows), np.int64)
            return self._posterior(rows, zeros, zeros, zeros, times_ms)
        position = self.last_visible(rows, times_ms)
        known = (position >= 0) & (self.item[position] == rows)
        exposures = np.where(known, self.exposures[position], 0)
        clicks = np.where(known, self.clicks[position], 0)
        if own is not None and not self.clock:
            exposures, clicks = exposures - own, clicks - own
        return self._posterior(rows, exposures, clicks, self.first_time_ms[position], times_ms)

    @cached_property
    def _lookup(self) -> tuple[Int64s, Int64s]:
        """The distinct buckets, and a rising key per entry that holds item and rank of the bucket.

        Ranks, as item * (largest bucket) may not fit into int64 where a log has wild times.
        """
        buckets = np.unique(self.bucket)
        rank = np.searchsorted(buckets, self.bucket)
        return buckets, self.item.astype(np.int64) * (len(buckets) + 1) + rank

    def last_visible(self, rows: AnyInts, times_ms: Int64s) -> Int64s:
        """Position of the last entry that is visible; one of another item, or -1, if there is none."""
        buckets, keys = self._lookup
        if self.clock:
            visible = np.searchsorted(buckets, (times_ms - self.delay_ms) // self.bucket_ms)
        else:
            visible = np.full(len(rows), len(buckets))
        sought = rows.astype(np.int64) * (len(buckets) + 1) + visible
        order = order_of(sought)  # neighbours find what they need where the processor has just looked
        position = np.empty(len(sought), np.int64)
        position[order] = np.searchsorted(keys, sought[order]) - 1
        return position

    def _posterior(
        self,
        rows: AnyInts,
        exposures: Int64s,
        clicks: Int64s,
        first_time_ms: Int64s,
        times_ms: Int64s,
    ) -> Posterior:
        known = (exposures > 0) & self.clock
        ages = age_hours(times_ms, first_time_ms, known=known)
        ctr = smoothed_ctr(clicks, exposures, self.prior, prior_ctr=self.prior.ctr_of(rows, times_ms))
        return Posterior(exposures, clicks, ctr, ages)


@dataclass(frozen=True)
class ItemTotals:
    """Events per item and split.

    Attributes:
      exposures: int64 [items, splits], clicks included.
      clicks: int64 [items, splits].
      first_time_ms: int64 [items, splits], the largest int64 where there is no event.
    """

    exposures: Int64s
    clicks: Int64s
    first_time_ms: Int64s

    @classmethod
    def from_counts(cls, counts: BucketCounts, *, items: int) -> ItemTotals:
        """From counts whose items are rows of the catalogue and whose buckets are splits; they need not be merged."""
        return cls.of_parts([counts], items=items)

    @classmethod
    def of_parts(cls, parts: Iterable[BucketCounts], *, items: int) -> ItemTotals:
        """Adds up such counts of parts of a log, of which no more than one has to be in memory."""
        shape = (items, len(SPLITS))
        totals = cls(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, _NEVER, np.int64))
        for counts in (part.aggregated() for part in parts):
            cells = (counts.item, counts.bucket)  # each once, as counts are aggregated
            totals.exposures[cells] += counts.exposures
            totals.clicks[cells] += counts.clicks
            totals.first_time_ms[cells] = np.minimum(totals.first_time_ms[cells], counts.first_time_ms)
        return totals

    def snapshot(self, splits: tuple[int, ...], *, at_ms: int | None, prior: Prior) -> Posterior:
        """The posterior of every item from the events of some splits, without a delay.

        Args:
          splits: codes of the splits that are known.
          at_ms: the moment that ages are counted to; None without a clock: all ages are 0.
          prior: for the smoothed CTR.
        """
        chosen = list(splits)
        exposures, clicks = self.exposures[:, chosen].sum(axis=1), self.clicks[:, chosen].sum(axis=1)
        first = self.first_time_ms[:, chosen].min(axis=1)
        known = (exposures > 0) & (at_ms is not None)
        moments_ms = np.full(len(exposures), at_ms or 0, np.int64)
        ctr = smoothed_ctr(clicks, exposures, prior, prior_ctr=prior.ctr_of(np.arange(len(exposures)), moments_ms))
        return Posterior(exposures, clicks, ctr, age_hours(at_ms or 0, first, known=known))


def split_snapshots(
    totals: ItemTotals, *, moments_ms: dict[str, int] | None, by_time: bool, prior: Prior
) -> dict[str, Posterior]:
    """What is known of every item when each split is evaluated, and when the model is served.

    Args:
      totals: of the whole log.
      moments_ms: when `validation`, `test` and `serving` begin; None for a log without a clock.
      by_time: whether test comes after validation, so that it knows the validation events; otherwise both know
        the training events only.
      prior: for the smoothed CTR.
    """
    known = {
        "validation": (TRAIN,),
        "test": (TRAIN, VALIDATION) if by_time else (TRAIN,),
        "serving": (TRAIN, VALIDATION, TEST),
    }
    return {
        name: totals.snapshot(splits, at_ms=moments_ms[name] if moments_ms else None, prior=prior)
        for name, splits in known.items()
    }


def _cumulative(counts: Int64s, start: Int64s) -> Int64s:
    """Running sums that begin anew with each item; `start` int [n], position of the item's first entry."""
    running = np.cumsum(counts)
    return running - (running[start] - counts[start])
