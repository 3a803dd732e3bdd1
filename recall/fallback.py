"""What is shown where the model has nothing to go by: popular items and fresh ones, from the posterior snapshot.

The order is the same for everybody and depends on the snapshot alone: four popular items, one fresh, and so on.

popular: by clicks, equal counts by smoothed CTR, then by row. Of test clicks 14.0%, 17.0% and 19.8% (simulated
  community, KuaiRand, MovieLens 100k) are among the first 50; by smoothed CTR alone 18.7%, 4.9% and 16.4%, as the
  clicks of a real feed go where its exposures go.
fresh: by first exposure, the latest first; items that were never exposed come after the others, by row: a list of them
  alone would be a draw at random (`min_cold_share` asks for some). In a log without a clock nothing is fresh.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from recall.index.items import Rows, Vectors
from recall.item_facts import NEVER, ServedPosterior
from recall.merging import Mask, Ranked

# A fresh item in every fifth place costs a seventh of the hits among the first 50; in every second a third.
FRESH_EVERY = 5


@lru_cache(maxsize=4)  # a snapshot serves many queries: sorting a million items takes most of a second
def fallback_order(posterior: ServedPosterior) -> Rows:
    """Rows of all items, those to show first in front; int32 [items], of which nothing may be overwritten."""
    popular = np.lexsort((-posterior.smoothed_ctr, -posterior.clicks))  # keeps rows in order where both are equal
    if not posterior.has_clock:
        return popular.astype(np.int32)
    first = posterior.first_exposed_ms
    fresh = np.argsort(np.where(first == NEVER, 1, -first), kind="stable")
    return interleaved(popular, fresh, every=FRESH_EVERY)


def interleaved(one: npt.NDArray[np.integer], other: npt.NDArray[np.integer], *, every: int) -> Rows:
    """Joins two orders of the same items: each `every`-th place is of the other; an item stays where it comes first.

    Args:
      one: rows 0 to n - 1 in some order.
      other: the same rows in another.
      every: at least 2.

    Returns:
      int32 [n], each row once.
    """
    places = np.arange(len(one))
    # Places of the two in an endless joint list: of `one` 0 1 2 3 5 6 7 8 10, of `other` 4 9 14, where every is 5.
    first = np.empty(len(one), np.int64)
    first[one] = places + places // (every - 1)
    first[other] = np.minimum(first[other], every * (places + 1) - 1)
    return np.argsort(first, kind="stable").astype(np.int32)


def ranked_fallback(order: Rows, *, allowed: Mask | None, excluded: Sequence[Rows]) -> Ranked:
    """The order as a source of candidates, for `merged_lists`.

    Scores are minus the place in the order, so that lists which are put together anew keep it.

    Args:
      order: rows of items.
      allowed: bool [items], rows that may be given; None: all.
      excluded: per query rows that may not.
    """
    place = np.zeros(order.max(initial=-1) + 1, np.int64)
    place[order] = np.arange(len(order))

    def ranked(queries: npt.NDArray[np.intp], width: int, *, only: Mask | None) -> tuple[Rows, Vectors]:
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
