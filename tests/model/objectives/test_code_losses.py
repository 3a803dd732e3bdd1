"""Objectives of several vectors per candidate against their definitions, with the gradients that TensorFlow finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from recall.model.objectives.code_losses import code_full_softmax, code_softmax
from recall.model.objectives.softmax import Seen, full_softmax, sampled_softmax

EXAMPLES, CANDIDATES, CODES, DIM = 11, 15, 3, 4


class Case(NamedTuple):
    """A batch with accidental hits and four more negatives."""

    queries: tf.Tensor  # [examples, dim]
    candidates: tf.Tensor  # [candidates, codes, dim]
    items: tf.Tensor  # [candidates]
    log_q: tf.Tensor  # [candidates]
    weights: tf.Tensor  # [examples]

    def loss(self, pick: str, *, chunk: int = 512, seen: Seen | None = None) -> tf.Tensor:
        return code_softmax(
            self.queries,
            self.candidates,
            pick=pick,
            query_items=self.items[:EXAMPLES],
            candidate_items=self.items,
            seen=seen,
            log_q=self.log_q,
            weights=self.weights,
            chunk=chunk,
        )


@pytest.fixture
def case() -> Case:
    random = np.random.default_rng(2)
    return Case(
        queries=tf.constant(random.normal(size=(EXAMPLES, DIM)), tf.float32),
        candidates=tf.constant(random.normal(size=(CANDIDATES, CODES, DIM)), tf.float32),
        items=tf.constant(random.integers(7, size=CANDIDATES)),
        log_q=tf.constant(random.normal(size=CANDIDATES), tf.float32),
        weights=tf.constant(random.uniform(size=EXAMPLES), tf.float32),
    )


def highest(query: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(tf.linalg.matvec(vectors, query))


def attention(query: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """The query against the mean of the vectors by its own attention, as Poly-encoders write it."""
    exponentials = tf.exp(tf.linalg.matvec(vectors, query))
    mean = tf.reduce_sum(exponentials[:, tf.newaxis] * vectors, axis=0) / tf.reduce_sum(exponentials)
    return tf.tensordot(query, mean, 1)


Score = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
every_pick = pytest.mark.parametrize(("pick", "score"), [("highest", highest), ("attention", attention)])


def plain_loss(case: Case, score: Score, *, seen: tuple[tuple[int, int], ...] = ()) -> tf.Tensor:
    """The definition, example by example and candidate by candidate."""
    losses = []
    for example in range(EXAMPLES):
        allowed = [
            c for c in range(CANDIDATES)
            if c == example or (case.items[c] != case.items[example] and (example, int(case.items[c])) not in seen)
        ]  # fmt: skip
        logits = tf.stack([score(case.queries[example], case.candidates[c]) - case.log_q[c] for c in allowed])
        losses.append(tf.reduce_logsumexp(logits) - logits[allowed.index(example)])
    return tf.reduce_sum(tf.stack(losses) * case.weights) / tf.reduce_sum(case.weights)


def assert_same_with_gradients(found: Callable[[], tf.Tensor], expected: Callable[[], tf.Tensor], case: Case) -> None:
    inputs = [case.queries, case.candidates]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        one, other = found(), expected()
    assert float(one) == pytest.approx(float(other), rel=1e-5)
    for gradient, plain in zip(tape.gradient(one, inputs), tape.gradient(other, inputs), strict=True):
        np.testing.assert_allclose(gradient, tf.convert_to_tensor(plain), rtol=1e-4, atol=1e-6)


@every_pick
@pytest.mark.parametrize("chunk", [1, 12, 512])
def test_a_query_takes_its_pick_of_every_candidate(case: Case, pick: str, score: Score, chunk: int) -> None:
    assert_same_with_gradients(lambda: case.loss(pick, chunk=chunk), lambda: plain_loss(case, score), case)


@every_pick
def test_what_was_seen_takes_no_part(case: Case, pick: str, score: Score) -> None:
    # Of queries 1 and 4 items 2 and 5 were seen; places are those of the distinct items, here the items themselves.
    places = np.full((EXAMPLES, 2), -1, np.int32)
    places[1, 0], places[4] = 2, [5, 2]
    seen = Seen(tf.constant(places), tf.constant(7), tf.cast(case.items, tf.int32))
    pairs = ((1, 2), (4, 5), (4, 2))
    assert float(case.loss(pick)) != pytest.approx(float(case.loss(pick, seen=seen)), rel=1e-4)
    assert_same_with_gradients(lambda: case.loss(pick, seen=seen), lambda: plain_loss(case, score, seen=pairs), case)


@every_pick
@pytest.mark.parametrize("chunk", [1, 12, 512])
def test_the_whole_catalogue_is_picked_from_too(case: Case, pick: str, score: Score, chunk: int) -> None:
    random = np.random.default_rng(4)
    targets, pool_sizes = random.integers(13, size=EXAMPLES), random.integers(12, size=EXAMPLES)
    assert (targets >= pool_sizes).any(), "a target takes part that the pool does not hold yet"

    def found() -> tf.Tensor:
        places = {"targets": tf.constant(targets, tf.int32), "pool_sizes": tf.constant(pool_sizes, tf.int32)}
        return code_full_softmax(
            case.queries, case.candidates, pick=pick, **places, weights=case.weights, chunk=chunk
        )  # fmt: skip

    def expected() -> tf.Tensor:
        losses = []
        for query, target, size in zip(tf.unstack(case.queries), targets, pool_sizes, strict=True):
            taking_part = sorted({*range(size), target})
            scores = tf.stack([score(query, case.candidates[c]) for c in taking_part])
            losses.append(tf.reduce_logsumexp(scores) - scores[taking_part.index(target)])
        return tf.reduce_sum(tf.stack(losses) * case.weights) / tf.reduce_sum(case.weights)

    assert_same_with_gradients(found, expected, case)


@pytest.mark.parametrize("pick", ["highest", "attention"])
def test_with_one_code_every_pick_is_the_softmax_of_one_vector(case: Case, pick: str) -> None:
    one = case._replace(candidates=case.candidates[:, :1])
    settings = {"query_items": case.items[:EXAMPLES], "candidate_items": case.items}
    expected = sampled_softmax(
        case.queries, case.candidates[:, 0], **settings, log_q=case.log_q, weights=case.weights
    )  # fmt: skip
    assert float(one.loss(pick)) == pytest.approx(float(expected), rel=1e-5)
    pools = {"targets": tf.range(EXAMPLES), "pool_sizes": tf.fill([EXAMPLES], CANDIDATES)}
    expected = full_softmax(case.queries, case.candidates[:, 0], **pools)
    assert float(code_full_softmax(case.queries, one.candidates, pick=pick, **pools)) == pytest.approx(
        float(expected), rel=1e-5
    )


def test_of_vectors_that_score_alike_one_is_trained(case: Case) -> None:
    twins = case._replace(candidates=tf.repeat(case.candidates[:, :1], 2, axis=1))
    with tf.GradientTape() as tape:
        tape.watch(twins.candidates)
        loss = twins.loss("highest")
    gradient = tape.gradient(loss, twins.candidates)
    assert np.abs(gradient[:, 0]).max() > 0
    np.testing.assert_array_equal(gradient[:, 1], np.zeros((CANDIDATES, DIM)))


def test_sharp_attention_is_the_highest(case: Case) -> None:
    sharp = case._replace(queries=200 * case.queries)
    assert float(sharp.loss("attention")) == pytest.approx(float(sharp.loss("highest")), rel=1e-3)
