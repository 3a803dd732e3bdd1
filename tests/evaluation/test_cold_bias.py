"""The cold bias against a slow double loop: what each bias brings on validation, and which one is chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from recall.core.ragged import Ragged
from recall.evaluation.cold_bias import (
    ColdBias,
    Shown,
    choose_cold_bias,
    choose_rolling_cold_bias,
    cold_weights,
    with_cold_bias,
)
from recall.evaluation.ranking import EvaluationSet, ranks
from recall.evaluation.rolling import Published, Window, windows
from recall.evaluation.scorers import VectorScorer

ITEMS, EXAMPLES = 130, 120


class Case:
    """Two thirds of the items are known, and score higher than new ones by and large; targets score well.

    Scores are multiples of 1/64 and weights powers of two, so that ties are the same however one adds up.
    """

    def __init__(self, seed: int = 8) -> None:
        rng = np.random.default_rng(seed)
        self.exposures = rng.choice([0, 5, 15, 75], ITEMS, p=[0.34, 0.1, 0.1, 0.46]).astype(np.int64)
        known = self.exposures > 0
        self.queries = np.c_[rng.integers(-2, 3, (EXAMPLES, 6)), np.ones(EXAMPLES)].astype(np.float32)
        self.items = (np.c_[rng.integers(-2, 3, (ITEMS, 6)), np.where(known, 10, 0)] / 64).astype(np.float32)
        self.seen = [rng.choice(ITEMS, rng.integers(0, 12), replace=False).tolist() for _ in range(EXAMPLES)]
        liked = self.queries @ self.items.T + np.where(known, 0, 0.1) + rng.normal(scale=0.1, size=(EXAMPLES, ITEMS))
        self.targets = np.argsort(-liked, axis=1)[np.arange(EXAMPLES), rng.integers(0, 60, EXAMPLES)].astype(np.int32)
        # Came after the period: new, and no target.
        self.absent = ~known & ~np.isin(np.arange(ITEMS), self.targets)

    @property
    def examples(self) -> EvaluationSet:
        seen = Ragged.from_lists(self.seen)
        return EvaluationSet(np.arange(EXAMPLES), self.targets, seen, seen)

    def choose(self, **changes: Any) -> ColdBias:
        settings = {"exposures": self.exposures, "temperature": 0.08, "tolerance": 0.03, **changes}
        return choose_cold_bias(VectorScorer(self.queries, self.items), self.examples, **settings)

    def slow_hits(
        self, bias: float, *, absent: npt.NDArray[np.bool_] | None = None, exclude_seen: bool = True
    ) -> npt.NDArray[np.bool_]:
        """Which targets are among the best 50 with a bias, one pair at a time."""
        hits = []
        for query, target, seen in zip(self.queries, self.targets.tolist(), self.seen, strict=True):
            scores = [
                float(np.dot(query, item)) + bias / (1 + shown / 5)
                for item, shown in zip(self.items, self.exposures.tolist(), strict=True)
            ]
            left_out = {
                target,
                *(seen if exclude_seen else ()),
                *(np.flatnonzero(absent) if absent is not None else ()),
            }
            ahead = sum(scores[item] >= scores[target] for item in range(ITEMS) if item not in left_out)
            hits.append(ahead < 50)
        return np.array(hits)


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def assert_chosen(case: Case, found: ColdBias, tolerance: float, **settings: Any) -> None:
    biases = [point["bias"] for point in found.curve]
    assert biases[0] < 0 < biases[-1]
    assert 0 in biases
    assert biases == sorted(set(biases))
    hits = [case.slow_hits(bias, **settings) for bias in biases]
    cold = case.exposures[case.targets] == 0
    assert [point["recall@50"] for point in found.curve] == pytest.approx([hit.mean() for hit in hits])
    assert [point["cold_recall@50"] for point in found.curve] == pytest.approx([hit[cold].mean() for hit in hits])
    best = max(hit.mean() for hit in hits)
    within = [bias for bias, hit in zip(biases, hits, strict=True) if hit.mean() >= (1 - tolerance) * best]
    # Targets are bought as cheaply as can be: the most cold ones, then the most of all, then the smallest bias.
    brought = {bias: (hit[cold].sum(), hit.sum()) for bias, hit in zip(biases, hits, strict=True) if bias in within}
    best_within = max(brought[bias] for bias in within if bias >= 0)
    assert found.bias == min(bias for bias in within if bias >= 0 and brought[bias] == best_within)


@pytest.mark.parametrize("tolerance", [0.0, 0.03, 0.2])
def test_choice_recalls_most_new_items_of_the_biases_within_the_tolerance(case: Case, tolerance: float) -> None:
    assert_chosen(case, case.choose(tolerance=tolerance), tolerance)


def test_more_tolerance_never_gives_new_items_less_and_here_gives_them_more(case: Case) -> None:
    biases = [case.choose(tolerance=tolerance).bias for tolerance in (0.0, 0.03, 0.2, 0.99)]
    assert biases == sorted(biases)
    assert len(set(biases)) >= 3
    everything = case.choose(tolerance=0.99)
    most = max(point["cold_recall@50"] for point in everything.curve)
    assert {point["bias"]: point["cold_recall@50"] for point in everything.curve}[everything.bias] == most


def test_items_that_came_later_are_no_candidates(case: Case) -> None:
    assert case.absent.sum() >= 5
    found = case.choose(absent=case.absent)
    assert_chosen(case, found, 0.03, absent=case.absent)
    assert found.curve != case.choose().curve


def test_biases_are_tried_in_multiples_of_the_temperature(case: Case) -> None:
    once, twice = (case.choose(temperature=temperature) for temperature in (0.08, 0.16))
    assert [point["bias"] for point in twice.curve] == pytest.approx([2 * point["bias"] for point in once.curve])


def test_seen_items_compete_when_they_are_not_excluded(case: Case) -> None:
    found = case.choose(exclude_seen=False)
    assert_chosen(case, found, 0.03, exclude_seen=False)
    assert found.curve != case.choose().curve


def test_choice_does_not_depend_on_the_size_of_the_blocks(case: Case) -> None:
    assert case.choose(block_bytes=1) == case.choose()
    assert case.choose(block_bytes=1, absent=case.absent) == case.choose(absent=case.absent)


def test_without_a_cold_target_there_is_nothing_to_choose_by(case: Case) -> None:
    assert case.choose(exposures=np.maximum(case.exposures, 1)) == ColdBias(0.0)


def equal_scores(*, items: int, cold: int) -> ColdBias:
    """The choice for a model that cannot tell items apart; half of the clicks are on new ones."""
    nothing = Ragged.from_lists([[]] * 10)
    targets = np.repeat([0, items - 1], 5).astype(np.int32)
    exposures = np.where(np.arange(items) < cold, 0, 20)
    scorer = VectorScorer(np.ones((10, 1), np.float32), np.ones((items, 1), np.float32))
    examples = EvaluationSet(np.arange(10), targets, nothing, nothing)
    return choose_cold_bias(scorer, examples, exposures=exposures, temperature=0.08, tolerance=0.01)


def test_ties_count_against_the_target_at_every_bias() -> None:
    found = equal_scores(items=100, cold=40)
    # Without a bias all 100 tie. Above 0 the 40 new ones come first and the others tie on ranks 41 to 100; below it the
    # 60 known ones tie on ranks 1 to 60.
    is_above = [point["bias"] > 0 for point in found.curve]
    assert [point["recall@50"] for point in found.curve] == [0.5 if above else 0.0 for above in is_above]
    assert [point["cold_recall@50"] for point in found.curve] == [1.0 if above else 0.0 for above in is_above]
    assert found.bias == min(point["bias"] for point in found.curve if point["bias"] > 0), "more would bring no more"


@pytest.mark.parametrize(("items", "cold"), [(200, 60), (50, 20)])
def test_bias_that_no_hit_depends_on_is_left_at_0(items: int, cold: int) -> None:
    # 60 new items tie beyond a list of 50, and in a catalogue of 50 everything is listed.
    found = equal_scores(items=items, cold=cold)
    assert len({point["recall@50"] for point in found.curve}) == 1
    assert found.bias == 0


def test_weight_is_1_without_exposures_and_half_at_five() -> None:
    weights = cold_weights(np.array([0, 5, 100]))
    assert weights.dtype == np.float32
    assert weights.tolist() == pytest.approx([1, 0.5, 1 / 21])


def test_vectors_with_the_bias_rank_as_the_curve_says(case: Case) -> None:
    for point in case.choose().curve:
        vectors = with_cold_bias(case.items, case.exposures, point["bias"])
        found = ranks(VectorScorer(case.queries, vectors), case.examples) <= 50
        assert found.mean() == pytest.approx(point["recall@50"])


def test_bias_changes_the_last_dimension_of_a_copy(case: Case) -> None:
    before = case.items.copy()
    vectors = with_cold_bias(case.items, case.exposures, -0.25)
    np.testing.assert_array_equal(case.items, before)
    np.testing.assert_array_equal(vectors[:, :-1], before[:, :-1])
    assert vectors.dtype == np.float32
    new = case.exposures == 0
    np.testing.assert_array_equal(vectors[new, -1], before[new, -1] - 0.25)
    np.testing.assert_array_equal(with_cold_bias(case.items, case.exposures, 0.0), before)


def crowded() -> tuple[VectorScorer, npt.NDArray[np.int64], EvaluationSet]:
    """A hundred new items stand above the one that is clicked; any bias below -0.1 would bring it to the top."""
    scores = np.array([1.0] * 100 + [0.9, -1.0], np.float32)
    items = np.c_[scores, np.zeros(102, np.float32)]
    nothing = Ragged.from_lists([[]] * 20)
    targets = np.array([100] * 19 + [101], np.int32)  # the last is new, so that there is something to choose by
    scorer = VectorScorer(np.ones((20, 2), np.float32), items)
    return scorer, np.array([0] * 100 + [1000, 0]), EvaluationSet(np.arange(20), targets, nothing, nothing)


def test_the_frozen_choice_never_shows_fewer_new_items_than_the_model_itself() -> None:
    scorer, exposures, examples = crowded()
    chosen = choose_cold_bias(scorer, examples, exposures=exposures, temperature=1.0, tolerance=0.01)
    recalls = {point["bias"]: point["recall@50"] for point in chosen.curve}
    assert recalls[0.0] == 0
    assert max(recalls.values()) == pytest.approx(0.95)
    assert chosen.bias == 0


# As of the refresh before each click


def rolling(case: Case, *, published: Published | None = None, **changes: Any) -> ColdBias:
    """Choose with clicks two to the minute, refreshed every ten; later refreshes know of 5 exposures more."""
    times_ms = np.arange(EXAMPLES) * 30_000

    def as_of(window: Window) -> Shown:
        exposures = exposures_at(case, window.moment_ms)
        return Shown(VectorScorer(case.queries[window.examples], case.items), exposures)

    cut = windows(times_ms, refresh_ms=600_000)
    assert len(cut) == 6
    settings = {"temperature": 0.08, "tolerance": 0.03, "published": published, **changes}
    return choose_rolling_cold_bias(as_of, case.examples, cut, **settings)


def exposures_at(case: Case, moment_ms: int) -> npt.NDArray[np.int64]:
    """Half of the items without exposures have 5 after half an hour; all numbers stay powers of two in the weights."""
    shown = (np.arange(ITEMS) % 2 == 0) & (case.exposures == 0) & (moment_ms >= 1_800_000)
    return np.where(shown, 5, case.exposures)


def test_rolling_choice_asks_every_click_as_of_its_refresh(case: Case) -> None:
    # Items 100 and above appear in the last half hour, but for targets.
    later = (np.arange(ITEMS) >= 100) & ~np.isin(np.arange(ITEMS), case.targets)
    assert later.any()
    published = Published(np.where(later, 1_800_000, 0), np.arange(EXAMPLES) * 30_000)
    early = np.arange(EXAMPLES) < 60
    cold = np.where(early, case.exposures[case.targets] == 0, exposures_at(case, 1_800_000)[case.targets] == 0)
    assert cold.sum() < (case.exposures[case.targets] == 0).sum()
    found, changed = rolling(case, published=published), Case()
    changed.exposures = exposures_at(case, 1_800_000)
    for point in found.curve:
        first, second = case.slow_hits(point["bias"], absent=later), changed.slow_hits(point["bias"])
        hits = np.where(early, first, second)
        assert point["recall@50"] == pytest.approx(hits.mean())
        assert point["cold_recall@50"] == pytest.approx(hits[cold].mean())
    best = max(point["recall@50"] for point in found.curve)
    within = [point for point in found.curve if point["recall@50"] >= 0.97 * best]
    chosen = next(point for point in within if point["bias"] == found.bias)
    assert chosen["cold_recall@50"] == max(point["cold_recall@50"] for point in within)


def test_rolling_choice_of_one_refresh_is_the_frozen_one(case: Case) -> None:
    def as_of(window: Window) -> Shown:
        return Shown(VectorScorer(case.queries, case.items), case.exposures)

    cut, settings = [Window(0, slice(0, EXAMPLES))], {"temperature": 0.08, "tolerance": 0.03, "absent": case.absent}
    found = choose_rolling_cold_bias(as_of, case.examples, cut, **settings)
    assert found.bias > 0
    assert found == case.choose(absent=case.absent)


def test_rolling_choice_holds_new_items_back_where_they_cost_more_than_the_tolerance() -> None:
    scorer, exposures, examples = crowded()

    def as_of(window: Window) -> Shown:
        return Shown(scorer, exposures)

    cut = [Window(0, slice(0, len(examples)))]
    chosen = choose_rolling_cold_bias(as_of, examples, cut, temperature=1.0, tolerance=0.01)
    assert chosen.bias < -0.1
    assert {point["bias"]: point["recall@50"] for point in chosen.curve}[chosen.bias] == pytest.approx(0.95)


@pytest.mark.parametrize(("tolerance", "holds_back"), [(0.05, False), (0.01, True)])
def test_new_items_are_not_held_back_for_less_than_the_tolerance(tolerance: float, holds_back: bool) -> None:
    # As `crowded`, beside 30 clicks on a known item that stands above all; nobody recalls the last, new one.
    scores = np.array([1.0] * 100 + [0.9, 2.0, -1.0], np.float32)
    scorer = VectorScorer(np.ones((32, 2), np.float32), np.c_[scores, np.zeros(103, np.float32)])
    exposures = np.array([0] * 100 + [1000, 1000, 0])
    nothing = Ragged.from_lists([[]] * 32)
    examples = EvaluationSet(np.arange(32), np.array([101] * 30 + [100, 102], np.int32), nothing, nothing)
    chosen = choose_rolling_cold_bias(
        lambda window: Shown(scorer, exposures), examples, [Window(0, slice(0, 32))], temperature=1.0,
        tolerance=tolerance,
    )  # fmt: skip
    assert (chosen.bias < 0) == holds_back
    assert holds_back or chosen.bias == 0
