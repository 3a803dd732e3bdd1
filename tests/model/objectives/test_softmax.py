"""The chunked softmax and the full one beside TFRS, autodiff and sums by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs

from recall.model.batches.seen import Seen
from recall.model.objectives.ranked_queries import RankedQueries
from recall.model.objectives.softmax import CHUNK, softmax_loss

Array = np.ndarray


def sampled_softmax(queries: tf.Tensor, candidates: tf.Tensor, *, chunk: int = CHUNK, **named: Any) -> tf.Tensor:
    return softmax_loss(RankedQueries.sampled(queries, candidates, **named), chunk=chunk)


def full_softmax(queries: tf.Tensor, candidates: tf.Tensor, *, chunk: int = CHUNK, **named: Any) -> tf.Tensor:
    return softmax_loss(RankedQueries.full(queries, candidates, **named), chunk=chunk)


class Batch(NamedTuple):
    """Queries and candidates whose inner products reach about +-6, so that the softmax is far from flat."""

    queries: Array  # float32 [queries, dim]
    candidates: Array  # float32 [candidates, dim]
    query_items: Array  # int32 [queries]
    candidate_items: Array  # int32 [candidates]

    @property
    def items(self) -> dict[str, Array]:
        return {"query_items": self.query_items, "candidate_items": self.candidate_items}


def make_batch(*, queries: int = 9, extra: int = 0, items: int | None = None, seed: int = 3) -> Batch:
    """A batch; all items differ unless `items` says how few there are to choose from."""
    random = np.random.default_rng(seed)
    count = queries + extra
    rows = random.permutation(count) if items is None else random.integers(0, items, count)
    vectors = random.normal(size=(queries + count, 4)).astype(np.float32) * 1.5
    return Batch(vectors[:queries], vectors[queries:], rows[:queries].astype(np.int32), rows.astype(np.int32))


def value_and_gradients(loss: Callable[..., tf.Tensor], batch: Batch, **named: Any) -> tuple[Array, Array, Array]:
    queries, candidates = tf.constant(batch.queries), tf.constant(batch.candidates)
    with tf.GradientTape() as tape:
        tape.watch([queries, candidates])
        value = loss(queries, candidates, **named)
    return value.numpy(), *(gradient.numpy() for gradient in tape.gradient(value, [queries, candidates]))


def assert_same(found: tuple[Array, ...], expected: tuple[Array, ...], *, tolerance: float = 1e-5) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance / 10)


def textbook_softmax(
    batch: Batch, *, log_q: Array | None = None, weights: Array | None = None
) -> tuple[Array, Array, Array]:
    """The textbook's way in float64: all logits at once, autodiff; hits other than the own column are left out."""
    queries, candidates = tf.constant(batch.queries, tf.float64), tf.constant(batch.candidates, tf.float64)
    count = len(batch.queries)
    weight = np.ones(count) if weights is None else weights.astype(np.float64)
    is_hit = batch.query_items[:, np.newaxis] == batch.candidate_items[np.newaxis, :]
    is_hit[np.arange(count), np.arange(count)] = False
    with tf.GradientTape() as tape:
        tape.watch([queries, candidates])
        logits = tf.matmul(queries, candidates, transpose_b=True)
        if log_q is not None:
            logits -= log_q.astype(np.float64)
        kept = tf.where(is_hit, tf.constant(-np.inf, tf.float64), logits)
        per_query = tf.reduce_logsumexp(kept, axis=1) - tf.linalg.diag_part(logits[:, :count])
        value = tf.reduce_sum(weight * per_query) / weight.sum()
    return value.numpy(), *(gradient.numpy() for gradient in tape.gradient(value, [queries, candidates]))


def retrieval_task(batch: Batch, *, remove_accidental_hits: bool = False, **named: Any) -> tuple[Array, Array, Array]:
    """`tfrs.tasks.Retrieval`, whose loss is the sum over the batch, brought to the weighted mean."""
    task = tfrs.tasks.Retrieval(remove_accidental_hits=remove_accidental_hits)
    found = value_and_gradients(task, batch, compute_metrics=False, **named)
    total = named["sample_weight"].sum() if "sample_weight" in named else len(batch.queries)
    return tuple(part / total for part in found)  # type: ignore[return-value]


# The sampled softmax


def test_softmax_equals_tfrs_retrieval() -> None:
    batch = make_batch()
    assert_same(value_and_gradients(sampled_softmax, batch, **batch.items), retrieval_task(batch))


