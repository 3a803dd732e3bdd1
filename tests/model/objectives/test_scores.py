"""Scores of several interests and several codes: the softmax with them against its definition, and what is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from recall.config.model import InterestsConfig, ModelConfig
from recall.core.ragged import Ragged
from recall.evaluation.ranking import EvaluationSet, ranks
from recall.evaluation.scorers import vector_scorer
from recall.model.batches.seen import Seen
from recall.model.objectives.ranked_queries import RankedQueries
from recall.model.objectives.scores import best_interest
from recall.model.objectives.softmax import softmax_loss
from recall.model.towers.query import UserTower

EXAMPLES, CANDIDATES, SEVERAL, DIM = 11, 15, 3, 4


# The definitions: vectors of one example and of one candidate -> a score, with the gradient that TensorFlow finds.


def best_of_interests(interests: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max([tf.tensordot(interest, vector, 1) for interest in tf.unstack(interests)])


def highest(query: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(tf.linalg.matvec(codes, query))


def attention(query: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
    """The query against the mean of the vectors by its own attention, as Poly-encoders write it."""
    exponentials = tf.exp(tf.linalg.matvec(codes, query))
    mean = tf.reduce_sum(exponentials[:, tf.newaxis] * codes, axis=0) / tf.reduce_sum(exponentials)
    return tf.tensordot(query, mean, 1)


DEFINITIONS = {"interests": best_of_interests, "highest": highest, "attention": attention}


class Case(NamedTuple):
    """A batch with accidental hits and four more negatives."""

    kind: str  # of `DEFINITIONS`
    queries: tf.Tensor  # [examples, dim], or [examples, interests, dim]
    candidates: tf.Tensor  # [candidates, dim], or [candidates, codes, dim]
    items: tf.Tensor  # [candidates]
    log_q: tf.Tensor  # [candidates]
    weights: tf.Tensor  # [examples]

    @property
    def pick(self) -> str:
        return "attention" if self.kind == "attention" else "highest"

    def sampled(self, *, chunk: int = 512, seen: Seen | None = None) -> tf.Tensor:
        ranked = RankedQueries.sampled(
            self.queries,
            self.candidates,
            query_items=self.items[:EXAMPLES],
            candidate_items=self.items,
            seen=seen,
            log_q=self.log_q,
            weights=self.weights,
        )
        return softmax_loss(ranked, pick=self.pick, chunk=chunk)

    def full(self, *, chunk: int = 512, **places: tf.Tensor) -> tf.Tensor:
        ranked = RankedQueries.full(self.queries, self.candidates, weights=self.weights, **places)
        return softmax_loss(ranked, pick=self.pick, chunk=chunk)

    def several(self, change: Callable[[tf.Tensor], tf.Tensor]) -> Case:
        """The case with other vectors on the side that has several, [n, several, dim]."""
        if self.kind == "interests":
            return self._replace(queries=change(self.queries))
        return self._replace(candidates=change(self.candidates))


def case_of(kind: str) -> Case:
    random = np.random.default_rng(3)  # the items, logQ and weights are the same for every kind
    items = tf.constant(random.integers(7, size=CANDIDATES))
    log_q = tf.constant(random.normal(size=CANDIDATES), tf.float32)
    weights = tf.constant(random.uniform(size=EXAMPLES), tf.float32)
    shapes = [(EXAMPLES, SEVERAL, DIM), (CANDIDATES, DIM)]
    if kind != "interests":
        shapes = [(EXAMPLES, DIM), (CANDIDATES, SEVERAL, DIM)]
    queries, candidates = (tf.constant(random.normal(size=shape), tf.float32) for shape in shapes)
    return Case(kind, queries, candidates, items=items, log_q=log_q, weights=weights)


@pytest.fixture(params=DEFINITIONS)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


def defined(case: Case, own: list[int], allowed: list[list[int]], *, log_q: tf.Tensor) -> tf.Tensor:
    """The loss example by example and candidate by candidate, among those that are allowed."""
    losses = []
    for query, target, part in zip(tf.unstack(case.queries), own, allowed, strict=True):
        logits = tf.stack([DEFINITIONS[case.kind](query, case.candidates[c]) - log_q[c] for c in part])
        losses.append(tf.reduce_logsumexp(logits) - logits[part.index(target)])
    return tf.reduce_sum(tf.stack(losses) * case.weights) / tf.reduce_sum(case.weights)


def defined_sampled(case: Case, *, seen: tuple[tuple[int, int], ...] = ()) -> tf.Tensor:
    items = case.items.numpy().tolist()
    allowed = [
        [c for c in range(CANDIDATES) if c == e or (items[c] != items[e] and (e, items[c]) not in seen)]
        for e in range(EXAMPLES)
    ]
    return defined(case, list(range(EXAMPLES)), allowed, log_q=case.log_q)


def assert_same_with_gradients(found: Callable[[], tf.Tensor], expected: Callable[[], tf.Tensor], case: Case) -> None:
    inputs = [case.queries, case.candidates]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        one, other = found(), expected()
    assert float(one) == pytest.approx(float(other), rel=1e-5)
    for gradient, plain in zip(tape.gradient(one, inputs), tape.gradient(other, inputs), strict=True):
        np.testing.assert_allclose(gradient, tf.convert_to_tensor(plain), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 12, 512])
def test_every_candidate_is_scored_as_defined(case: Case, chunk: int) -> None:
    assert_same_with_gradients(lambda: case.sampled(chunk=chunk), lambda: defined_sampled(case), case)


@pytest.mark.slow
def test_what_was_seen_takes_no_part(case: Case) -> None:
    # Of queries 1 and 4 items 2 and 5 were seen; places are those of the distinct items, here the items themselves.
    places = np.full((EXAMPLES, 2), -1, np.int32)
    places[1, 0], places[4] = 2, [5, 2]
    seen = Seen(tf.constant(places), tf.constant(7), tf.cast(case.items, tf.int32))
    pairs = ((1, 2), (4, 5), (4, 2))
    assert float(case.sampled()) != pytest.approx(float(case.sampled(seen=seen)), rel=1e-4)
    assert_same_with_gradients(lambda: case.sampled(seen=seen), lambda: defined_sampled(case, seen=pairs), case)


@pytest.mark.parametrize("chunk", [1, 12, 512])
def test_the_whole_catalogue_is_scored_as_defined_too(case: Case, chunk: int) -> None:
    random = np.random.default_rng(4)
    targets, pool_sizes = random.integers(13, size=EXAMPLES), random.integers(12, size=EXAMPLES)
    assert (targets >= pool_sizes).any(), "a target takes part that the pool does not hold yet"
    allowed = [sorted({*range(size), target}) for size, target in zip(pool_sizes, targets.tolist(), strict=True)]
    places = {"targets": tf.constant(targets, tf.int32), "pool_sizes": tf.constant(pool_sizes, tf.int32)}
    assert_same_with_gradients(
        lambda: case.full(**places, chunk=chunk),
        lambda: defined(case, targets.tolist(), allowed, log_q=tf.zeros([CANDIDATES])),
        case,
    )


def test_with_one_vector_every_score_is_the_inner_product(case: Case) -> None:
    one = case.several(lambda vectors: vectors[:, :1])
    plain = case.several(lambda vectors: vectors[:, 0])
    assert float(one.sampled()) == pytest.approx(float(plain.sampled()), rel=1e-5)
    pools = {"targets": tf.range(EXAMPLES), "pool_sizes": tf.fill([EXAMPLES], CANDIDATES)}
    assert float(one.full(**pools)) == pytest.approx(float(plain.full(**pools)), rel=1e-5)


@pytest.mark.parametrize("kind", ["interests", "highest"])
def test_of_vectors_that_score_alike_one_is_trained(kind: str) -> None:
    twins = case_of(kind).several(lambda vectors: tf.repeat(vectors[:, :1], 2, axis=1))
    several = twins.queries if kind == "interests" else twins.candidates
    with tf.GradientTape() as tape:
        tape.watch(several)
        loss = twins.sampled()
    gradient = tape.gradient(loss, several)
    assert np.abs(gradient[:, 0]).max() > 0
    np.testing.assert_array_equal(gradient[:, 1], np.zeros_like(gradient[:, 1]))


def test_sharp_attention_is_the_highest() -> None:
    sharp = case_of("attention")
    sharp = sharp._replace(queries=200 * sharp.queries)
    assert float(sharp.sampled()) == pytest.approx(float(sharp._replace(kind="highest").sampled()), rel=1e-3)


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


# What several interests are good for

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

    @tf.function(autograph=False)
    def step(history: tf.Tensor, targets: tf.Tensor) -> None:
        rows = tf.concat([targets, tf.range(40)], axis=0)
        with tf.GradientTape() as tape:
            queries = tower({}, tf.gather(vectors, history), tf.fill([100], LONGEST))[..., :-1]  # no appeal here
            if interests and interests.objective == "chosen":
                queries = best_interest(queries, tf.gather(vectors, targets))
            candidates = tf.gather(vectors, rows)
            loss = softmax_loss(
                RankedQueries.sampled(queries / 0.1, candidates, query_items=targets, candidate_items=rows)
            )
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


@pytest.mark.slow
def test_a_user_with_two_opposite_tastes_is_served_by_two_interests() -> None:
    assert share_found(None) < 0.6, "one vector finds one taste at a time"
    assert share_found(InterestsConfig(count=2)) > 0.8
