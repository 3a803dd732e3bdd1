"""Objectives of several interests: which of them is trained by what, and that two of them serve two tastes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from recall.config.model import InterestsConfig, ModelConfig
from recall.core.ragged import Ragged
from recall.evaluation.ranking import EvaluationSet, ranks
from recall.evaluation.scorers import vector_scorer
from recall.model.objectives.interest_losses import best_interest, best_interest_full_softmax, best_interest_softmax
from recall.model.objectives.softmax import full_softmax, sampled_softmax
from recall.model.towers.query import UserTower

EXAMPLES, INTERESTS, DIM = 11, 3, 4


class Case(NamedTuple):
    """A batch with accidental hits and four more negatives."""

    queries: tf.Tensor  # [examples, interests, dim]
    candidates: tf.Tensor  # [examples + 4, dim]
    items: tf.Tensor  # [examples + 4]
    log_q: tf.Tensor  # [examples + 4]
    weights: tf.Tensor  # [examples]

    def loss(self, **settings: int) -> tf.Tensor:
        return best_interest_softmax(
            self.queries,
            self.candidates,
            query_items=self.items[:EXAMPLES],
            candidate_items=self.items,
            log_q=self.log_q,
            weights=self.weights,
            **settings,
        )


@pytest.fixture
def case() -> Case:
    random = np.random.default_rng(2)
    return Case(
        queries=tf.constant(random.normal(size=(EXAMPLES, INTERESTS, DIM)), tf.float32),
        candidates=tf.constant(random.normal(size=(EXAMPLES + 4, DIM)), tf.float32),
        items=tf.constant(random.integers(7, size=EXAMPLES + 4)),
        log_q=tf.constant(random.normal(size=EXAMPLES + 4), tf.float32),
        weights=tf.constant(random.uniform(size=EXAMPLES), tf.float32),
    )


def test_the_interest_that_scores_the_positive_highest_is_chosen_and_alone_trained() -> None:
    # Against (1, 0) the scores are .6, .8, -1; against (0, 1) they are .8, .6, 0.
    interests = tf.constant([[[0.6, 0.8], [0.8, 0.6], [-1.0, 0.0]]] * 2)
    positives = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(interests)
        chosen = best_interest(interests, positives)
        loss = tf.reduce_sum(chosen * [[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(chosen, [[0.8, 0.6], [0.6, 0.8]])
    np.testing.assert_allclose(
        tape.gradient(loss, interests), [[[0, 0], [1, 2], [0, 0]], [[3, 4], [0, 0], [0, 0]]]
    )  # fmt: skip


def plain_loss(case: Case) -> tf.Tensor:
    """The definition, example by example, with the gradient that TensorFlow finds by itself."""
    losses = []
    for example in range(EXAMPLES):
        allowed = [c for c in range(EXAMPLES + 4) if c == example or case.items[c] != case.items[example]]
        logits = tf.stack(
            [
                tf.reduce_max(
                    [tf.tensordot(query, case.candidates[c], 1) for query in tf.unstack(case.queries[example])]
                )
                - case.log_q[c]
                for c in allowed
            ]
        )
        losses.append(tf.reduce_logsumexp(logits) - logits[allowed.index(example)])
    return tf.reduce_sum(tf.stack(losses) * case.weights) / tf.reduce_sum(case.weights)


@pytest.mark.parametrize("chunk", [1, 12, 512])
def test_every_candidate_is_scored_by_its_best_interest(case: Case, chunk: int) -> None:
    with tf.GradientTape() as tape:
        tape.watch([case.queries, case.candidates])
        loss = case.loss(chunk=chunk)
    found = tape.gradient(loss, [case.queries, case.candidates])
    with tf.GradientTape() as tape:
        tape.watch([case.queries, case.candidates])
        expected_loss = plain_loss(case)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-5)
    for one, other in zip(found, tape.gradient(expected_loss, [case.queries, case.candidates]), strict=True):
        np.testing.assert_allclose(one, tf.convert_to_tensor(other), rtol=1e-4, atol=1e-6)


def test_one_interest_has_the_sampled_softmax(case: Case) -> None:
    one = case._replace(queries=case.queries[:, :1])
    expected = sampled_softmax(
        case.queries[:, 0],
        case.candidates,
        query_items=case.items[:EXAMPLES],
        candidate_items=case.items,
        log_q=case.log_q,
        weights=case.weights,
    )
    assert float(one.loss()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("chunk", [1, 12, 512])
def test_the_whole_catalogue_is_scored_by_the_best_interests_too(case: Case, chunk: int) -> None:
    random = np.random.default_rng(4)
    targets, pool_sizes = random.integers(13, size=EXAMPLES), random.integers(12, size=EXAMPLES)
    assert (targets >= pool_sizes).any(), "a target takes part that the pool does not hold yet"
    inputs = [case.queries, case.candidates]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        settings = {"targets": tf.constant(targets, tf.int32), "pool_sizes": tf.constant(pool_sizes, tf.int32)}
        found = best_interest_full_softmax(*inputs, **settings, weights=case.weights, chunk=chunk)
        losses = []
        for query, target, size in zip(tf.unstack(case.queries), targets, pool_sizes, strict=True):
            taking_part = sorted({*range(size), target})
            scores = tf.reduce_max(tf.matmul(query, tf.gather(case.candidates, taking_part), transpose_b=True), axis=0)
            losses.append(tf.reduce_logsumexp(scores) - scores[taking_part.index(target)])
        expected = tf.reduce_sum(tf.stack(losses) * case.weights) / tf.reduce_sum(case.weights)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    for one, other in zip(tape.gradient(found, inputs), tape.gradient(expected, inputs), strict=True):
        np.testing.assert_allclose(one, tf.convert_to_tensor(other), rtol=1e-4, atol=1e-6)
    alone = best_interest_full_softmax(case.queries[:, :1], case.candidates, **settings, weights=case.weights)
    one_query = full_softmax(case.queries[:, 0], case.candidates, **settings, weights=case.weights)
    assert float(alone) == pytest.approx(float(one_query), rel=1e-5)


def test_of_interests_that_score_alike_one_is_trained(case: Case) -> None:
    twins = case._replace(queries=tf.repeat(case.queries[:, :1], 2, axis=1))
    with tf.GradientTape() as tape:
        tape.watch(twins.queries)
        loss = twins.loss()
    gradient = tape.gradient(loss, twins.queries)
    assert np.abs(gradient[:, 0]).max() > 0
    np.testing.assert_array_equal(gradient[:, 1], np.zeros((EXAMPLES, DIM)))


# What it is good for

LONGEST = 6


def opposite_tastes(users: int, *, seed: int) -> tuple[tf.Tensor, npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Forty items in eight groups around a circle, and users who like two groups on opposite sides of it.

    One vector of two dimensions cannot point both ways.

    Returns:
      float32 [40, 2] item vectors, int32 [users, 6] clicked items, three of either taste in any order, and int32
      [users] the item clicked next.
    """
    random = np.random.default_rng(seed)
    angles = np.repeat(np.arange(8), 5) * np.pi / 4 + np.tile(np.linspace(-0.15, 0.15, 5), 8)
    vectors = tf.constant(np.stack([np.cos(angles), np.sin(angles)], axis=1), tf.float32)
    clicks = np.empty((users, 7), np.int32)
    for row in clicks:
        taste = random.integers(4) + np.array([0, 4])
        groups = taste[np.r_[random.permutation([0, 0, 0, 1, 1, 1]), random.integers(2)]]
        row[:] = groups * 5 + random.integers(5, size=7)
    return vectors, clicks[:, :6], clicks[:, 6]


