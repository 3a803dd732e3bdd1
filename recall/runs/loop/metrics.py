"""Measures what an arm did to its feed, from the log of the loop and the truth: per day, and in all.

`measures.py` says what each number means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from recall.core.arrays import Bools, Float32s, Float64s, Int64s
from recall.data.datasets.community import sigmoid
from recall.data.datasets.feed import HOUR_MS, Log
from recall.data.datasets.live_community import DAY_MS, LiveCommunity
from recall.evaluation.metrics import coverage, gini

FOUND = 20
"""Exposures from which on a good new item counts as found."""
GOOD_SHARE = 0.2
_USERS_AT_ONCE = 512

Numbers = dict[str, float | None]


class Measured:
    """Measure the log of one arm with one seed.

    Args:
      community: the users and items, and the truth.
      log: exposures of the loop, in order of time.
    """

    def __init__(self, community: LiveCommunity, log: Log) -> None:
        self._community, self._log = community, log
        self._probability = community.probabilities(log.user, log.item)
        self._young = log.time_ms - community.published_ms[log.item] < DAY_MS
        # An item that came on the last day had no time to be found.
        is_new = (community.published_ms >= community.start_ms) & (community.published_ms < community.end_ms - DAY_MS)
        self._new = np.flatnonzero(is_new)
        self._good = _best_share(mean_probabilities(community), self._new)

    def result(self) -> dict[str, Any]:
        """Return {"days": measure -> one number a day, "total": measure -> number}; None where it is undefined."""
        day = (self._log.time_ms - self._community.start_ms) // DAY_MS
        days = [self._of_day(number, day == number) for number in range(self._community.days)]
        total = self._of_exposures(np.ones(len(day), bool), until_ms=self._community.end_ms)
        total |= {"last_day_probability": days[-1]["probability"], **self._way_up()}
        total["good_new_found"] = self._found(self._community.end_ms)
        return {"days": {name: [numbers[name] for numbers in days] for name in days[0]}, "total": total}

    def _of_day(self, number: int, chosen: Bools) -> Numbers:
        end_ms = self._community.start_ms + (number + 1) * DAY_MS
        return {**self._of_exposures(chosen, until_ms=end_ms), "good_new_found": self._found(end_ms)}

    def _of_exposures(self, chosen: Bools, *, until_ms: int) -> Numbers:
        """Measure some exposures against the items that were there until a moment."""
        log, community = self._log, self._community
        there = community.published(until_ms)
        items, clicks = log.item[chosen], log.click[chosen]
        shown = np.bincount(items, minlength=there)
        author = community.truth.author
        authors = np.unique(author[:there])
        by_author = np.bincount(author[items], minlength=len(author))[authors]
        clicked = np.bincount(author[items[clicks]], minlength=len(author))[authors]
        return {
            "exposures": float(len(items)),
            "clicks": float(clicks.sum()),
            "probability": _mean(self._probability[chosen]),
            "ctr": _mean(clicks),
            "clicks_per_user": float(clicks.sum()) / len(community.activity),
            "young_share": _mean(self._young[chosen]),
            "gini_items": gini(shown),
            "gini_authors": gini(by_author),
            "coverage": coverage(shown),
            "authors_clicked": _mean(clicked > 0),
        }

    def _found(self, end_ms: int) -> float | None:
        """Compute the share of the good new items, at least a day old at a moment, that were found by then."""
        old_enough = self._good[self._community.published_ms[self._good] <= end_ms - DAY_MS]
        before = self._log.item[self._log.time_ms < end_ms]
        shown = np.bincount(before, minlength=len(self._community.published_ms))
        return _mean(shown[old_enough] >= FOUND)

    def _way_up(self) -> Numbers:
        """Measure how many new items got exposures, and after how long."""
        published_ms, end_ms = self._community.published_ms[self._new], self._community.end_ms
        numbers: Numbers = {"new_items": float(len(self._new)), "good_new_items": float(len(self._good))}
        for count in (10, 100):
            reached_ms = nth_exposure_ms(self._log, count, items=len(self._community.published_ms))[self._new]
            reached = reached_ms >= 0
            hours = (np.where(reached, reached_ms, end_ms) - published_ms) / HOUR_MS
            numbers[f"new_with_{count}"] = _mean(reached)
            numbers[f"median_hours_{count}"] = median_time(hours, reached)
        return numbers


def mean_probabilities(community: LiveCommunity) -> Float64s:
    """Compute how likely the mean user clicks each item, float64 [items]."""
    users = len(community.activity)
    total = np.zeros(len(community.published_ms))
    for start in range(0, users, _USERS_AT_ONCE):
        rows = np.arange(start, min(start + _USERS_AT_ONCE, users))
        total += sigmoid(community.truth.click_logits(rows)).sum(axis=0, dtype=np.float64)
    return total / users


def nth_exposure_ms(log: Log, count: int, *, items: int) -> Int64s:
    """Find when each item was shown for the n-th time.

    Args:
      log: in order of time.
      count: n, from 1.
      items: number of items.

    Returns:
      int64 [items], Unix milliseconds, -1 where it was shown less often.
    """
    order = np.argsort(log.item, kind="stable")
    item = log.item[order]
    place = np.arange(len(item)) - np.searchsorted(item, item)
    nth = order[place == count - 1]
    found = np.full(items, -1, np.int64)
    found[log.item[nth]] = log.time_ms[nth]
    return found


def median_time(times: Float64s, happened: Bools) -> float | None:
    """Estimate the median time until something happens, when for some it has not happened yet.

    The estimator of Kaplan and Meier (1958): the first time at which at most half of all is still waiting.

    Args:
      times: float64 [n], until it happened, or for how long it was watched.
      happened: bool [n].

    Returns:
      The median; None where more than half may still wait at the end.
    """
    order = np.lexsort((~happened, times))
    at_risk = np.arange(len(times), 0, -1)
    waiting = np.cumprod(1 - happened[order] / at_risk)
    below = np.flatnonzero(waiting <= 0.5 + 1e-9)
    return float(times[order][below[0]]) if len(below) else None


def _best_share(values: Float64s, rows: Int64s) -> Int64s:
    """Choose the rows with the highest values, a fifth of them."""
    best = np.argsort(-values[rows], kind="stable")[: round(GOOD_SHARE * len(rows))]
    return np.sort(rows[best])


def _mean(values: Bools | Float32s | npt.NDArray[np.bool_]) -> float | None:
    return float(np.mean(values, dtype=np.float64)) if len(values) else None
