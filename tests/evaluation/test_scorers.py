"""Scores from vectors: equal items tie, wherever they stand, and what cannot be scored is refused."""

from __future__ import annotations

import numpy as np
import pytest

from recall.evaluation.scorers import EvaluationError, MultiVectorScorer, VectorScorer, vector_scorer


@pytest.mark.parametrize("examples", [1, 2, 64])
def test_items_with_equal_vectors_tie_wherever_they_stand_in_the_catalogue(examples: int) -> None:
    rng = np.random.default_rng(3)
    vectors = np.tile(rng.standard_normal(64, dtype=np.float32), (1003, 1))
    vectors[:, 0] = 0.0
    vectors[-1, 0] = -0.0  # equal to zero, of other bytes
    vectors[10] = rng.standard_normal(64, dtype=np.float32)
    queries = rng.standard_normal((examples, 64), dtype=np.float32)
    scores = VectorScorer(queries, vectors).scores(0, examples)
    twins = np.delete(scores, 10, axis=1)
    np.testing.assert_array_equal(twins, np.repeat(twins[:, :1], 1002, axis=1))
    np.testing.assert_allclose(scores, queries @ vectors.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_a_finite_vector_names_the_side_that_holds_it(bad: float) -> None:
    good, broken = np.ones((4, 2), np.float32), np.ones((4, 2), np.float32)
    broken[2, 1] = bad
    with pytest.raises(EvaluationError, match=r"query vectors: 1 of 4 hold NaN or infinity, the first is row 2"):
        VectorScorer(broken, good)
    with pytest.raises(EvaluationError, match=r"item vectors: 1 of 4 hold NaN or infinity, the first is row 2"):
        VectorScorer(good, broken)


def test_vectors_of_different_width_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"\(4, 2\), item vectors \(4, 3\)"):
        VectorScorer(np.ones((4, 2), np.float32), np.ones((4, 3), np.float32))


def test_items_with_equal_vectors_tie_for_several_queries_too() -> None:
    rng = np.random.default_rng(3)
    vectors = np.tile(rng.standard_normal(64, dtype=np.float32), (1003, 1))
    vectors[10] = rng.standard_normal(64, dtype=np.float32)
    scores = MultiVectorScorer(rng.standard_normal((2, 4, 64), dtype=np.float32), vectors).scores(0, 2)
    twins = np.delete(scores, 10, axis=1)
    np.testing.assert_array_equal(twins, np.repeat(twins[:, :1], 1002, axis=1))


def test_items_with_equal_vectors_tie_by_several_vectors_too() -> None:
    rng = np.random.default_rng(3)
    several = np.tile(rng.standard_normal((4, 64), dtype=np.float32), (1003, 1, 1))
    scores = vector_scorer(rng.standard_normal((2, 64), dtype=np.float32), several).scores(0, 2)
    np.testing.assert_array_equal(scores, np.repeat(scores[:, :1], 1003, axis=1))


def test_the_scorer_follows_from_the_shape_of_the_queries() -> None:
    rng = np.random.default_rng(5)
    # Small whole numbers, so that inner products are exact.
    queries, vectors = (rng.integers(-2, 3, shape).astype(np.float32) for shape in ((90, 1, 6), (70, 6)))
    assert isinstance(vector_scorer(queries, vectors), MultiVectorScorer)
    one = vector_scorer(queries[:, 0], vectors)
    assert isinstance(one, VectorScorer)
    np.testing.assert_array_equal(one.scores(0, 9), vector_scorer(queries, vectors).scores(0, 9))
    with pytest.raises(EvaluationError, match=r"\(90, 6\); expected \[examples, interests, dim\]"):
        MultiVectorScorer(queries[:, 0], vectors)
    with pytest.raises(EvaluationError, match="expected two matrices of the same width"):
        MultiVectorScorer(queries, vectors[:, :5])
    assert vector_scorer(queries[:0], vectors).scores(0, 0).shape == (0, 70)