def share_found(interests: InterestsConfig | None) -> float:
    """Share of next clicks among the first ten items, of users who were not trained on."""
    tf.keras.utils.set_random_seed(3)
    settings = ModelConfig(dim=2, hidden=(32,), dropout=0.0, history_encoder="mean", interests=interests)
    tower = UserTower((), config=settings, parts=1, max_length=LONGEST)
    optimizer = tf.keras.optimizers.Adam(0.02)
    vectors, history, targets = opposite_tastes(1_500, seed=1)

    @tf.function
    def step(history: tf.Tensor, targets: tf.Tensor) -> None:
        rows = tf.concat([targets, tf.range(40)], axis=0)
        with tf.GradientTape() as tape:
            queries = tower({}, tf.gather(vectors, history), tf.fill([100], LONGEST))[..., :-1]  # no appeal here
            if interests and interests.objective == "chosen":
                queries = best_interest(queries, tf.gather(vectors, targets))
            softmax = sampled_softmax if queries.shape.rank == 2 else best_interest_softmax
            loss = softmax(queries / 0.1, tf.gather(vectors, rows), query_items=targets, candidate_items=rows)
        weights = [weight for weight in tower.trainable_variables if "empty" not in weight.name]
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    for _ in range(10):
        for start in range(0, 1_500, 100):
            step(tf.constant(history[start : start + 100]), tf.constant(targets[start : start + 100]))
    vectors, history, targets = opposite_tastes(200, seed=2)
    queries = tower({}, tf.gather(vectors, history), tf.fill([200], LONGEST)).numpy()[..., :-1]
    nothing = Ragged.from_lists([[]] * 200)
    examples = EvaluationSet(np.arange(200), targets, nothing, nothing)
    return float(np.mean(ranks(vector_scorer(queries, vectors.numpy()), examples) <= 10))


def test_a_user_with_two_opposite_tastes_is_served_by_two_interests() -> None:
    assert share_found(None) < 0.6, "one vector finds one taste at a time"
    assert share_found(InterestsConfig(count=2)) > 0.8
