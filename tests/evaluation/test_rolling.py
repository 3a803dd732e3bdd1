"""Rolling evaluation on a small random log, against a loop over every click and every item."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from recall.config.evaluation import EvaluationConfig
from recall.core.ragged import Ragged
from recall.evaluation.ranking import EvaluationSet
from recall.evaluation.rolling import Published, Ranked, Window, rank_windows, rolling_metrics, windows
from recall.evaluation.scorers import EvaluationError, VectorScorer

HOUR = 3_600_000
ITEMS, EXAMPLES = 130, 80
CONFIG = EvaluationConfig(k=(1, 10, 50), exposure_buckets=(0, 1, 3))


def vectors_at(moment_ms: int) -> npt.NDArray[np.float32]:
    """Vectors that a refresh makes: other ones at every moment, whole numbers, so that scores are exact and tie."""
    return np.random.default_rng(moment_ms // HOUR).integers(-3, 4, (ITEMS, 5)).astype(np.float32)


class Case:
    """A log of two days, and clicks on its second day; an event is known after one hour."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        # Rare items have few events or none, so that some are cold at their click and not later.
        self.event_items = np.minimum(rng.geometric(0.04, 500) - 1, ITEMS - 1)
        self.event_ms = rng.integers(0, 48 * HOUR, 500)
        self.event_clicked = rng.random(500) < 0.4
        self.times_ms = np.sort(rng.integers(24 * HOUR, 48 * HOUR, EXAMPLES))
        self.times_ms[5] = self.times_ms[4]
        self.times_ms[0] = 24 * HOUR  # at a refresh
        self.queries = rng.integers(-3, 4, (EXAMPLES, 5)).astype(np.float32)
        self.seen = [sorted(rng.choice(ITEMS, rng.integers(0, 30), replace=False).tolist()) for _ in range(EXAMPLES)]
        lists, users = Ragged.from_lists(self.seen), np.arange(EXAMPLES).astype(str)
        self.examples = EvaluationSet(users, rng.integers(0, ITEMS, EXAMPLES).astype(np.int32), lists, lists)

    def known(self, rows: Any, times_ms: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        counts = np.zeros((2, len(rows)), np.int64)
        for place, (row, now_ms) in enumerate(zip(rows, times_ms, strict=True)):
            events = (self.event_items == row) & (self.event_ms <= now_ms - HOUR)
            counts[:, place] = events.sum(), (events & self.event_clicked).sum()
        return counts[0], counts[1]

    def judge(self, *, refresh_ms: int, **changes: Any) -> tuple[Ranked, dict[str, Any]]:
        cut = windows(self.times_ms, refresh_ms=refresh_ms)

        def scorer_of(window: Window) -> VectorScorer:
            return VectorScorer(self.queries[window.examples], vectors_at(window.moment_ms))

        ranked = rank_windows(scorer_of, self.examples, cut, **changes)
        about: dict[str, Any] = {"targets": self.examples.targets, "times_ms": self.times_ms, "item_count": ITEMS}
        return ranked, rolling_metrics(ranked, cut, self.known, config=CONFIG, **about)

    def scores(self, place: int, *, refresh_ms: int) -> npt.NDArray[np.float32]:
        return vectors_at(int(self.times_ms[place]) // refresh_ms * refresh_ms) @ self.queries[place]


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


@pytest.mark.parametrize("hours", [1, 5])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_ranks_equal_a_loop_over_clicks_and_items(case: Case, hours: int, exclude_seen: bool) -> None:
    ranked, _ = case.judge(refresh_ms=hours * HOUR, exclude_seen=exclude_seen)
    for place, target in enumerate(case.examples.targets.tolist()):
        scores = case.scores(place, refresh_ms=hours * HOUR)
        left_out = {target, *(case.seen[place] if exclude_seen else [])}
        rivals = [item for item in range(ITEMS) if item not in left_out]
        assert ranked.ranks[place] == 1 + sum(bool(scores[item] >= scores[target]) for item in rivals)


def test_items_that_come_after_a_click_are_neither_rivals_nor_listed(case: Case) -> None:
    rng = np.random.default_rng(8)
    items_ms = rng.integers(20 * HOUR, 60 * HOUR, ITEMS)
    items_ms[rng.random(ITEMS) < 0.5] = np.iinfo(np.int64).min
    for target, time_ms in zip(case.examples.targets, case.times_ms, strict=True):
        items_ms[target] = min(items_ms[target], time_ms)  # of a target never after its click
    for block_bytes in (1, 1 << 25):
        published = Published(items_ms, case.times_ms)
        ranked, _ = case.judge(refresh_ms=5 * HOUR, published=published, block_bytes=block_bytes)
        absent = 0
        for place, target in enumerate(case.examples.targets.tolist()):
            scores = case.scores(place, refresh_ms=5 * HOUR)
            there = [item for item in range(ITEMS) if items_ms[item] <= case.times_ms[place]]
            rivals = set(there) - {target, *case.seen[place]}
            assert ranked.ranks[place] == 1 + sum(bool(scores[item] >= scores[target]) for item in rivals)
            assert set(ranked.lists[place].tolist()) <= {-1, *there}
            absent += ITEMS - len(there)
        assert absent > EXAMPLES


def test_slices_are_by_what_was_known_at_the_click(case: Case) -> None:
    ranked, found = case.judge(refresh_ms=5 * HOUR)
    exposures, clicks = case.known(case.examples.targets, case.times_ms)
    assert found["all"]["recall@50"] == pytest.approx(np.mean(ranked.ranks <= 50))
    cold = (exposures == 0) & (clicks == 0)
    assert found["cold"]["examples"] == cold.sum() > 0
    assert found["cold"]["recall@50"] == pytest.approx(np.mean(ranked.ranks[cold] <= 50))
    members = [exposures == 0, (exposures >= 1) & (exposures <= 2), exposures >= 3]
    for bucket, chosen in zip(found["by_exposures"], members, strict=True):
        assert bucket["examples"] == chosen.sum() > 0
        assert bucket["mrr"] == pytest.approx(np.mean(1 / ranked.ranks[chosen]))
    assert [(bucket["from"], bucket["to"]) for bucket in found["by_exposures"]] == [(0, 0), (1, 2), (3, None)]


def test_ecology_judges_each_list_by_the_refresh_that_made_it(case: Case) -> None:
    _, found = case.judge(refresh_ms=5 * HOUR)
    listed: list[tuple[int, int]] = []  # moment and item of each place
    for place in range(EXAMPLES):
        scores = case.scores(place, refresh_ms=5 * HOUR)
        unseen = [item for item in range(ITEMS) if item not in case.seen[place]]
        best = [item for item in unseen if sum(scores[other] >= scores[item] for other in unseen) <= 100]
        listed += [(int(case.times_ms[place]) // (5 * HOUR) * 5 * HOUR, item) for item in best]
    exposures = {moment: case.known(range(ITEMS), [moment] * ITEMS)[0] for moment in {moment for moment, _ in listed}}
    cold = np.mean([exposures[moment][item] == 0 for moment, item in listed])
    shares = [(exposures[moment][item] + 1) / (exposures[moment].sum() + ITEMS) for moment, item in listed]
    assert found["ecology"]["coverage@100"] == pytest.approx(len({item for _, item in listed}) / ITEMS)
    assert found["ecology"]["cold_share@100"] == pytest.approx(cold)
    assert 0 < cold < 1
    assert found["ecology"]["novelty@100"] == pytest.approx(-np.mean(np.log2(shares)))


def test_result_does_not_depend_on_the_size_of_the_blocks_and_is_json(case: Case) -> None:
    _, found = case.judge(refresh_ms=5 * HOUR)
    assert case.judge(refresh_ms=5 * HOUR, block_bytes=1)[1] == found
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_windows_are_the_refreshes_in_which_a_click_falls() -> None:
    times_ms = np.array([0, 1, HOUR - 1, HOUR, 5 * HOUR + 2], np.int64)
    assert windows(times_ms, refresh_ms=HOUR) == [
        (0, slice(0, 3)),
        (HOUR, slice(3, 4)),
        (5 * HOUR, slice(4, 5)),
    ]
    assert windows(times_ms[:0], refresh_ms=HOUR) == []


def test_young_items_warm_up_by_the_clicks_that_are_known_of_them(case: Case) -> None:
    cut, targets = windows(case.times_ms, refresh_ms=HOUR), case.examples.targets
    ranked, _ = case.judge(refresh_ms=HOUR)
    young = np.arange(ITEMS) % 3 > 0
    about: dict[str, Any] = {"targets": targets, "times_ms": case.times_ms, "item_count": ITEMS}
    found = rolling_metrics(ranked, cut, case.known, config=CONFIG, young=young, **about)["warm_up"]
    clicks = [
        sum((case.event_items == target) & (case.event_ms <= now_ms - HOUR) & case.event_clicked)
        for target, now_ms in zip(targets, case.times_ms, strict=True)
    ]
    assert [(part["from"], part["to"]) for part in found] == [(0, 0), (1, 2), (3, 9), (10, 29), (30, None)]
    for part in found:
        inside = [
            rank
            for rank, target, count in zip(ranked.ranks, targets, clicks, strict=True)
            if young[target] and part["from"] <= count <= (10**9 if part["to"] is None else part["to"])
        ]
        assert part["examples"] == len(inside)
        assert part["mrr"] == (pytest.approx(np.mean(1 / np.array(inside))) if inside else None)
    assert sum(part["examples"] > 0 for part in found) >= 3


def test_clicks_that_are_not_in_order_of_time_are_refused() -> None:
    with pytest.raises(EvaluationError, match="example 2 is earlier than the one before it"):
        windows(np.array([3, 4, 2], np.int64), refresh_ms=HOUR)


def test_without_clicks_nothing_is_measured() -> None:
    nothing = Ragged.from_lists([])
    examples = EvaluationSet(np.array([], str), np.array([], np.int32), nothing, nothing)
    ranked = rank_windows(lambda window: VectorScorer(np.ones((0, 2)), np.ones((3, 2))), examples, [])
    none = np.zeros(0, np.int64)
    found = rolling_metrics(
        ranked, [], lambda rows, times_ms: (none, none), targets=examples.targets, times_ms=none, item_count=3,
        config=CONFIG,
    )  # fmt: skip
    assert (found["all"]["examples"], found["all"]["mrr"], found["ecology"]["novelty@100"]) == (0, None, None)
