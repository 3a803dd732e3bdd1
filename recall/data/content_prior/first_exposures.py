"""Counts exposures and clicks among items' first exposures, so that a few popular items do not dominate."""

from __future__ import annotations

import numpy as np

from recall.core.arrays import Float64s
from recall.data.posterior import PosteriorHistory


class FirstExposures:
    """Count exposures and clicks among each item's first `limit` exposures, as known at any moment.

    The bucket in which an item reaches the limit counts pro rata, so that counts are not whole numbers.

    Args:
      history: counts with a clock.
      limit: number of exposures of an item that are its first.
      items: number of items in the catalogue.
    """

    def __init__(self, history: PosteriorHistory, *, limit: int, items: int) -> None:
        self._history, self._items = history, items
        same = np.r_[False, history.item[1:] == history.item[:-1]][: len(history.item)]
        before = np.where(same, np.roll(history.exposures, 1), 0)
        gained, clicked = history.exposures - before, history.clicks - np.where(same, np.roll(history.clicks, 1), 0)
        self._exposures = np.minimum(history.exposures, limit).astype(np.float64)
        clicks = clicked * np.clip((limit - before) / np.maximum(gained, 1), 0, 1)
        running = np.cumsum(clicks)
        start = np.searchsorted(history.item, history.item)  # [entries], position of the item's first bucket
        self._clicks = running - (running[start] - clicks[start])
        self._by_bucket = np.argsort(history.bucket, kind="stable")
        self._events = np.cumsum(gained[self._by_bucket])

    def known_at(self, time_ms: int) -> tuple[Float64s, Float64s]:
        """Return exposures and clicks, float64 [items] each, in buckets that had closed the delay before."""
        exposures, clicks = np.zeros(self._items), np.zeros(self._items)
        if not len(self._history.item):
            return exposures, clicks
        rows = np.arange(self._items)
        position = self._history.last_visible(rows, np.full(self._items, time_ms, np.int64))
        known = (position >= 0) & (self._history.item[position] == rows)
        exposures[known], clicks[known] = self._exposures[position[known]], self._clicks[position[known]]
        return exposures, clicks

    def moments_of_growth(self, *, least: int, factor: float, before_ms: int) -> list[int]:
        """Find when `least` events were known, and each time there were `factor` times as many.

        Each moment depends only on the events before it.

        Args:
          least: events at the first moment.
          factor: > 1.
          before_ms: end of the moments, exclusive, in Unix milliseconds.
        """
        moments: list[int] = []
        wanted = float(least)
        history = self._history
        while (place := int(np.searchsorted(self._events, wanted))) < len(self._events):
            bucket = int(history.bucket[self._by_bucket[place]])
            known_ms = (bucket + 1) * history.bucket_ms + history.delay_ms
            if known_ms >= before_ms:
                break
            if not moments or known_ms > moments[-1]:
                moments.append(known_ms)
            wanted *= factor
        return moments