def test_softmax_with_logq_equals_tfrs_retrieval_with_sampling_probabilities() -> None:
    batch = make_batch()
    probability = np.random.default_rng(5).uniform(1e-3, 0.3, 9).astype(np.float32)
    # logQ counts draws per batch, TFRS takes probabilities: they differ by log(batch size), which cancels.
    ours = value_and_gradients(sampled_softmax, batch, **batch.items, log_q=np.log(9 * probability))
    assert_same(ours, retrieval_task(batch, candidate_sampling_probability=probability))


def test_softmax_masks_accidental_hits_as_tfrs_retrieval_removes_them() -> None:
    batch = make_batch(queries=12, items=5)
    theirs = retrieval_task(batch, remove_accidental_hits=True, candidate_ids=batch.candidate_items)
    assert_same(value_and_gradients(sampled_softmax, batch, **batch.items), theirs)


def test_softmax_weighs_examples_as_tfrs_retrieval_does() -> None:
    batch = make_batch()
    weights = np.array([1, 0, 2, 0.5, 0, 3, 1, 1, 0.1], np.float32)
    ours = value_and_gradients(sampled_softmax, batch, **batch.items, weights=weights)
    assert_same(ours, retrieval_task(batch, sample_weight=weights))


def test_softmax_with_extra_negatives_equals_the_full_softmax() -> None:
    batch = make_batch(queries=11, extra=6, items=9)
    log_q = np.random.default_rng(8).normal(size=17).astype(np.float32)
    weights = np.random.default_rng(9).uniform(0, 2, 11).astype(np.float32)
    ours = value_and_gradients(sampled_softmax, batch, **batch.items, log_q=log_q, weights=weights)
    assert_same(ours, textbook_softmax(batch, log_q=log_q, weights=weights))


def test_softmax_takes_a_probability_of_one_in_a_billion_exactly() -> None:
    batch = make_batch(queries=3)
    probability = np.array([0.5, 1e-9, 0.2])
    terms = []
    for i in range(3):
        logits = batch.candidates.astype(np.float64) @ batch.queries[i].astype(np.float64) - np.log(probability)
        terms.append(np.log(np.sum(np.exp(logits))) - logits[i])
    value, *_ = value_and_gradients(sampled_softmax, batch, **batch.items, log_q=np.log(probability).astype(np.float32))
    assert value == pytest.approx(np.mean(terms), rel=1e-5)
    clipped, *_ = retrieval_task(batch, candidate_sampling_probability=probability.astype(np.float32))
    assert abs(clipped - np.mean(terms)) > 0.1  # what TFRS's clip at 1e-6 makes of it


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_softmax_does_not_depend_on_the_size_of_its_chunks(chunk: int) -> None:
    # 20 queries: chunks of 7 leave a rest of 6, and 512 is more than there are.
    batch = make_batch(queries=20, extra=3, items=15)
    log_q = np.linspace(-4, 1, 23, dtype=np.float32)
    weights = np.linspace(0, 1, 20, dtype=np.float32)
    ours = value_and_gradients(sampled_softmax, batch, **batch.items, log_q=log_q, weights=weights, chunk=chunk)
    assert_same(ours, textbook_softmax(batch, log_q=log_q, weights=weights))


def test_softmax_over_many_full_chunks_equals_the_full_softmax() -> None:
    batch = make_batch(queries=1030, extra=50)
    assert_same(value_and_gradients(sampled_softmax, batch, **batch.items), textbook_softmax(batch), tolerance=1e-4)


def test_softmax_in_a_graph_takes_batches_of_any_size() -> None:
    traces = []

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.int32),
        ]
    )
    def graph(queries: tf.Tensor, candidates: tf.Tensor, query_items: tf.Tensor, candidate_items: tf.Tensor) -> Any:
        traces.append(1)
        with tf.GradientTape() as tape:
            tape.watch([queries, candidates])
            loss = sampled_softmax(
                queries, candidates, query_items=query_items, candidate_items=candidate_items, chunk=4
            )
        return loss, *tape.gradient(loss, [queries, candidates])

    for queries, extra in [(3, 0), (4, 5), (9, 1)]:
        batch = make_batch(queries=queries, extra=extra, items=6)
        assert_same(tuple(part.numpy() for part in graph(*batch)), textbook_softmax(batch))
    assert len(traces) == 1


