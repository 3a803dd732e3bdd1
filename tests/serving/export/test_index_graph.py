"""Indexes as TensorFlow operations answer as the indexes that they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from recall.config.index import IndexConfig
from recall.index import ExactIndex, ScannIndex, build_index
from recall.index.items import Items
from recall.index.scann import ScannSettings
from recall.serving.export.index_graph import ExactGraph, GraphIndex, ScannGraph

ITEMS, DIM, K = 600, 16, 30
RANDOM = np.random.default_rng(3)


def items(entries: int) -> Items:
    vectors = RANDOM.normal(size=(ITEMS, entries, DIM)).astype(np.float32)
    return Items.checked([f"i{row}" for row in range(ITEMS)], vectors)


@pytest.fixture(scope="module", params=[1, 2], ids=["one vector", "two vectors"])
def exact(request: pytest.FixtureRequest) -> ExactIndex:
    return ExactIndex(items(request.param))


@pytest.fixture(scope="module")
def scann(exact: ExactIndex) -> ScannIndex:
    """Build ScaNN over the same items: without a tree, but rescoring so many that it is right."""
    settings = ScannSettings(leaves=0, leaves_to_search=0, reorder=400, k=K, anisotropic_threshold=None)
    return ScannIndex.build(exact.items, settings)


@pytest.fixture(scope="module", params=["exact", "scann"])
def graph(request: pytest.FixtureRequest, exact: ExactIndex) -> GraphIndex:
    return ExactGraph.of_index(exact) if request.param == "exact" else ScannGraph(request.getfixturevalue("scann"))


@pytest.mark.parametrize("count", [1, 3])
def test_graph_finds_what_the_index_finds(graph: GraphIndex, exact: ExactIndex, count: int) -> None:
    queries = RANDOM.normal(size=(8, count, DIM)).astype(np.float32)
    rows, scores = graph.search(tf.constant(queries), K)
    expected = exact.search(queries.reshape(-1, DIM), K).merged(count)
    np.testing.assert_array_equal(rows.numpy(), expected.rows[:, :K])
    np.testing.assert_allclose(scores.numpy(), expected.scores[:, :K], atol=1e-5)


def test_a_row_may_be_left_out(graph: GraphIndex, exact: ExactIndex) -> None:
    own = exact.vectors([f"i{row}" for row in range(8)]).reshape(8, -1, DIM)  # [8, entries, dim]
    np.testing.assert_array_equal(graph.of(tf.range(8)).numpy(), own)
    rows, _ = graph.search(tf.constant(own), K, without=tf.range(8))
    expected = exact.search(own.reshape(-1, DIM), K + 1).merged(own.shape[1])
    for row, found, best in zip(range(8), rows.numpy(), expected.rows, strict=True):
        assert found.tolist() == [other for other in best if other != row][:K]


def test_a_list_of_all_items_without_one_ends_in_nothing(graph: GraphIndex) -> None:
    queries = tf.constant(RANDOM.normal(size=(2, 1, DIM)), tf.float32)
    rows, scores = graph.search(queries, ITEMS, without=tf.constant([5, 9]))
    assert [sorted(set(range(ITEMS)) - set(found)) for found in rows.numpy().tolist()] == [[5], [9]]
    assert rows[:, -1].numpy().tolist() == [-1, -1]
    assert scores[:, -1].numpy().tolist() == [-np.inf, -np.inf]


def test_scann_answers_as_its_index_to_the_last_bit_where_both_are_wrong() -> None:
    vectors = RANDOM.normal(size=(6000, DIM)).astype(np.float32)
    built = build_index([f"i{row}" for row in range(6000)], vectors, config=IndexConfig(kind="scann", k=10))
    assert isinstance(built, ScannIndex)
    index = built.with_effort(leaves_to_search=2, reorder=12)  # too little to be right
    queries = RANDOM.normal(size=(50, DIM)).astype(np.float32)
    expected = index.search(queries, 10)
    rows, scores = ScannGraph(index).search(tf.constant(queries[:, np.newaxis]), 10)
    np.testing.assert_array_equal(rows.numpy(), expected.rows)
    np.testing.assert_array_equal(scores.numpy(), expected.scores)
    assert (expected.rows != index.exact().search(queries, 10).rows).any()


def test_a_search_that_runs_out_of_partitions_is_completed_exactly() -> None:
    vectors = RANDOM.normal(size=(6000, DIM)).astype(np.float32)
    built = build_index([f"i{row}" for row in range(6000)], vectors, config=IndexConfig(kind="scann", k=500))
    assert isinstance(built, ScannIndex)
    index = built.with_effort(leaves_to_search=1, reorder=500)  # a leaf holds about 78
    queries = RANDOM.normal(size=(4, DIM)).astype(np.float32)
    rows, scores = ScannGraph(index).search(tf.constant(queries[:, np.newaxis]), 500)
    expected = index.exact().search(queries, 500)
    np.testing.assert_array_equal(rows.numpy(), expected.rows)
    np.testing.assert_allclose(scores.numpy(), expected.scores, atol=1e-5)
