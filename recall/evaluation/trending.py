"""Scores items by their clicks, each of less weight the older it is: the baseline of a feed that lives by what is new.

Everybody gets the same list, and the list moves. `DecayedClicks` counts -> `choose_half_life` finds how fast to forget
-> `baselines.PopularityScorer` scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from recall.core.arrays import AnyInts, Float64s, Int64s
from recall.core.ragged import Ragged
from recall.core.times import MS_PER_HOUR
from recall.evaluation import metrics
from recall.evaluation.ranking import EvaluationSet, shared_ranks
from recall.evaluation.rolling import Window

HALF_LIVES_HOURS = (2.0, 4.0, 8.0, 12.0, 24.0, 48.0, 96.0, 168.0, 336.0)
K = 50


class Start(NamedTuple):
    """Hold decayed clicks as of a moment, for counts that go on from there.

    Attributes:
      end_ms: the moment.
      clicks: float64 [items] by half-life in hours.
    """

    end_ms: int
    clicks: Mapping[float, Float64s]


class DecayedClicks:
    """Count clicks as of a moment, each halved in weight with every half-life since its bucket closed.

    sum over buckets of clicks * 2^-((moment - delay - end of the bucket) / half-life), over the buckets that closed
    `delay` before the moment: the rule by which a posterior sees events. The delay takes the same factor from all
    items, and only keeps the numbers near counts.

    Args:
      item: int [entries], item row.
      bucket: int64 [entries], floor(time / length of a bucket).
      clicks: int64 [entries], of the item in the bucket alone.
      bucket_ms: length of a bucket.
      delay_ms: time until a closed bucket becomes known.
      item_count: size of the catalogue.
      start: what came before all entries; moments before it know nothing of it.
    """

    def __init__(
        self,
        item: AnyInts,
        bucket: Int64s,
        clicks: Int64s,
        *,
        bucket_ms: int,
        delay_ms: int,
        item_count: int,
        start: Start | None = None,
    ) -> None:
        chosen = np.flatnonzero(clicks)
        chosen = chosen[np.argsort(bucket[chosen], kind="stable")]
        self._item, self._clicked = item[chosen], clicks[chosen].astype(np.float64)
        self._end_ms = (bucket[chosen] + 1) * bucket_ms  # rising
        self._delay_ms, self._item_count, self._start = delay_ms, item_count, start

    def at(self, moments_ms: Iterable[int], *, half_life_hours: float) -> Iterator[Float64s]:
        """Count as of moments that rise; float64 [items] for each.

        One vector is carried forward: it decays from moment to moment, and takes up the buckets that became known.
        """
        decayed, since_ms, first = np.zeros(self._item_count), None, 0
        if self._start is not None:
            decayed, since_ms = self._start.clicks[half_life_hours], self._start.end_ms
        for known_ms in (moment - self._delay_ms for moment in moments_ms):
            if since_ms is not None:
                decayed = decayed * _weight(known_ms - since_ms, half_life_hours)
            last = int(np.searchsorted(self._end_ms, known_ms, side="right"))
            new = slice(first, last)
            arrived = self._clicked[new] * _weight(known_ms - self._end_ms[new], half_life_hours)
            decayed = decayed + np.bincount(self._item[new], arrived, minlength=self._item_count)
            since_ms, first = known_ms, last
            yield decayed


def _weight(age_ms: Int64s | int, half_life_hours: float) -> Float64s:
    return np.exp2(-np.asarray(age_ms) / (half_life_hours * MS_PER_HOUR))


def choose_half_life(
    decayed: DecayedClicks,
    examples: EvaluationSet,
    cut: Sequence[Window],
    *,
    exclude_seen: bool = True,
    grid: Sequence[float] = HALF_LIVES_HOURS,
) -> float:
    """Choose the half-life of the highest rolling recall@50, the longest of equals.

    Args:
      decayed: clicks of the whole log.
      examples: validation clicks.
      cut: their windows.
      exclude_seen: leave out the items that the user clicked before.
      grid: half-lives to choose from, hours.

    Returns:
      Hours.
    """
    seen = examples.seen.distinct() if exclude_seen else Ragged.empty(len(examples))
    recalls = {}
    for half_life in grid:
        counts = decayed.at([window.moment_ms for window in cut], half_life_hours=half_life)
        ranks = np.empty(len(examples), np.int64)
        for window, scores in zip(cut, counts, strict=True):
            chosen = window.examples
            ranks[chosen] = shared_ranks(scores, examples.targets[chosen], seen=seen[chosen])
        recalls[half_life] = metrics.recall_at(ranks, K) or 0.0
    return max(grid, key=lambda half_life: (recalls[half_life], half_life))
