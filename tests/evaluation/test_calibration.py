"""Scores and places by exposures on a small random rolling evaluation, against a loop over every click and item."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from recall.core.ragged import Ragged
from recall.evaluation.calibration import Calibration
from recall.evaluation.ranking import EvaluationSet
from recall.evaluation.rolling import Published, Window, rank_windows, windows
from recall.evaluation.scorers import VectorScorer

HOUR = 3_600_000
ITEMS, EXAMPLES = 120, 60
LOWER = (0, 1, 10)
BUCKETS = ((0, 0), (1, 9), (10, None))


def exposures_at(moment_ms: int) -> npt.NDArray[np.int64]:
    """Items get an exposure an hour from the hour of their number on; every third item has none for ever."""
    shown = np.maximum(moment_ms // HOUR - np.arange(ITEMS) // 4, 0)
    return np.where(np.arange(ITEMS) % 3 == 0, 0, shown)


class Case:
    """Clicks of ten hours; later items are no candidates at first, and users have seen some items."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.times_ms = np.sort(rng.integers(10 * HOUR, 20 * HOUR, EXAMPLES))
        self.vectors = rng.normal(size=(ITEMS, 4)).astype(np.float32)
        self.queries = rng.normal(size=(EXAMPLES, 4)).astype(np.float32)
        self.published_ms = np.where(np.arange(ITEMS) >= 100, 15 * HOUR, 0)
        self.targets = rng.integers(0, 100, EXAMPLES).astype(np.int32)
        self.seen = [rng.choice(ITEMS, rng.integers(0, 12), replace=False).tolist() for _ in range(EXAMPLES)]
        lists = Ragged.from_lists(self.seen)
        self.examples = EvaluationSet(np.arange(EXAMPLES), self.targets, lists, lists)

    def measure(self, items: npt.NDArray[np.float32], **changes: Any) -> dict[str, Any]:
        own = [int(exposures_at(int(time))[row]) for time, row in zip(self.times_ms, self.targets, strict=True)]
        calibration = Calibration(exposures_at, np.array(own), LOWER)

        def scorer_of(window: Window) -> VectorScorer:
            return VectorScorer(self.queries[window.examples], items)

        published = Published(self.published_ms, self.times_ms)
        cut = windows(self.times_ms, refresh_ms=2 * HOUR)
        rank_windows(scorer_of, self.examples, cut, published=published, calibration=calibration, **changes)
        return calibration.summary()


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def test_scores_and_places_equal_a_loop_over_clicks_and_items(case: Case) -> None:
    clicked, random, places = ([[] for _ in BUCKETS] for _ in range(3))
    cuts = []
    for place, target in enumerate(case.targets.tolist()):
        now_ms = int(case.times_ms[place])
        scores = case.vectors.astype(np.float64) @ case.queries[place]
        there = (case.published_ms <= now_ms) & ~np.isin(np.arange(ITEMS), case.seen[place])
        z = (scores - scores[there].mean()) / scores[there].std()
        as_of_refresh = np.digitize(exposures_at(now_ms // (2 * HOUR) * 2 * HOUR), LOWER) - 1
        clicked[np.digitize(exposures_at(now_ms)[target], LOWER) - 1].append(z[target])
        ranking = [item for item in np.argsort(-scores) if there[item]]
        cuts.append(z[ranking[49]])
        for item in np.flatnonzero(there):
            random[as_of_refresh[item]].append(z[item])
        for item in ranking[:50]:
            places[as_of_refresh[item]].append(item)
    found = case.measure(case.vectors)
    assert found["cut@50"] == pytest.approx(np.mean(cuts), rel=1e-4)
    assert [(part["from"], part["to"]) for part in found["by_exposures"]] == list(BUCKETS)
    for index, part in enumerate(found["by_exposures"]):
        assert part["clicks"] == len(clicked[index]) > 0
        assert part["share_of_clicks"] == pytest.approx(len(clicked[index]) / EXAMPLES)
        assert part["share_of_places@50"] == pytest.approx(len(places[index]) / (50 * EXAMPLES))
        assert part["share_of_candidates"] == pytest.approx(len(random[index]) / sum(map(len, random)))
        assert part["clicked"] == pytest.approx(np.mean(clicked[index]), rel=1e-3, abs=1e-4)
        assert part["clicked_deviation"] == pytest.approx(np.std(clicked[index]), rel=1e-3, abs=1e-4)
        assert part["random"] == pytest.approx(np.mean(random[index]), rel=1e-3, abs=1e-4)


def test_neither_the_scale_of_the_scores_nor_the_size_of_blocks_changes_anything(case: Case) -> None:
    expected = case.measure(case.vectors)
    for found in (case.measure(8 * case.vectors), case.measure(case.vectors, block_bytes=1)):
        assert found["cut@50"] == pytest.approx(expected["cut@50"], rel=1e-4)
        for part, other in zip(found["by_exposures"], expected["by_exposures"], strict=True):
            for key in ("clicked", "random", "clicked_deviation", "share_of_places@50"):
                assert part[key] == pytest.approx(other[key], rel=1e-3, abs=1e-4)


def test_equal_scores_have_no_distance(case: Case) -> None:
    found = case.measure(np.ones_like(case.vectors))
    assert [(part["clicked"], part["random"]) for part in found["by_exposures"]] == [(0, 0)] * 3


def test_a_bucket_without_items_has_no_numbers() -> None:
    found = Calibration(exposures_at, np.empty(0, np.int64), LOWER).summary()
    assert found["cut@50"] is None
    assert found["by_exposures"][1] == {
        "from": 1, "to": 9, "clicks": 0, "share_of_clicks": None, "share_of_places@50": None,
        "share_of_candidates": None, "clicked": None, "random": None, "clicked_deviation": None,
    }  # fmt: skip
