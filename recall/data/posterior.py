"""Looks up what is known of an item's success at a moment: exposures, clicks, smoothed CTR, age.

`event_counts.py` makes the counts; `posterior_blocks.py` keeps a long history in blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from recall.core.arrays import AnyInts, Bools, Float32s, Float64s, Int32s, Int64s
from recall.core.ordering import order_of
from recall.core.times import MS_PER_HOUR
from recall.data.compaction import Base
from recall.data.content_prior.item_priors import ItemPriors
from recall.data.event_counts import BUCKET_SCHEMA, BucketCounts
from recall.data.fresh_evidence import Entries, FreshEvidence, started_counts

COLUMNS = ("exposures", "clicks", "smoothed_ctr", "age_hours")


class Posterior(NamedTuple):
    """Hold the state of knowledge about some items, one entry each.

    Attributes:
      exposures: int64 [n], clicks included.
      clicks: int64 [n].
      smoothed_ctr: float32 [n].
      age_hours: float32 [n], hours since the first exposure; 0 where there is none.
      fresh: float32 [n, 3 * half-lives] of `FreshEvidence.as_of`; None where the experiment asks for none.
      sources: int32 [n, audience] of `AudienceHistory.as_of`; None where the experiment asks for none, or nobody looked
        them up.
    """

    exposures: Int64s
    clicks: Int64s
    smoothed_ctr: Float32s
    age_hours: Float32s
    fresh: Float32s | None = None
    sources: Int32s | None = None

    def columns(self) -> dict[str, Int64s | Float32s]:
        """Return the columns with one number per item, by name: all but `fresh` and `sources`."""
        return {name: getattr(self, name) for name in COLUMNS}

    def stacked(self) -> Float32s:
        """Stack all numbers as float32 [n, 4 + 3 * half-lives], in the order of the attributes."""
        columns = np.stack([column.astype(np.float32) for column in self.columns().values()], axis=1)
        return columns if self.fresh is None else np.concatenate([columns, self.fresh], axis=1)


class Prior(NamedTuple):
    """Hold the pseudo-exposures that every item starts with: `strength` of them, clicked at rate `ctr`.

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
        """Take the CTR of the training events, kept off 0 and 1 so that the smoothed CTR has a logarithm."""
        return cls(min(max(clicks / max(events, 1), 1e-6), 1 - 1e-6), strength)

    def ctr_of(self, rows: AnyInts, times_ms: Int64s) -> float | Float64s:
        """Look up the prior CTR of items (catalogue rows, [n]) at moments, int64 [n]."""
        return self.ctr if self.items is None else self.items.of(rows, times_ms)