def test_softmax_passes_gradients_on_to_what_queries_and_candidates_are_made_of() -> None:
    batch = make_batch()
    temperature, step = tf.Variable(0.7), 1e-2
    with tf.GradientTape() as tape:
        loss = 3.0 * sampled_softmax(batch.queries / temperature, tf.constant(batch.candidates), **batch.items)

    def at(value: float) -> float:
        return float(3.0 * textbook_softmax(batch._replace(queries=batch.queries.astype(np.float64) / value))[0])

    numeric = (at(0.7 + step) - at(0.7 - step)) / (2 * step)
    assert tape.gradient(loss, temperature).numpy() == pytest.approx(numeric, rel=1e-3)


def test_negative_that_is_every_querys_own_item_gets_no_gradient_and_costs_nothing() -> None:
    batch = make_batch(queries=4, extra=1)
    batch = batch._replace(query_items=np.full(4, 7, np.int32), candidate_items=np.array([7, 8, 9, 6, 7], np.int32))
    # Only column 4 is a hit that is nobody's own; of the others, column 0 is one for queries 1 to 3.
    _, _, gradient = value_and_gradients(sampled_softmax, batch, **batch.items)
    np.testing.assert_array_equal(gradient[4], np.zeros(4))
    moved = batch._replace(candidates=batch.candidates + np.array([[0], [0], [0], [0], [100]], np.float32))
    before, after = (value_and_gradients(sampled_softmax, one, **one.items)[0] for one in (batch, moved))
    assert before == after


def test_item_twice_in_a_batch_keeps_its_own_column_and_loses_the_other() -> None:
    batch = make_batch(queries=3)
    items = np.array([5, 6, 5], np.int32)
    batch = batch._replace(query_items=items, candidate_items=items)
    logits = batch.queries.astype(np.float64) @ batch.candidates.T.astype(np.float64)
    expected = np.mean(
        [
            np.log1p(np.exp(logits[0, 1] - logits[0, 0])),  # column 2 is masked
            np.log(np.exp(logits[1] - logits[1, 1]).sum()),
            np.log1p(np.exp(logits[2, 1] - logits[2, 2])),  # column 0 is masked
        ]
    )
    assert value_and_gradients(sampled_softmax, batch, **batch.items)[0] == pytest.approx(expected, rel=1e-5)


def test_query_whose_every_negative_is_a_hit_costs_nothing() -> None:
    batch = make_batch(queries=3)
    same = {"query_items": np.full(3, 2), "candidate_items": np.full(3, 2)}
    for part in value_and_gradients(sampled_softmax, batch, **same):
        np.testing.assert_allclose(part, np.zeros_like(part), atol=1e-6)


def test_batch_without_any_weight_has_neither_loss_nor_gradient() -> None:
    batch = make_batch()
    for part in value_and_gradients(sampled_softmax, batch, **batch.items, weights=np.zeros(9, np.float32)):
        np.testing.assert_array_equal(part, np.zeros_like(part))


def test_softmax_survives_logits_far_beyond_the_range_of_exp() -> None:
    batch = make_batch(items=6)
    batch = batch._replace(queries=batch.queries * 1000)
    assert_same(value_and_gradients(sampled_softmax, batch, **batch.items), textbook_softmax(batch), tolerance=1e-4)


# What was seen before


def seen_by_hand(lists: list[list[int]]) -> Array:
    """Lists of places, padded with -1."""
    return np.array([places + [-1] * (3 - len(places)) for places in lists], np.int32)


@pytest.mark.parametrize("chunk", [1, 2, 512])
def test_softmax_leaves_out_every_candidate_of_an_item_that_was_seen(chunk: int) -> None:
    # Distinct items 7, 5, 9 and 4; item 7 is twice among the candidates, 4 only in the history of query 0.
    batch = make_batch(queries=3, extra=2)._replace(
        query_items=np.array([7, 5, 7], np.int32), candidate_items=np.array([7, 5, 7, 9, 5], np.int32)
    )
    seen = Seen(seen_by_hand([[3, 1], [2], [0, 2]]), tf.constant(4), tf.constant([0, 1, 0, 2, 1]))
    found = value_and_gradients(sampled_softmax, batch, **batch.items, seen=seen, chunk=chunk)
    # Query 0 looks for item 7 and has seen 5; query 1 looks for 5 and has seen 9; query 2 has seen its own item and 9.
    taking_part = [[0, 3], [0, 1, 2], [1, 2, 4]]
    logits = batch.queries @ batch.candidates.T
    losses = [np.log(np.exp(logits[row, part]).sum()) - logits[row, row] for row, part in enumerate(taking_part)]
    assert found[0] == pytest.approx(np.mean(losses), rel=1e-5)
    pulls = np.zeros((3, 5))
    for row, part in enumerate(taking_part):
        pulls[row, part] = np.exp(logits[row, part]) / np.exp(logits[row, part]).sum() / 3
        pulls[row, row] -= 1 / 3
    assert_same(found[1:], (pulls @ batch.candidates, pulls.T @ batch.queries))


