"""Checks the baselines by content against loops over users and items."""

from __future__ import annotations

import numpy as np
import pytest

from recall.core.ragged import Ragged
from recall.evaluation.content_knn import ContentTop3Scorer, content_knn
from recall.evaluation.ranking import EvaluationSet, ranks

ITEMS, DIM = 40, 5


@pytest.fixture(scope="module")
def unit() -> np.ndarray:
    vectors = np.random.default_rng(2).normal(size=(ITEMS, DIM)).astype(np.float32)
    vectors[7] = 0  # without content
    vectors[8] = vectors[9]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


@pytest.fixture(scope="module")
def histories() -> list[list[int]]:
    random = np.random.default_rng(3)
    drawn = [random.integers(0, ITEMS, length).tolist() for length in (5, 30, 1, 2, 3, 12)]
    return [*drawn, [], [7], [4, 4, 4]]


def test_the_score_is_the_cosine_to_the_mean_of_the_history(unit: np.ndarray, histories: list[list[int]]) -> None:
    scores = content_knn(unit, Ragged.from_lists(histories)).scores(0, len(histories))
    for own, history in zip(scores, histories, strict=True):
        mean = np.mean([unit[item].astype(float) for item in history], axis=0) if history else np.zeros(DIM)
        length = np.linalg.norm(mean)
        expected = [vector @ mean / length if length else 0.0 for vector in unit]
        np.testing.assert_allclose(own, expected, atol=1e-5)


def test_the_score_is_the_sum_of_the_three_nearest_clicks(unit: np.ndarray, histories: list[list[int]]) -> None:
    scorer = ContentTop3Scorer(unit, Ragged.from_lists(histories))
    scores = scorer.scores(0, len(histories))
    for own, history in zip(scores, histories, strict=True):
        expected = [
            sum(sorted((float(vector.astype(float) @ unit[item]) for item in history), reverse=True)[:3])
            for vector in unit
        ]
        np.testing.assert_allclose(own, expected, atol=1e-5)
    np.testing.assert_array_equal(scorer.scores(1, 4), scores[1:4])


@pytest.mark.parametrize("baseline", [content_knn, ContentTop3Scorer])
def test_items_that_look_alike_tie_and_no_history_earns_no_rank(unit, histories, baseline) -> None:
    targets = np.array([8, 9, 8, 9, 8, 9, 3, 3, 9], np.int32)
    empty = Ragged.from_lists([[] for _ in histories])
    users = np.arange(len(histories))
    found = ranks(baseline(unit, Ragged.from_lists(histories)), EvaluationSet(users, targets, empty, empty))
    twins = np.where(targets == 8, 9, 8)
    others = ranks(baseline(unit, Ragged.from_lists(histories)), EvaluationSet(users, twins, empty, empty))
    np.testing.assert_array_equal(found[[0, 1, 2, 3, 4, 5, 8]], others[[0, 1, 2, 3, 4, 5, 8]])
    assert found[6] == found[7] == ITEMS  # all score 0, and ties count against the model


@pytest.mark.parametrize("baseline", [content_knn, ContentTop3Scorer])
def test_a_new_item_like_the_clicks_is_ranked_first(baseline) -> None:
    # Two tastes; item 4 is new and like the second.
    unit = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.1, 0.995], [0.05, 0.9987], [-1, 0]], np.float32)
    examples = EvaluationSet(
        np.array(["u"]), np.array([4], np.int32), Ragged.from_lists([[2, 3]]), Ragged.from_lists([[2, 3]])
    )
    assert ranks(baseline(unit, examples.history), examples).tolist() == [1]
