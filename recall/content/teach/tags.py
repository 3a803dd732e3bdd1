"""Turns tags into targets: TF-IDF weights, overlaps of items, a graph of tags, and the classifier of tags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from scipy import sparse

from recall.core.arrays import Bools
from recall.core.errors import DataError

_LEAST_ITEMS = 2  # a tag of one item is that item's id under another name


def tag_targets(matrices: Sequence[sparse.csr_array], learned_from: Bools) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Join the tags of several features in one space, and weigh each tag of an item.

    TF-IDF (Salton & Buckley, Information Processing & Management 24(5), 1988) with tf 1, as an item has a tag or not,
    and idf = log(items with tags / items with the tag); the weights of an item are scaled to sum 1. A tag of
    all items carries no information, and a tag of a single item would name it: both are left out.

    Args:
      matrices: per feature sparse [items, codes], 1 where an item has a value (`tag_matrices`).
      learned_from: bool [items], items that count; others have weights, too.

    Returns:
      Both float32: TF-IDF weights [items, tags], rows of sum 1 or empty; and the tags of the items that count, [items
      that count, tags], 0 or 1.

    Raises:
      DataError: no tag is left to learn from.
    """
    has = sparse.csr_array(sparse.hstack(matrices, format="csr"), dtype=np.float32)
    counted = has[np.flatnonzero(learned_from)]
    item_counts = np.asarray(counted.sum(axis=0)).ravel()  # [all tags]
    tagged = int((np.diff(counted.indptr) > 0).sum())
    kept = np.flatnonzero((item_counts >= _LEAST_ITEMS) & (item_counts < tagged))
    if not len(kept):
        raise DataError(
            f"content train: none of the {has.shape[1]:,} tags is on at least {_LEAST_ITEMS} and not on all of the "
            f"{tagged:,} tagged items of the training period; set content.loss.tags and content.loss.shared_tags to 0"
        )
    idf = np.log(tagged / item_counts[kept]).astype(np.float32)  # [tags]
    weights = sparse.csr_array(has[:, kept].multiply(idf))
    weights.eliminate_zeros()
    totals = np.asarray(weights.sum(axis=1)).ravel()  # [items]
    scale = np.divide(1, totals, out=np.zeros_like(totals), where=totals > 0)
    return sparse.csr_array(weights.multiply(scale[:, np.newaxis]), dtype=np.float32), counted[:, kept]


def tag_overlap(weights: sparse.csr_array) -> sparse.csr_array:
    """Compute the cosine of the tag weights of every two items; sparse float32 [items, items], 0 without tags."""
    lengths = np.sqrt(np.asarray(weights.multiply(weights).sum(axis=1)).ravel())  # [items]
    scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    unit = sparse.csr_array(weights.multiply(scale[:, np.newaxis]))
    return sparse.csr_array(unit @ unit.T)


def tag_graph(has: sparse.csr_array, *, threshold: float) -> sparse.coo_array:
    """Build the graph of tags that occur together, normalised for a graph convolution.

    D^-1/2 (A + I) D^-1/2 (Kipf & Welling, "Semi-Supervised Classification with Graph Convolutional Networks", ICLR
    2017, eq. 2) with the idea of ML-GCN (Chen et al., CVPR 2019) that labels which occur together are neighbours.
    Departure: ML-GCN cuts the conditional probability P(i | j), which makes a directed graph. Here A_ij is
    items with both / sqrt(items with i * items with j), and 0 below the threshold: symmetric as the normalisation
    requires, and a tag is no neighbour of others for the sole reason that it is on most items.

    Args:
      has: sparse [items, tags], 1 where an item has a tag; every tag is on some item.
      threshold: in [0, 1].

    Returns:
      float32 sparse [tags, tags], symmetric.
    """
    counts = np.asarray(has.sum(axis=0)).ravel()  # [tags]
    both = sparse.coo_array(has.T @ has)  # [tags, tags]
    cosine = both.data / np.sqrt(counts[both.row] * counts[both.col])
    is_edge = (both.row != both.col) & (cosine >= threshold)
    row, column, weight = both.row[is_edge], both.col[is_edge], cosine[is_edge]
    own = np.arange(len(counts))
    row, column, weight = np.r_[row, own], np.r_[column, own], np.r_[weight, np.ones(len(own))]
    degree = np.bincount(row, weights=weight, minlength=len(own))
    weight = weight / np.sqrt(degree[row] * degree[column])
    return sparse.coo_array((weight.astype(np.float32), (row, column)), shape=(len(own), len(own)))


class TagClassifier(tf.keras.layers.Layer):
    """Predict logits of an item's tags: z . w_t + b_t, with the w smoothed over a graph of tags.

    ML-GCN (Chen et al., "Multi-Label Image Recognition with Graph Convolutional Networks", CVPR 2019, eq. 4-6): the
    classifier's weights are tag embeddings after graph convolutions (Kipf & Welling, ICLR 2017), H <- f(A H W),
    with LeakyReLU between them. Departures: the embeddings are learned, not word vectors, and each W starts as the
    identity, so that the smoothing is there from the first step.

    Args:
      tags: number of tags.
      dim: width of the content vectors.
      graph: normalised adjacency [tags, tags] of `tag_graph`; read if there are layers.
      layers: number of graph convolutions; 0 uses no graph.
    """

    def __init__(self, tags: int, dim: int, *, graph: sparse.coo_array | None = None, layers: int = 0) -> None:
        super().__init__(name="tags")
        # Rows of about length 4 against unit vectors: logits that can tell hundreds of tags apart from the start.
        self.embeddings = self.add_weight(
            name="embeddings", shape=(tags, dim), initializer=tf.keras.initializers.RandomNormal(stddev=4 / dim**0.5)
        )
        self.bias = self.add_weight(name="bias", shape=(tags,), initializer="zeros")
        self.transforms = [
            self.add_weight(name=f"transform_{layer}", shape=(dim, dim), initializer="identity")
            for layer in range(layers)
        ]
        self._graph = None
        if layers:
            assert graph is not None, "layers need a graph"
            places = list(zip(graph.row.tolist(), graph.col.tolist(), strict=True))
            self._graph = tf.sparse.reorder(tf.SparseTensor(places, graph.data, graph.shape))

    def weights_of_tags(self) -> tf.Tensor:
        """Compute the classifier's weights after smoothing, float32 [tags, dim]."""
        states = self.embeddings
        for layer, transform in enumerate(self.transforms):
            if layer:
                states = tf.nn.leaky_relu(states, alpha=0.2)
            states = tf.sparse.sparse_dense_matmul(self._graph, tf.matmul(states, transform))  # [tags, dim]
        return states

    def call(self, vectors: tf.Tensor) -> tf.Tensor:
        """Map vectors [items, dim] to logits [items, tags]."""
        return tf.matmul(vectors, self.weights_of_tags(), transpose_b=True) + self.bias
