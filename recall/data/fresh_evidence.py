"""Decays exposures and clicks, so that what happened lately counts more: fresh evidence beside the totals.

`posterior.py` looks it up as of a moment; `recall.model.towers.evidence` makes the inputs of the gate from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recall.core.arrays import AnyInts, Bools, Float32s, Float64s, Int64s
from recall.data.compaction import Base

COLUMNS = ("exposures", "clicks", "lift")
"""The columns of each half-life, in order; `lift` is the item's share of the feed's clicks, times the items."""


class Entries(NamedTuple):
    """Hold the events of items by bucket, sorted by item and bucket.

    Attributes:
      item: int [entries].
      bucket: int64 [entries].
      exposures: int64 [entries], in the bucket alone, clicks included.
      clicks: int64 [entries], likewise.
    """

    item: AnyInts
    bucket: Int64s
    exposures: Int64s
    clicks: Int64s

    def take(self, positions: Int64s) -> Entries:
        """Select the entries at `positions`."""
        return Entries(self.item[positions], self.bucket[positions], self.exposures[positions], self.clicks[positions])


def decayed(counts: Float64s | Int64s, times_ms: Int64s, groups: AnyInts, *, half_life_ms: int) -> Float64s:
    """Sum up counts that lose half of their weight every half-life, as of the time of each entry.

    sum_j counts[j] 2^(-(times_ms[i] - times_ms[j]) / half_life) over the entries j <= i of the group of i: the sum of
    the entry before, carried forward by 2^(-dt / half_life), plus the entry's own count.

    Args:
      counts: [entries].
      times_ms: int64 [entries], rising within a group.
      groups: int [entries], sorted.
      half_life_ms: > 0.

    Returns:
      float64 [entries].
    """
    sums = np.asarray(counts, np.float64).copy()
    if not len(sums):
        return sums
    is_first = np.append(True, groups[1:] != groups[:-1])
    passed_ms = np.where(is_first, 0, np.diff(times_ms, prepend=times_ms[0]))
    factor = np.exp2(-passed_ms / half_life_ms)
    starts = np.flatnonzero(is_first)
    lengths = np.diff(np.append(starts, len(sums)))
    # Entry k of every group at once: as many rounds as the longest group has entries, whatever the number of groups.
    longest_first = np.argsort(-lengths, kind="stable")
    starts, lengths = starts[longest_first], lengths[longest_first]
    left = np.searchsorted(-lengths, -np.arange(1, lengths[0]), side="left")  # groups with more than k entries
    for place, count in enumerate(left.tolist(), start=1):
        now = starts[:count] + place
        sums[now] += factor[now] * sums[now - 1]
    return sums


def started_counts(entries: Entries, name: str, *, half_life_ms: int, base: Base | None = None) -> Int64s | Float64s:
    """Return the `exposures` or `clicks` of entries, [entries], of compacted ones what has decayed of them.

    Args:
      entries: of some items.
      name: which counts.
      half_life_ms: > 0.
      base: what the oldest entries were made of, if they are compacted.
    """
    counts: Int64s = getattr(entries, name)
    if base is None:
        return counts
    return base.started(counts, entries.item, entries.bucket, name=name, half_life_ms=half_life_ms)


@dataclass(frozen=True)
class Feed:
    """Hold the decayed clicks of the whole feed.

    Attributes:
      buckets: int64 [buckets] with an event, rising.
      clicks: float64 [buckets, half-lives], decayed to the end of each bucket.
      items: items that have an event.
    """

    buckets: Int64s
    clicks: Float64s
    items: int

    @classmethod
    def of(
        cls, parts: Iterable[Entries], *, bucket_ms: int, half_lives_ms: Sequence[int], base: Base | None = None
    ) -> Feed:
        """Add up the entries of all items, which may come in parts; an item's entries are all in one part.

        Args:
          parts: the entries.
          bucket_ms: length of a bucket.
          half_lives_ms: rising, > 0.
          base: what the oldest entries were made of, if they are compacted.
        """
        totals: dict[int, int] = {}
        items = 0
        for part in parts:
            buckets, place = np.unique(part.bucket, return_inverse=True)
            clicks = np.bincount(place, weights=part.clicks, minlength=len(buckets))
            for bucket, count in zip(buckets.tolist(), clicks.tolist(), strict=True):
                totals[bucket] = totals.get(bucket, 0) + count
            items += len(np.unique(part.item))
        buckets = np.array(sorted(totals), np.int64)
        counts = np.array([totals[bucket] for bucket in buckets.tolist()], np.float64)
        one = np.zeros(len(buckets), np.int64)
        ends_ms = (buckets + 1) * bucket_ms
        sums = [
            decayed(base.of_feed(counts, buckets, half_life) if base else counts, ends_ms, one, half_life_ms=half_life)
            for half_life in half_lives_ms
        ]
        return cls(buckets, _columns(sums, rows=len(buckets)), items)


@dataclass(frozen=True)
class FreshEvidence:
    """Hold decayed exposures and clicks of items, an entry per item and bucket; the entries are those of a history.

    An event of a bucket counts 2^(-(t - end of the bucket) / half-life) at a moment t.

    Attributes:
      half_lives_ms: rising.
      bucket_ms: length of a bucket.
      exposures: float32 [entries, half-lives], decayed to the end of the entry's bucket.
      clicks: float32 [entries, half-lives], likewise.
      feed: clicks of all items.
    """

    half_lives_ms: tuple[int, ...]
    bucket_ms: int
    exposures: Float32s
    clicks: Float32s
    feed: Feed

    @classmethod
    def of(
        cls,
        entries: Entries,
        *,
        bucket_ms: int,
        half_lives_ms: Sequence[int],
        feed: Feed | None = None,
        base: Base | None = None,
    ) -> FreshEvidence:
        """Decay the counts of entries.

        Args:
          entries: of some items.
          bucket_ms: length of a bucket.
          half_lives_ms: rising, > 0.
          feed: of all items, where the entries are those of some; default: of these.
          base: what the oldest entries were made of, if they are compacted.
        """

        def sums(name: str, half_life: int) -> Float64s:
            counts = started_counts(entries, name, half_life_ms=half_life, base=base)
            return decayed(counts, (entries.bucket + 1) * bucket_ms, entries.item, half_life_ms=half_life)

        exposures, clicks = (
            _columns([sums(name, half_life) for half_life in half_lives_ms], rows=len(entries.item)).astype(np.float32)
            for name in ("exposures", "clicks")
        )
        feed = feed or Feed.of([entries], bucket_ms=bucket_ms, half_lives_ms=half_lives_ms, base=base)
        return cls(tuple(half_lives_ms), bucket_ms, exposures, clicks, feed)

    def as_of(self, position: Int64s, known: Bools, buckets: Int64s, times_ms: Int64s, *, delay_ms: int) -> Float32s:
        """Look up the evidence of items at moments.

        Args:
          position: int64 [n], the last visible entry of each item.
          known: bool [n], whether the item has such an entry.
          buckets: int64 [entries], the buckets of the entries.
          times_ms: int64 [n].
          delay_ms: time until a closed bucket becomes known.

        Returns:
          float32 [n, 3 * half-lives]: `COLUMNS` of each half-life, the shortest first; zeros where nothing is known.
        """
        count, lives = len(position), len(self.half_lives_ms)
        result = np.zeros((count, lives, len(COLUMNS)), np.float32)
        if not len(self.exposures):
            return result.reshape(count, -1)
        rates = 1 / np.array(self.half_lives_ms, np.float64)
        age = times_ms - (buckets[position] + 1) * self.bucket_ms
        weights = np.where(known[:, np.newaxis], np.exp2(-np.maximum(age, 0)[:, np.newaxis] * rates), 0)
        result[:, :, 0] = weights * self.exposures[position]
        result[:, :, 1] = weights * self.clicks[position]
        moments, place = np.unique(times_ms, return_inverse=True)  # the feed is the same for all items of a moment
        last = np.searchsorted(self.feed.buckets, (moments - delay_ms) // self.bucket_ms) - 1
        feed_age = moments - (self.feed.buckets[last] + 1) * self.bucket_ms
        of_feed = np.exp2(-np.maximum(feed_age, 0)[:, np.newaxis] * rates) * self.feed.clicks[last]
        result[:, :, 2] = result[:, :, 1] * lift_of_a_click(of_feed, items=self.feed.items)[place]
        return result.reshape(count, -1)


def lift_of_a_click(of_feed: Float64s, *, items: int) -> Float32s:
    """Compute how much a click lifts an item above the mean item: items / (clicks of the feed), float32 as `of_feed`.

    Night and day, or a feed that grows, change an item's clicks and the feed's alike. A feed whose decayed clicks have
    fallen below one click is taken for one click: nothing is known of now.
    """
    return (items / np.maximum(of_feed, 1.0)).astype(np.float32)


def _columns(columns: list[Float64s], *, rows: int) -> Float64s:
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0))
