"""Tags as a target: TF-IDF weights, overlaps, the graph of tags, and the classifier that tells them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import sparse

from recall.content.teach.tags import TagClassifier, tag_graph, tag_overlap, tag_targets
from recall.core.errors import DataError


def test_tags_weigh_by_tf_idf_and_sum_to_one() -> None:
    # Four tagged items: tag 0 on all (tells nothing), 1 on two, 2 on one (names it), 3 on three.
    has = sparse.csr_array(np.array([[1, 1, 0, 1], [1, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 0, 0, 0]], np.int32))
    weights, counted = tag_targets([has], np.ones(5, bool))
    rare, common = np.log(4 / 2), np.log(4 / 3)
    expected = [[rare / (rare + common), common / (rare + common)], [1, 0], [0, 1], [0, 1], [0, 0]]
    np.testing.assert_allclose(weights.toarray(), expected, atol=1e-6)
    np.testing.assert_array_equal(counted.toarray(), has.toarray()[:, [1, 3]])


def test_items_that_do_not_count_have_weights_but_change_none() -> None:
    has = sparse.csr_array(np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 0]], np.int32))
    counts = np.array([True, True, True, False])
    weights, counted = tag_targets([has], counts)
    alone, _ = tag_targets([has[:3]], np.ones(3, bool))
    np.testing.assert_allclose(weights.toarray()[:3], alone.toarray(), atol=1e-6)
    np.testing.assert_allclose(weights.toarray()[3], [0.5, 0.5, 0], atol=1e-6)
    assert counted.shape == (3, 3)


def test_no_tag_to_learn_from_is_a_clear_error() -> None:
    with pytest.raises(DataError, match="none of the 2 tags is on at least 2 and not on all of the 3 tagged items"):
        tag_targets([sparse.csr_array(np.array([[1, 1], [1, 0], [1, 0]], np.int32))], np.ones(3, bool))


def test_overlap_is_the_cosine_of_tag_weights() -> None:
    weights = np.array([[0.6, 0.4, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    found = tag_overlap(sparse.csr_array(weights)).toarray()
    np.testing.assert_allclose(found, [[1, 0.4 / np.sqrt(0.52), 0], [0.4 / np.sqrt(0.52), 1, 0], [0, 0, 0]], atol=1e-6)


def test_the_graph_of_tags_is_normalised_as_by_kipf_and_welling() -> None:
    # Tag 0 on items 0 to 3, tag 1 on 0 and 1, tag 2 on 3 alone: cosines 2 / sqrt(8), 1 / sqrt(4) and 0.
    has = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 1]], np.float32)
    weight = 2 / np.sqrt(8)
    with_self = np.array([[1, weight, 0], [weight, 1, 0], [0, 0, 1]])  # 0.5 is below the threshold
    scale = np.diag(1 / np.sqrt(with_self.sum(axis=1)))
    found = tag_graph(sparse.csr_array(has), threshold=0.6).toarray()
    np.testing.assert_allclose(found, scale @ with_self @ scale, atol=1e-6)


def test_the_classifier_smooths_its_weights_over_the_graph() -> None:
    from scipy import sparse

    graph = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]], np.float32)
    classifier = TagClassifier(3, 4, graph=sparse.coo_array(graph), layers=2)
    first, second = (np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32) for seed in (1, 2))
    classifier.transforms[0].assign(first)
    classifier.transforms[1].assign(second)
    hidden = graph @ classifier.embeddings.numpy() @ first
    expected = graph @ np.where(hidden > 0, hidden, 0.2 * hidden) @ second
    np.testing.assert_allclose(classifier.weights_of_tags(), expected, rtol=1e-4, atol=1e-5)
    vectors = np.random.default_rng(3).normal(size=(2, 4)).astype(np.float32)
    np.testing.assert_allclose(classifier(tf.constant(vectors)), vectors @ expected.T, rtol=1e-4, atol=1e-5)


def test_without_layers_every_tag_has_weights_of_its_own() -> None:
    classifier = TagClassifier(3, 4)
    np.testing.assert_array_equal(classifier.weights_of_tags(), classifier.embeddings)