@pytest.mark.parametrize("chunk", [1, 4, 512])
def test_the_full_softmax_leaves_out_what_was_seen_but_never_the_target(chunk: int) -> None:
    batch = make_batch(queries=4, extra=6)
    targets, sizes = np.array([0, 5, 1, 9]), np.array([4, 10, 0, 8])
    lists = [[1, 2], [], [0], [9, 7]]
    found = value_and_gradients(
        full_softmax,
        batch,
        targets=targets.astype(np.int32),
        pool_sizes=sizes.astype(np.int32),
        seen=Seen(seen_by_hand(lists), tf.constant(10), None),
        chunk=chunk,
    )
    logits = batch.queries @ batch.candidates.T
    pulls, losses = np.zeros((4, 10)), []
    for row, (target, size, places) in enumerate(zip(targets, sizes, lists, strict=True)):
        part = sorted({*range(size)} - {*places} | {target})
        losses.append(np.log(np.exp(logits[row, part]).sum()) - logits[row, target])
        pulls[row, part] = np.exp(logits[row, part]) / np.exp(logits[row, part]).sum() / 4
        pulls[row, target] -= 1 / 4
    assert found[0] == pytest.approx(np.mean(losses), rel=1e-5)
    assert_same(found[1:], (pulls @ batch.candidates, pulls.T @ batch.queries))


# The full softmax


def naive_full_softmax(
    batch: Batch, *, targets: Array, pool_sizes: Array, weights: Array
) -> tuple[Array, Array, Array]:
    """One query at a time in float64 by autodiff: the items of its pool, and its own."""
    queries, candidates = tf.constant(batch.queries, tf.float64), tf.constant(batch.candidates, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch([queries, candidates])
        losses = []
        for row, (target, size) in enumerate(zip(targets.tolist(), pool_sizes.tolist(), strict=True)):
            pool = sorted({*range(size), target})
            logits = tf.linalg.matvec(tf.gather(candidates, pool), queries[row])
            losses.append(tf.reduce_logsumexp(logits) - logits[pool.index(target)])
        value = tf.tensordot(tf.stack(losses), tf.constant(weights / weights.sum(), tf.float64), 1)
    return value.numpy(), *(
        tf.convert_to_tensor(gradient).numpy() for gradient in tape.gradient(value, [queries, candidates])
    )


@pytest.mark.parametrize("chunk", [1, 4, 512])
@pytest.mark.parametrize("pools", ["everything", "growing", "none before the target"])
def test_the_full_softmax_is_that_over_each_querys_own_pool(pools: str, chunk: int) -> None:
    batch = make_batch(queries=9, extra=21)
    random = np.random.default_rng(5)
    targets = random.integers(0, 30, 9).astype(np.int32)
    targets[1] = targets[0]  # two queries look for the same item
    sizes = {"everything": np.full(9, 30), "growing": np.arange(3, 12), "none before the target": np.zeros(9)}
    settings = {
        "targets": targets,
        "pool_sizes": sizes[pools].astype(np.int32),
        "weights": random.uniform(0, 2, 9).astype(np.float32),
    }
    expected = naive_full_softmax(batch, **settings)
    assert_same(value_and_gradients(full_softmax, batch, **settings, chunk=chunk), expected)
    if pools == "none before the target":
        assert expected[0] == pytest.approx(0), "alone in its pool a target has nothing to be told from"


def test_the_full_softmax_over_the_candidates_of_a_batch_equals_tfrs_retrieval() -> None:
    batch = make_batch()
    ours = value_and_gradients(full_softmax, batch, targets=np.arange(9), pool_sizes=np.full(9, 9))
    assert_same(ours, retrieval_task(batch))


def test_items_that_no_query_could_have_been_shown_get_no_gradient() -> None:
    batch = make_batch(queries=4, extra=6)
    *_, gradient = value_and_gradients(full_softmax, batch, targets=np.array([0, 5, 1, 2]), pool_sizes=np.full(4, 4))
    assert np.flatnonzero(np.abs(gradient).sum(axis=1)).tolist() == [0, 1, 2, 3, 5]
