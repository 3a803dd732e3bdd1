"""Fills slates from scores: the best items that a user has not seen, by the rules of a served request."""

from __future__ import annotations

import numpy as np

from recall.core.arrays import Bools, Float32s, Int32s, Intps
from recall.data.datasets.chance import chance
from recall.data.datasets.feed import SLATE
from recall.data.datasets.live_community import Visits
from recall.runs.loop.arms import Arm
from recall.serving.search.merging import Rules, merged_lists
from recall.serving.search.options import cold_items

_IS_EXPLORED, _EXPLORED_ITEM = 4, 5  # what numbers are drawn for


def fill_slates(
    scores: Float32s, allowed: Bools, visits: Visits, *, arm: Arm, seed: int, young: Bools, cold: Bools
) -> Int32s:
    """Choose the items of the slates of an hour.

    Args:
      scores: float32 [sessions, items].
      allowed: bool [sessions, items], the items that each may be shown.
      visits: the sessions.
      arm: its shares of exploration and of cold items.
      seed: of the loop; which slots explore depends on it, on the session and on the slot alone.
      young: bool [items], items younger than a day.
      cold: bool [items], items without known exposures, or within their budget.

    Returns:
      int32 [sessions, SLATE] rows of items, no item twice in a slate; -1 where a user has seen everything.
    """
    masked = np.where(allowed, scores, -np.inf)  # [sessions, items]

    def ranked(queries: Intps, width: int, *, only: Bools | None) -> tuple[Int32s, Float32s]:
        return _best(masked[queries] if only is None else np.where(only, masked[queries], -np.inf), width)

    rules = Rules(SLATE, cold=cold, min_cold=cold_items(SLATE, arm.min_cold_share))
    rows, _ = merged_lists(ranked, rules, queries=len(scores), items=scores.shape[1])
    for share, pool in ((arm.explore_new, allowed & young), (arm.explore, allowed)):
        if share:
            rows = _explored(rows, pool, visits, share=share, seed=seed)
    return rows


def _best(scores: Float32s, width: int) -> tuple[Int32s, Float32s]:
    """Find the best items of each row; of equals the first. Rows and scores [queries, width], padded with -1."""
    width = min(width, scores.shape[1])
    found = np.argpartition(-scores, width - 1, axis=1)[:, :width]
    found = np.sort(found, axis=1)
    values = np.take_along_axis(scores, found, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best = np.take_along_axis(values, order, axis=1)
    return np.where(np.isfinite(best), np.take_along_axis(found, order, axis=1), -1).astype(np.int32), best


def _explored(rows: Int32s, pool: Bools, visits: Visits, *, share: float, seed: int) -> Int32s:
    """Replace a share of the slots by random items of the pool that are not in the slate, as far as there are any."""
    users, slots = visits.users[:, np.newaxis], np.arange(SLATE)
    is_explored = chance(seed, _IS_EXPLORED, visits.hour, users, slots) < share  # [sessions, SLATE]
    drawn = chance(seed, _EXPLORED_ITEM, visits.hour, users, np.arange(pool.shape[1]))  # [sessions, items]
    free = pool.copy()
    queries, places = np.nonzero(rows >= 0)
    free[queries, rows[queries, places]] = False
    found, _ = _best(np.where(free, drawn, -np.inf).astype(np.float32), SLATE)
    # The first slot that explores gets the first item found, and so on.
    number = np.maximum(np.cumsum(is_explored, axis=1) - 1, 0)
    mine = np.take_along_axis(found, np.minimum(number, found.shape[1] - 1), axis=1)
    return np.where(is_explored & (mine >= 0) & (number < found.shape[1]), mine, rows)
