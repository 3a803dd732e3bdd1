"""Judges held-out clicks by what was known shortly before each of them: rolling evaluation.

A service makes its items again as exposures and clicks come in. `windows` cuts the held-out clicks by the moment that
they are answered from -> `rank_windows` ranks their targets -> `rolling_metrics` summarises. `slices.py` judges the
same clicks by what was known when their period began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from recall.config.evaluation import EvaluationConfig
from recall.core.arrays import AnyInts, Bools, Float64s, Int32s, Int64s
from recall.evaluation import metrics
from recall.evaluation.calibration import Calibration
from recall.evaluation.categories import AskedCategories
from recall.evaluation.ranking import BLOCK_BYTES, EvaluationSet, ScoreBlock, score_blocks
from recall.evaluation.scorers import EvaluationError, Scorer
from recall.evaluation.slices import LIST_LENGTH, by_counts, by_exposures

WARM_UP = (0, 1, 3, 10, 30)
"""Lower bounds of the slices of young items, in clicks."""


class Window(NamedTuple):
    """Hold the clicks between two refreshes.

    Attributes:
      moment_ms: the refresh before them.
      examples: positions of the clicks.
    """

    moment_ms: int
    examples: slice


class Known(Protocol):
    """Give the counts of items that are known at moments."""

    def __call__(self, rows: AnyInts, times_ms: Int64s) -> tuple[Int64s, Int64s]:
        """Return exposures and clicks, int64 [n] each, of item rows int [n] at moments int64 [n]."""


class Published(NamedTuple):
    """Hold when items became candidates.

    Attributes:
      items_ms: int64 [items]; of a target never later than its click.
      times_ms: int64 [examples], when each example clicks.
    """

    items_ms: Int64s
    times_ms: Int64s

    def leave_out_later(self, block: ScoreBlock, place: slice) -> None:
        """Write -inf over the scores of items that come after the click; `place` has the positions of the block."""
        times_ms = self.times_ms[place, np.newaxis]  # [block, 1]
        later = np.flatnonzero(self.items_ms > times_ms.min())  # few, as clicks of a block are near each other
        block.scores[:, later] = np.where(self.items_ms[later] > times_ms, -np.inf, block.scores[:, later])


class Ranked(NamedTuple):
    """Hold what a model answers to each example.

    Attributes:
      ranks: int64 [examples], of the targets.
      lists: int32 [examples, `LIST_LENGTH`] item rows, best first, -1 where empty.
    """

    ranks: Int64s
    lists: Int32s


def windows(times_ms: Int64s, *, refresh_ms: int) -> list[Window]:
    """Cut clicks by the whole multiples of a refresh; only the ones in which a click falls are there.

    Args:
      times_ms: int64 [examples], rising.
      refresh_ms: time between two refreshes; a click is answered from the last one at or before it.

    Raises:
      EvaluationError: the times fall somewhere.
    """
    if (falls := np.flatnonzero(np.diff(times_ms) < 0)).size:
        raise EvaluationError(
            f"rolling evaluation needs examples in order of time; example {falls[0] + 1} is earlier than the one "
            "before it. Sort them by time, as `read_examples` does"
        )
    refreshes, starts = np.unique(times_ms // refresh_ms, return_index=True)
    ends = np.append(starts[1:], len(times_ms))
    return [
        Window(moment_ms, slice(start, end))
        for moment_ms, start, end in zip(
            (refreshes * refresh_ms).tolist(), starts.tolist(), ends[: len(starts)].tolist(), strict=True
        )
    ]


def rank_windows(
    scorer_of: Callable[[Window], Scorer],
    examples: EvaluationSet,
    cut: Sequence[Window],
    *,
    published: Published | None = None,
    calibration: Calibration | None = None,
    exclude_seen: bool = True,
    block_bytes: int = BLOCK_BYTES,
) -> Ranked:
    """Rank the targets of each window, and list the best items, exactly over the whole catalogue.

    Args:
      scorer_of: makes the model's scorer as of the moment of a window, for the window's examples, counted from 0. It
        is called once for each window, in their order.
      examples: all clicks.
      cut: result of `windows` for them.
      published: leaves out the items that come after a click; None: all items are always there.
      calibration: takes up all scores and lists.
      exclude_seen: leave out the items that the user clicked before; the target itself always stays.
      block_bytes: memory for one block of scores.

    Raises:
      EvaluationError: as `ranking.score_blocks`.
    """
    ranked = Ranked(np.empty(len(examples), np.int64), np.full((len(examples), LIST_LENGTH), -1, np.int32))
    for window in cut:
        asked, first = examples.between(window.examples), window.examples.start
        for block in score_blocks(scorer_of(window), asked, exclude_seen=exclude_seen, block_bytes=block_bytes):
            place = slice(first + block.examples.start, first + block.examples.stop)
            if published:
                published.leave_out_later(block, place)
            ranked.ranks[place] = block.ranks()
            ranked.lists[place] = block.best_items(LIST_LENGTH)
            if calibration:
                calibration.add(block, ranked.lists[place], place=place, moment_ms=window.moment_ms)
    return ranked


def rolling_metrics(
    ranked: Ranked,
    cut: Sequence[Window],
    known: Known,
    *,
    targets: Int32s,
    times_ms: Int64s,
    item_count: int,
    config: EvaluationConfig,
    young: Bools | None = None,
    categories: AskedCategories | None = None,
) -> dict[str, Any]:
    """Compute the `rolling` part of a model in metrics.json.

    Args:
      ranked: result of `rank_windows`, or of a model that is the same at every moment.
      cut: result of `windows`.
      known: counts of items as of a moment.
      targets: int32 [examples].
      times_ms: int64 [examples], rising.
      item_count: size of the catalogue.
      config: cut-offs and slices.
      young: bool [items], items that came after the training; None: it is not known which.
      categories: as for `slices.evaluate`.

    Returns:
      {"all": ..., "cold": ..., "by_exposures": [...], "warm_up": [...], "ecology": ...} of the form of
      `slices.evaluate`. Exposures of a target, and whether it is cold, are as of its click. `warm_up` has the young
      targets by their clicks as of the click: how fast an item that no training knows is recalled. In ecology exposures
      are as of the refresh that made the list.
    """
    exposures, clicks = known(targets, times_ms)  # [examples]
    cold = (exposures == 0) & (clicks == 0)
    return {
        "all": metrics.summary(ranked.ranks, config.k),
        "cold": metrics.summary(ranked.ranks[cold], config.k),
        "by_exposures": by_exposures(ranked.ranks, exposures, config),
        **({} if young is None else {"warm_up": _warm_up(ranked.ranks, clicks, young[targets], config)}),
        "ecology": _ecology(ranked.lists, cut, known, item_count=item_count, categories=categories),
    }


def _warm_up(
    ranks: Int64s, clicks: Int64s, is_young: Bools, config: EvaluationConfig
) -> list[dict[str, int | float | None]]:
    """Summarise the ranks of young targets by their clicks as of the click."""
    return by_counts(ranks[is_young], clicks[is_young], WARM_UP, k=config.k)


def _ecology(
    lists: Int32s, cut: Sequence[Window], known: Known, *, item_count: int, categories: AskedCategories | None
) -> dict[str, float | None]:
    """Measure how the lists of all windows together spread over the catalogue, each as of its window's moment."""
    total = np.zeros(item_count, np.int64)
    rows = np.arange(item_count)
    places, cold_shares, novelties = np.zeros(len(cut)), np.zeros(len(cut)), np.zeros(len(cut))
    for number, window in enumerate(cut):
        counts = metrics.recommendation_counts(lists[window.examples], item_count)
        total += counts
        if places_here := int(counts.sum()):
            exposures, clicks = known(rows, np.full(item_count, window.moment_ms))
            places[number] = places_here
            cold_shares[number] = metrics.cold_share(counts, (exposures == 0) & (clicks == 0))
            novelties[number] = metrics.novelty(counts, exposures)
    ecology = {
        **metrics.spread(total, k=LIST_LENGTH),
        f"cold_share@{LIST_LENGTH}": _weighted(cold_shares, places),
        f"novelty@{LIST_LENGTH}": _weighted(novelties, places),
    }
    if categories:
        ecology[f"category_consistency@{LIST_LENGTH}"] = categories.consistency(lists)
    return ecology


def _weighted(values: Float64s, weights: Float64s) -> float | None:
    return float(values @ weights / weights.sum()) if weights.any() else None
