"""Orders popular and fresh items, for queries that the model cannot answer.

The order depends on the posteriors alone and is the same for every query: four popular items, one fresh, and so on.

popular: by clicks, equal counts by smoothed CTR, then by row. Of test clicks 14.0%, 17.0% and 19.8% (simulated
  community, KuaiRand, MovieLens 100k) are among the first 50; by smoothed CTR alone 18.7%, 4.9% and 16.4%, as the
  clicks of a real feed go where its exposures go.
fresh: by first exposure, the latest first; items without exposures come last, by row: a list of them alone would be a
  random draw (`min_cold_share` asks for some). In a log without a clock nothing is fresh.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from recall.core.arrays import AnyInts, Bools, Float32s, Int32s, Int64s, Intps
from recall.serving.items.overlay import Overlaid
from recall.serving.items.posterior import NEVER, ServedPosterior
from recall.serving.search.merging import Ranked

# A fresh item in every fifth place costs a seventh of the hits among the first 50; in every second, a fifth to two
# fifths.
FRESH_EVERY = 5


class Order(NamedTuple):
    """Hold rows in the order of their keys.

    Attributes:
      rows: int32 [items]; rows of equal keys rise.
      keys: int64 [items], rising.
    """

    rows: Int32s
    keys: Int64s

    @classmethod
    def by(cls, keys: Int64s) -> Order:
        """Order rows 0, 1, ... by one key each."""
        rows = np.argsort(keys, kind="stable").astype(np.int32)
        return cls(rows, keys[rows])

    def changed(self, rows: Int32s, keys: Int64s) -> Order:
        """Return the order with newer keys of some rows, which may be new, without sorting the others again.

        Args:
          rows: int32 [n], rising.
          keys: int64 [n], their keys.
        """
        kept = ~np.isin(self.rows, rows, kind="table")
        others, other_keys = self.rows[kept], self.keys[kept]
        order = np.argsort(keys, kind="stable")
        rows, keys = rows[order], keys[order]
        places = np.searchsorted(other_keys, keys)
        ends = np.searchsorted(other_keys, keys, side="right")
        for tie in np.flatnonzero(places < ends):
            places[tie] += np.searchsorted(others[places[tie] : ends[tie]], rows[tie])
        return Order(np.insert(others, places, rows), np.insert(other_keys, places, keys))


@lru_cache(maxsize=4)
def fallback_order(posterior: Overlaid[ServedPosterior]) -> Int32s:
    """Order the rows of all items, the first to show in front; int32 [items], which the caller may not write to."""
    popular = _ordered(posterior, _unpopularity).rows
    if not posterior.base.has_clock:
        return popular
    return interleaved(popular, _ordered(posterior, _exposed_before).rows, every=FRESH_EVERY)


def _ordered(posterior: Overlaid[ServedPosterior], keys_of: Callable[[ServedPosterior], Int64s]) -> Order:
    """Order all rows by their keys."""
    order = _order_of_base(posterior.base, keys_of)
    newer = posterior.merged_overlay
    return order if newer is None else order.changed(newer.rows, keys_of(newer.entries))


@lru_cache(maxsize=8)  # a base lives for long: sorting a million items takes most of a second
def _order_of_base(posterior: ServedPosterior, keys_of: Callable[[ServedPosterior], Int64s]) -> Order:
    """Order the rows of a base by their keys."""
    return Order.by(keys_of(posterior))


def _unpopularity(known: ServedPosterior) -> Int64s:
    """Return keys for falling clicks, then falling CTR. CTRs are not negative, so that their bits rise with them."""
    return -((known.clicks << 32) | known.smoothed_ctr.view(np.int32).astype(np.int64))


def _exposed_before(known: ServedPosterior) -> Int64s:
    """Return keys for the latest first exposure first, and items without exposures last."""
    return np.where(known.first_exposed_ms == NEVER, 1, -known.first_exposed_ms)


def interleaved(one: AnyInts, other: AnyInts, *, every: int) -> Int32s:
    """Interleave two orders of the same items, with every `every`-th place from the second; repeats are dropped.

    Args:
      one: rows 0 to n - 1 in some order.
      other: the same rows in another order.
      every: distance between the places of the second order, at least 2.

    Returns:
      int32 [n], each row once.
    """
    places = np.arange(len(one))
    # Places of the two in an endless joint list: of `one` 0 1 2 3 5 6 7 8 10, of `other` 4 9 14, where every is 5.
    first = np.empty(len(one), np.int64)
    first[one] = places + places // (every - 1)
    first[other] = np.minimum(first[other], every * (places + 1) - 1)
    slots = np.full(first.max(initial=-1) + 1, -1, np.int32)
    slots[first] = places  # no two items have one place
    return slots[slots >= 0]


def ranked_fallback(order: Int32s, *, allowed: Bools | None, excluded: Sequence[Int32s]) -> Ranked:
    """Rank candidates by an order, for `merged_lists`.

    A score is minus the place in the order, so that merged lists keep the order.

    Args:
      order: rows of items.
      allowed: bool [items], rows that lists may hold; None: all.
      excluded: per query rows that its list may not hold.
    """
    place = np.zeros(order.max(initial=-1) + 1, np.int64)
    place[order] = np.arange(len(order))

    def ranked(queries: Intps, width: int, *, only: Bools | None) -> tuple[Int32s, Float32s]:
        kept = order
        for mask in (allowed, only):
            kept = kept if mask is None else kept[mask[kept]]
        rows = np.full((len(queries), width), -1, np.int32)
        scores = np.full((len(queries), width), -np.inf, np.float32)
        for line, query in enumerate(queries):
            first = kept[: width + len(excluded[query])]
            own = first[~np.isin(first, excluded[query])][:width]
            rows[line, : len(own)], scores[line, : len(own)] = own, -place[own]
        return rows, scores

    return ranked
