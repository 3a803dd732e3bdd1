"""Tells the tags of a content vector; tags that occur together may share what they know."""

from __future__ import annotations

import tensorflow as tf
from scipy import sparse


class TagClassifier(tf.keras.layers.Layer):
    """Logits of an item's tags: z . w_t + b_t, with the w smoothed over a graph of tags.

    ML-GCN (Chen et al., "Multi-Label Image Recognition with Graph Convolutional Networks", CVPR 2019, eq. 4-6): the
    classifier's weights are what graph convolutions (Kipf & Welling, ICLR 2017) make of tag embeddings, H <- f(A H W),
    with LeakyReLU between them. Departures: the embeddings are learned, not word vectors, and each W starts as the
    identity, so that the smoothing is there from the first step.

    Args:
      tags: how many.
      dim: of the content vectors.
      graph: normalised adjacency [tags, tags] of `tag_graph`; read if there are layers.
      layers: graph convolutions; 0 leaves every tag by itself.
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
        """The classifier's weights after smoothing, float32 [tags, dim]."""
        states = self.embeddings
        for layer, transform in enumerate(self.transforms):
            if layer:
                states = tf.nn.leaky_relu(states, alpha=0.2)
            states = tf.sparse.sparse_dense_matmul(self._graph, tf.matmul(states, transform))  # [tags, dim]
        return states

    def call(self, vectors: tf.Tensor) -> tf.Tensor:
        """Vectors [items, dim] -> logits [items, tags]."""
        return tf.matmul(vectors, self.weights_of_tags(), transpose_b=True) + self.bias
