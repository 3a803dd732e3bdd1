"""Pairs in the right order against a double loop, scikit-learn's AUC, and small cases counted by hand."""

from __future__ import annotations

import json
import math
from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from recall.evaluation.graded import PairCounts, graded_summary, pair_counts, positive_negative_ratio


def counted_one_by_one(scores: list[float], labels: list[float], queries: list[str]) -> PairCounts:
    concordant = discordant = tied = 0
    for one, other in combinations(range(len(scores)), 2):
        if queries[one] != queries[other] or labels[one] == labels[other]:
            continue
        order = (scores[one] - scores[other]) * (labels[one] - labels[other])
        concordant, discordant, tied = concordant + (order > 0), discordant + (order < 0), tied + (order == 0)
    return PairCounts(concordant, discordant, tied)


def test_pairs_of_a_small_ranking_are_those_counted_by_hand() -> None:
    # Labels 2, 1, 0 with scores 5, 7, 7: (2, 1) and (2, 0) are wrong, (1, 0) is tied. The second query is right.
    scores, labels, queries = [5, 7, 7, 0.1, 0.2], [2, 1, 0, 0, 4], ["a", "a", "a", "b", "b"]
    assert pair_counts(scores, labels, queries) == PairCounts(concordant=1, discordant=2, tied=1)
    assert positive_negative_ratio(scores, labels, queries) == 0.5


@pytest.mark.parametrize(("grades", "levels", "queries"), [(5, 4, 6), (2, 1000, 3), (40, 40, 1), (3, 2, 90)])
def test_pairs_agree_with_a_double_loop(grades: int, levels: int, queries: int) -> None:
    rng = np.random.default_rng(grades)
    labels, scores = rng.integers(0, grades, 200).astype(float), rng.integers(0, levels, 200) / 8 - 2
    names = np.array([f"q{number}" for number in rng.integers(0, queries, 200)])
    expected = counted_one_by_one(list(scores), list(labels), list(names))
    assert pair_counts(scores, labels, names) == expected
    assert positive_negative_ratio(scores, labels, names) == expected.concordant / expected.discordant


def test_with_two_grades_and_one_query_it_is_the_odds_of_the_auc() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 3_000)
    scores = rng.normal(size=3_000) + 0.5 * labels  # no ties
    auc = roc_auc_score(labels, scores)
    ratio = positive_negative_ratio(scores, labels, np.zeros(3_000, int))
    assert ratio == pytest.approx(auc / (1 - auc))


def test_turning_the_scores_around_turns_the_ratio_around() -> None:
    rng = np.random.default_rng(4)
    scores, labels, queries = rng.integers(0, 9, 500), rng.integers(0, 5, 500), rng.integers(0, 20, 500)
    one, other = (positive_negative_ratio(sign * scores, labels, queries) for sign in (1, -1))
    assert one is not None
    assert other == pytest.approx(1 / one)


def test_without_a_discordant_pair_it_is_infinite_and_without_any_pair_none() -> None:
    assert positive_negative_ratio([2, 1], [1, 0], [7, 7]) == math.inf
    assert positive_negative_ratio([2, 1], [1, 1], [7, 7]) is None, "no two labels differ"
    assert positive_negative_ratio([2, 1], [1, 0], [7, 8]) is None, "of different queries"
    assert positive_negative_ratio([1, 1], [1, 0], [7, 7]) is None, "tied"
    assert positive_negative_ratio([], [], []) is None


def test_clicks_are_compared_with_other_clicks_of_their_user_by_rank() -> None:
    # Of a, rank 3 has the largest weight: wrong against rank 1, right against rank 9; those two have equal weights.
    users = np.array(["a", "b", "a", "a", "b", "c"])
    ranks, weights = np.array([3, 4, 1, 9, 4, 1]), np.array([2, 1, 1, 1, 3, 9], np.float32)
    expected = {"pnr": 1.0, "pairs": 3, "concordant": 1, "discordant": 1}  # the third pair, of b, has equal ranks
    assert graded_summary(ranks, weights, users) == expected
    assert json.loads(json.dumps(expected, allow_nan=False)) == graded_summary(ranks, weights, users)


def test_clicks_without_a_discordant_pair_have_no_ratio() -> None:
    users = np.array(["a", "a"])
    right = graded_summary(np.array([1, 2]), np.array([2, 1], np.float32), users)
    assert right == {"pnr": None, "pairs": 1, "concordant": 1, "discordant": 0}
    equal = graded_summary(np.array([1, 2]), np.ones(2, np.float32), users)
    assert equal == {"pnr": None, "pairs": 0, "concordant": 0, "discordant": 0}


def test_what_cannot_be_compared_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"expected one score, one label and one query .* 'labels': \(1,\)"):
        pair_counts([1, 2], [1], [1, 1])
    with pytest.raises(ValueError, match=r"scores: 1 of 2 are NaN"):
        pair_counts([1, math.nan], [1, 0], [1, 1])