def smoothed_ctr(
    clicks: Int64s, exposures: Int64s, prior: Prior, *, prior_ctr: float | Float64s | None = None
) -> Float32s:
    """Shrink the click-through rate towards a prior.

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
    """Compute hours from an item's first exposure to now, float32 [n]; 0 where the item is not `known` yet.

    Clocks disagree: an exposure that comes later than now has just happened.
    """
    hours = (now_ms - np.where(known, first_time_ms, 0)) / MS_PER_HOUR
    return np.where(known, np.maximum(hours, 0), 0).astype(np.float32)


@dataclass(frozen=True)
class PosteriorHistory:
    """Hold the posterior of every item at every moment.

    An example at time t sees the events in buckets that closed `delay_ms` before it:
    (bucket + 1) * bucket_ms <= t - delay_ms. Entries are sorted by item and bucket.

    Attributes:
      item: int32 [entries], row of the catalogue.
      bucket: int64 [entries].
      exposures: int64 [entries], of the item up to the end of the bucket, clicks included.
      clicks: int64 [entries], likewise.
      first_time_ms: int64 [entries], of the item's first event.
      bucket_ms: length of a bucket.
      delay_ms: time until a closed bucket becomes known.
      prior: prior of the smoothed CTR.
      clock: False for logs that only have an order: lookups then ignore the time and give training totals.
      half_lives_ms: of the fresh evidence, rising; empty without it.
      base: what the oldest entries were made of, if they are compacted; then only later moments may be asked for.
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
    half_lives_ms: tuple[int, ...] = ()
    base: Base | None = None

    @classmethod
    def from_counts(
        cls,
        counts: BucketCounts,
        *,
        bucket_ms: int,
        delay_ms: int,
        prior: Prior,
        clock: bool = True,
        half_lives_ms: tuple[int, ...] = (),
    ) -> PosteriorHistory:
        """Add up the counts of a log; `counts.item` are rows of the catalogue."""
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
            half_lives_ms,
        )

    @classmethod
    def from_table(
        cls,
        table: pa.Table,
        *,
        bucket_ms: int,
        delay_ms: int,
        prior: Prior,
        clock: bool = True,
        half_lives_ms: tuple[int, ...] = (),
        base: Base | None = None,
    ) -> PosteriorHistory:
        """Read the result of `table`."""
        item, bucket, exposures, clicks, first = (table[name].to_numpy() for name in BUCKET_SCHEMA.names)
        return cls(item, bucket, exposures, clicks, first, bucket_ms, delay_ms, prior, clock, half_lives_ms, base)

    def table(self) -> pa.Table:
        """Make a table of the entries, as `BUCKET_SCHEMA`."""
        return pa.table([getattr(self, name) for name in BUCKET_SCHEMA.names], schema=BUCKET_SCHEMA)

    def as_of(self, rows: AnyInts, times_ms: Int64s, *, own: Bools | None = None) -> Posterior:
        """Look up the posterior of items at moments.

        Args:
          rows: int [n], rows of the catalogue; rows without events are fine.
          times_ms: int64 [n].
          own: bool [n], where the lookup is for a training click that is itself among the totals; it is subtracted.
            Only without a clock: with one, an event never sees itself.
        """
        position, known = self.visible(rows, times_ms)
        if not len(self.item):
            nothing = self._posterior(rows, position, position, position, times_ms)
            return nothing._replace(fresh=self._fresh(position, known, times_ms))
        exposures = np.where(known, self.exposures[position], 0)
        clicks = np.where(known, self.clicks[position], 0)
        if own is not None and not self.clock:
            exposures, clicks = exposures - own, clicks - own
        found = self._posterior(rows, exposures, clicks, self.first_time_ms[position], times_ms)
        return found._replace(fresh=self._fresh(position, known, times_ms))

    @cached_property
    def fresh_evidence(self) -> FreshEvidence | None:
        """Decay the counts of the entries; None without half-lives."""
        if not self.half_lives_ms:
            return None
        return FreshEvidence.of(
            self.entries(), bucket_ms=self.bucket_ms, half_lives_ms=self.half_lives_ms, base=self.base
        )

    def entries(self) -> Entries:
        """Return the counts of each bucket alone."""
        is_first = np.append(True, self.item[1:] != self.item[:-1])[: len(self.item)]
        exposures, clicks = (
            totals - np.where(is_first, 0, np.roll(totals, 1)) for totals in (self.exposures, self.clicks)
        )
        return Entries(self.item, self.bucket, exposures, clicks)

    def compacted(self, *, before: int, until: int, half_lives_ms: Sequence[int]) -> tuple[BucketCounts, Base]:
        """Make one entry of all entries of an item before a bucket.

        Args:
          before: a bucket; moments that saw it not closed may not be asked for afterwards.
          until: entries of this bucket or later are left out.
          half_lives_ms: which decays are kept; those of the own base, if there is one.

        Returns:
          Counts per item and bucket, in no order; and what those of bucket `before - 1` were made of.
        """
        entries = self.entries()
        old = np.flatnonzero(entries.bucket < before)
        earlier = entries.take(old)
        is_last = np.append(earlier.item[1:] != earlier.item[:-1], True)[: len(old)]
        last = np.flatnonzero(is_last)
        place = np.cumsum(is_last) - is_last  # [old entries], number of the item
        passed_ms = (before - 1 - earlier.bucket) * self.bucket_ms
        sums = {name: np.zeros((len(last), len(half_lives_ms))) for name in ("exposures", "clicks")}
        for column, half_life in enumerate(half_lives_ms):
            weights = np.exp2(-passed_ms / half_life)
            for name, values in sums.items():
                of_buckets = started_counts(earlier, name, half_life_ms=half_life, base=self.base)
                values[:, column] = np.bincount(place, weights * of_buckets, minlength=len(last))
        items = earlier.item[last].astype(np.int64)
        kept = np.flatnonzero((entries.bucket >= before) & (entries.bucket < until))
        counts = BucketCounts(
            np.concatenate([items, entries.item[kept]]),
            np.concatenate([np.full(len(last), before - 1, np.int64), entries.bucket[kept]]),
            np.concatenate([self.exposures[old[last]], entries.exposures[kept]]),
            np.concatenate([self.clicks[old[last]], entries.clicks[kept]]),
            np.concatenate([self.first_time_ms[old[last]], self.first_time_ms[kept]]),
        )
        return counts, Base(before - 1, tuple(half_lives_ms), items, **sums)

    def _fresh(self, position: Int64s, known: Bools, times_ms: Int64s) -> Float32s | None:
        evidence = self.fresh_evidence
        if evidence is None:
            return None
        return evidence.as_of(position, known, self.bucket, times_ms, delay_ms=self.delay_ms)

    @cached_property
    def _lookup(self) -> tuple[Int64s, Int64s]:
        """Return the distinct buckets, and a rising key per entry made of item and rank of the bucket.

        Ranks, because item * (largest bucket) may not fit into int64 where a log has wild times.
        """
        buckets = np.unique(self.bucket)
        rank = np.searchsorted(buckets, self.bucket)
        return buckets, self.item.astype(np.int64) * (len(buckets) + 1) + rank

    def visible(self, rows: AnyInts, times_ms: Int64s) -> tuple[Int64s, Bools]:
        """Find the position of the last visible entry of items, int64 [n], and whether there is one, bool [n]."""
        if not len(self.item):
            return np.zeros(len(rows), np.int64), np.zeros(len(rows), bool)
        position = self.last_visible(rows, times_ms)
        return position, (position >= 0) & (self.item[position] == rows)

    def last_visible(self, rows: AnyInts, times_ms: Int64s) -> Int64s:
        """Find the position of the last visible entry; without one it is -1 or of another item."""
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


def _cumulative(counts: Int64s, start: Int64s) -> Int64s:
    """Sum up anew for each item; `start` int [n] is the position of the item's first entry."""
    running = np.cumsum(counts)
    return running - (running[start] - counts[start])
