"""Adds up events per item and split, and takes snapshots of the posterior when each split begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from recall.core.arrays import Float32s, Int32s, Int64s
from recall.data.event_counts import NEVER_MS, BucketCounts
from recall.data.posterior import Posterior, Prior, age_hours, smoothed_ctr
from recall.data.splits import SPLITS, TEST, TRAIN, VALIDATION


@dataclass(frozen=True)
class ItemTotals:
    """Hold events per item and split.

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
        """Add up counts whose items are catalogue rows and whose buckets are splits; repeats are merged."""
        return cls.of_parts([counts], items=items)

    @classmethod
    def of_parts(cls, parts: Iterable[BucketCounts], *, items: int) -> ItemTotals:
        """Add up such counts of parts of a log, with one part in memory at a time."""
        shape = (items, len(SPLITS))
        totals = cls(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, NEVER_MS, np.int64))
        for counts in (part.aggregated() for part in parts):
            cells = (counts.item, counts.bucket)  # each once, as counts are aggregated
            totals.exposures[cells] += counts.exposures
            totals.clicks[cells] += counts.clicks
            totals.first_time_ms[cells] = np.minimum(totals.first_time_ms[cells], counts.first_time_ms)
        return totals

    def sampling_counts(self) -> Int64s:
        """Count the training examples of each target item, int64 [items]: every training click is one example.

        The logQ correction of the softmax reads from it how often an item is drawn as a target.
        """
        return self.clicks[:, TRAIN].copy()

    def all_counts(self) -> Int64s:
        """Count the same with the held-out clicks, int64 [items]."""
        return self.clicks.sum(axis=1)

    def snapshot(self, splits: tuple[int, ...], *, at_ms: int | None, prior: Prior) -> Posterior:
        """Compute the posterior of every item from the events of some splits, without a delay.

        Args:
          splits: codes of the splits that are known.
          at_ms: the moment that ages are counted to; None without a clock: all ages are 0.
          prior: prior of the smoothed CTR.
        """
        chosen = list(splits)
        exposures, clicks = self.exposures[:, chosen].sum(axis=1), self.clicks[:, chosen].sum(axis=1)
        first = self.first_time_ms[:, chosen].min(axis=1)
        known = (exposures > 0) & (at_ms is not None)
        moments_ms = np.full(len(exposures), at_ms or 0, np.int64)
        ctr = smoothed_ctr(clicks, exposures, prior, prior_ctr=prior.ctr_of(np.arange(len(exposures)), moments_ms))
        return Posterior(exposures, clicks, ctr, age_hours(at_ms or 0, first, known=known))


def split_snapshots(
    totals: ItemTotals,
    *,
    moments_ms: dict[str, int] | None,
    by_time: bool,
    prior: Prior,
    fresh: Mapping[str, Float32s] | None = None,
    sources: Mapping[str, Int32s] | None = None,
) -> dict[str, Posterior]:
    """Compute the posterior of every item when each split is evaluated, and when the model is served.

    Args:
      totals: totals of the whole log.
      moments_ms: start of `validation`, `test` and `serving`; None for a log without a clock.
      by_time: whether test comes after validation, so that it knows the validation events; otherwise both know
        the training events only.
      prior: prior of the smoothed CTR.
      fresh: the fresh evidence of every item by moment, float32 [items, 3 * half-lives]; None without half-lives.
      sources: the audience of every item by moment, int32 [items, audience]; None without audiences.
    """
    known = {
        "validation": (TRAIN,),
        "test": (TRAIN, VALIDATION) if by_time else (TRAIN,),
        "serving": (TRAIN, VALIDATION, TEST),
    }
    snapshots = {
        name: totals.snapshot(splits, at_ms=moments_ms[name] if moments_ms else None, prior=prior)
        for name, splits in known.items()
    }
    return {
        name: snapshot._replace(fresh=(fresh or {}).get(name), sources=(sources or {}).get(name))
        for name, snapshot in snapshots.items()
    }
