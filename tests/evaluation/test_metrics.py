"""Ranking and ecology metrics against hand-computed examples, scikit-learn, and the textbook's formulas."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from recall.evaluation import metrics


def counts(*values: int) -> metrics.Int64s:
    return np.array(values, np.int64)


RANKS = counts(1, 3, 7)


def test_recall_is_the_share_of_ranks_within_k() -> None:
    assert metrics.recall_at(RANKS, 1) == pytest.approx(1 / 3)
    assert metrics.recall_at(RANKS, 3) == pytest.approx(2 / 3)
    assert metrics.recall_at(RANKS, 6) == pytest.approx(2 / 3)
    assert metrics.recall_at(RANKS, 7) == 1.0


def test_ndcg_discounts_by_the_logarithm_of_the_place() -> None:
    # Places 1, 3 and 7 gain 1 / log2(2) = 1, 1 / log2(4) = 0.5 and 1 / log2(8) = 1/3, the last from k = 7 on.
    assert metrics.ndcg_at(RANKS, 5) == pytest.approx(1.5 / 3)
    assert metrics.ndcg_at(RANKS, 7) == pytest.approx((1.5 + 1 / 3) / 3)


def test_mrr_looks_at_the_whole_ranking() -> None:
    assert metrics.mrr(counts(1, 4, 1000)) == pytest.approx((1 + 0.25 + 0.001) / 3)


def test_values_of_examples_average_to_the_metric() -> None:
    assert metrics.example_values("recall@3", RANKS).tolist() == [1, 1, 0]
    assert metrics.example_values("hit_rate@7", RANKS).tolist() == [1, 1, 1]
    assert metrics.example_values("ndcg@5", RANKS) == pytest.approx([1, 0.5, 0])
    assert metrics.example_values("mrr", RANKS) == pytest.approx([1, 1 / 3, 1 / 7])
    for name, value in metrics.summary(RANKS, (1, 3, 5)).items():
        if name != "examples":
            assert metrics.example_values(name, RANKS).mean() == pytest.approx(value), name


def test_chance_is_the_mean_over_all_places() -> None:
    assert metrics.chance("recall@50", 200) == 0.25
    assert metrics.chance("recall@50", 20) == 1.0
    # Places 1 and 2 of four: (1 + 1 / log2(3)) / 4
    assert metrics.chance("ndcg@2", 4) == pytest.approx((1 + 0.63093) / 4, abs=1e-5)
    assert metrics.chance("mrr", 2) == pytest.approx((1 + 1 / 2) / 2)
    assert np.isnan(metrics.chance("recall@50", 0))


@pytest.mark.parametrize("name", ["recall", "recall@0", "precision@5", "mrr@10", "ndcg@-1", ""])
def test_what_is_no_metric_is_refused_with_examples_of_what_is(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected recall@K, hit_rate@K or ndcg@K, e\.g\. recall@50, or mrr"):
        metrics.example_values(name, RANKS)


@pytest.mark.parametrize("k", [1, 5, 10, 30])
def test_ndcg_agrees_with_scikit_learn_on_one_relevant_item(k: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(30.0), (200, 1)), axis=1)  # no ties
    targets = rng.integers(0, 30, 200)
    relevance = np.eye(30)[targets]
    ranks = 1 + (scores > scores[np.arange(200), targets][:, None]).sum(axis=1)
    assert metrics.ndcg_at(ranks, k) == pytest.approx(ndcg_score(relevance, scores, k=k))


def test_summary_names_every_metric_and_gives_recall_both_names() -> None:
    result = metrics.summary(RANKS, (2, 5))
    assert result == {
        "examples": 3,
        "recall@2": pytest.approx(1 / 3),
        "hit_rate@2": pytest.approx(1 / 3),
        "ndcg@2": pytest.approx(1 / 3),
        "recall@5": pytest.approx(2 / 3),
        "hit_rate@5": pytest.approx(2 / 3),
        "ndcg@5": pytest.approx(1.5 / 3),
        "mrr": pytest.approx((1 + 1 / 3 + 1 / 7) / 3),
    }


def test_summary_of_nothing_is_null_and_not_zero() -> None:
    result = json.loads(json.dumps(metrics.summary(counts(), (10,))))
    assert result == {"examples": 0, "recall@10": None, "hit_rate@10": None, "ndcg@10": None, "mrr": None}


def test_empty_slots_are_not_counted_as_recommendations() -> None:
    lists = np.array([[2, 0, -1], [2, -1, -1]], np.int32)
    assert metrics.recommendation_counts(lists, 4).tolist() == [1, 0, 2, 0]


def test_coverage_counts_items_recommended_at_least_once() -> None:
    assert metrics.coverage(counts(5, 0, 1, 0)) == 0.5


def test_gini_is_zero_when_all_items_are_recommended_equally_often() -> None:
    assert metrics.gini(counts(*[7] * 50)) == pytest.approx(0.0)


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_gini_approaches_one_when_one_item_takes_everything(n: int) -> None:
    values = np.zeros(n, np.int64)
    values[n // 2] = 123
    assert metrics.gini(values) == pytest.approx((n - 1) / n)


def test_gini_is_half_the_relative_mean_difference() -> None:
    values = np.random.default_rng(1).poisson(2.0, 60)
    differences = np.abs(values[:, None] - values[None, :])
    assert metrics.gini(values) == pytest.approx(differences.mean() / (2 * values.mean()))


def test_hub_share_is_what_the_ten_most_frequent_items_hold() -> None:
    assert metrics.hub_share(counts(*range(1, 21))) == sum(range(11, 21)) / sum(range(1, 21))
    assert metrics.hub_share(counts(3, 0, 1)) == 1.0  # ten hold all where there are fewer


def test_the_skew_of_the_k_occurrence_tells_hubs_from_an_even_spread() -> None:
    assert metrics.k_occurrence_skew(counts(4, 4, 4)) == 0.0
    assert metrics.k_occurrence_skew(counts(0, 1, 2)) == pytest.approx(0.0)
    # One of n items takes everything: a Bernoulli variable of 1/n, whose skewness is (n - 2) / sqrt(n - 1).
    assert metrics.k_occurrence_skew(counts(*[0] * 9, 70)) == pytest.approx(8 / 3)


def test_cold_share_is_taken_of_the_filled_slots() -> None:
    assert metrics.cold_share(counts(6, 1, 1), np.array([False, True, True])) == 0.25


def test_novelty_is_the_mean_surprise_in_bits() -> None:
    # exposures + 1 = 8, 4, 4 of 13 + 3 = 16: p = 1/2, 1/4, 1/4, so 1, 2 and 2 bits.
    assert metrics.novelty(counts(3, 1, 0), counts(7, 3, 3)) == pytest.approx((3 * 1 + 1 * 2) / 4)


def test_novelty_of_a_never_exposed_item_is_finite_and_the_highest() -> None:
    exposures = counts(0, 1, 1000)
    shown_one_by_one = [metrics.novelty(np.eye(3, dtype=np.int64)[item], exposures) for item in range(3)]
    assert all(bits is not None and math.isfinite(bits) for bits in shown_one_by_one)
    assert shown_one_by_one == sorted(shown_one_by_one, reverse=True)  # type: ignore[type-var]


def test_ecology_of_no_recommendations_is_null_where_it_is_undefined() -> None:
    result = metrics.ecology(counts(0, 0), exposures=counts(1, 2), cold=np.array([False, False]), k=100)
    assert result.pop("coverage@100") == 0.0
    assert result == dict.fromkeys(
        ["gini@100", "hub_share_10@100", "k_occurrence_skew@100", "cold_share@100", "novelty@100"]
    )
