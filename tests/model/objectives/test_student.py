"""What a student is taught, beside the same formulas in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from recall.model.objectives.ranked_queries import RankedQueries
from recall.model.objectives.student import query_distance, score_divergence

QUERIES, CANDIDATES, DIM = 7, 11, 4
Array = npt.NDArray[np.float64]

random = np.random.default_rng(23)
STUDENT = random.normal(size=(QUERIES, DIM)).astype(np.float32)
TEACHER = random.normal(size=(QUERIES, DIM)).astype(np.float32)
ITEMS = random.normal(size=(CANDIDATES, DIM)).astype(np.float32)
WEIGHTS = np.array([1, 0, 2, 0.5, 1, 3, 0.1], np.float32)
LOG_Q = random.normal(size=CANDIDATES).astype(np.float32)
MASKED = random.random((QUERIES, CANDIDATES)) < 0.4
MASKED[:, 0] = False


def softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def divergence(student: Array, *, temperature: float, masked: Array = MASKED) -> float:
    """Hinton et al. (2015): T^2 KL of the softened distributions, in float64, all logits at once."""
    logits = [queries.astype(np.float64) @ ITEMS.T.astype(np.float64) for queries in (TEACHER, student)]
    wanted, own = (softmax(np.where(masked, -np.inf, part / temperature - LOG_Q)) for part in logits)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(wanted > 0, wanted * np.log(wanted / own), 0)
    return float(temperature**2 * np.average(terms.sum(axis=1), weights=WEIGHTS))


def ranked(student: tf.Tensor, items: tf.Tensor, *, masked: Array = MASKED) -> RankedQueries:
    """The first candidate, which no mask hides, is every query's own."""
    return RankedQueries(
        student,
        items,
        own=tf.zeros([QUERIES], tf.int32),
        is_masked=lambda start, stop: tf.constant(masked)[start:stop],
        weights=tf.constant(WEIGHTS / WEIGHTS.sum()),
        log_q=tf.constant(LOG_Q),
    )


def measured(student: Any = STUDENT, *, masked: Array = MASKED, **settings: Any) -> tf.Tensor:
    chosen = {"teacher": tf.constant(TEACHER), "temperature": 2.0, **settings}
    return score_divergence(ranked(tf.constant(student), tf.constant(ITEMS), masked=masked), **chosen)


def test_query_distance_is_the_squared_error_in_units_of_the_teachers_length() -> None:
    expected = (WEIGHTS @ ((STUDENT - TEACHER) ** 2).sum(axis=1)) / (WEIGHTS @ (TEACHER**2).sum(axis=1))
    found = query_distance(tf.constant(STUDENT), tf.constant(TEACHER), weights=tf.constant(WEIGHTS))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_query_distance_of_unit_vectors_is_twice_one_minus_the_cosine() -> None:
    one, other = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (STUDENT, TEACHER))
    found = query_distance(tf.constant(one), tf.constant(other), weights=tf.constant(WEIGHTS))
    assert float(found) == pytest.approx(2 - 2 * np.average((one * other).sum(axis=1), weights=WEIGHTS), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("chunk", [2, 512])
def test_score_divergence_is_that_of_the_softened_softmaxes(temperature: float, chunk: int) -> None:
    found = float(measured(temperature=temperature, chunk=chunk))
    assert found == pytest.approx(divergence(STUDENT, temperature=temperature), rel=1e-4)


def test_the_gradient_of_the_divergence_is_its_slope() -> None:
    student = tf.constant(STUDENT)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = 3.0 * score_divergence(
            ranked(student, tf.constant(ITEMS)), teacher=tf.constant(TEACHER), temperature=2.0, chunk=3
        )
    gradient = tape.gradient(value, student).numpy()
    for place in np.ndindex(STUDENT.shape):
        step = np.zeros(STUDENT.shape)
        step[place] = 1e-5
        sides = [divergence(STUDENT + sign * step, temperature=2.0) for sign in (1, -1)]
        assert gradient[place] == pytest.approx(3 * (sides[0] - sides[1]) / 2e-5, abs=1e-4)


def test_who_scores_as_the_teacher_does_has_nothing_to_learn() -> None:
    assert float(measured(TEACHER)) == pytest.approx(0, abs=1e-6)
    # The softmax does not know a constant that all scores of a query share.
    assert float(measured(TEACHER + 1e-3)) < float(measured(STUDENT))


def test_masked_candidates_have_no_say() -> None:
    only_first = np.ones((QUERIES, CANDIDATES), bool)
    only_first[:, 0] = False
    assert float(measured(masked=only_first)) == pytest.approx(0, abs=1e-6)


def test_the_own_candidate_takes_part_even_where_it_is_masked() -> None:
    everything = np.ones((QUERIES, CANDIDATES), bool)
    assert float(measured(masked=everything)) == pytest.approx(0, abs=1e-6)
    only_own = ranked(tf.constant(STUDENT), tf.constant(ITEMS), masked=everything).is_left_out(0, QUERIES).numpy()
    np.testing.assert_array_equal(only_own, np.arange(CANDIDATES)[np.newaxis] != np.zeros((QUERIES, 1)))


def test_nothing_flows_back_to_the_teacher_and_the_items() -> None:
    student, teacher, items = tf.constant(STUDENT), tf.constant(TEACHER), tf.constant(ITEMS)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([student, teacher, items])
        distance = query_distance(student, teacher, weights=tf.constant(WEIGHTS))
        scores = score_divergence(ranked(student, items), teacher=teacher, temperature=2.0)
    for term in (distance, scores):
        assert np.abs(tape.gradient(term, student)).max() > 0
        assert tape.gradient(term, teacher) is None
        assert tape.gradient(term, items) is None
