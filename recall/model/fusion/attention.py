"""Attention among the few tokens of an item."""

from __future__ import annotations

import tensorflow as tf

from recall.model.fusion.masks import masked_softmax


class TokenAttention(tf.keras.layers.Layer):
    """Multi-head scaled dot-product attention (Vaswani et al., NIPS 2017, section 3.2) under a mask, without biases.

    A token that may look at nothing gets zeros.
    """

    def __init__(self, heads: int, dim: int) -> None:
        super().__init__(name="attention")
        self.heads, self.width = heads, dim // heads
        self.inputs = tf.keras.layers.Dense(3 * dim, use_bias=False, name="query_key_value")
        self.outputs = tf.keras.layers.Dense(dim, use_bias=False, name="output")

    def call(self, tokens: tf.Tensor, allowed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Lets tokens look at each other.

        Args:
          tokens: float32 [items, tokens, dim].
          allowed: bool [items, from, to], which token may look at which.

        Returns:
          float32 [items, tokens, dim] what each found, and its weights float32 [items, heads, from, to].
        """
        count = tokens.shape[1]
        projected = tf.reshape(self.inputs(tokens), [-1, count, 3 * self.heads, self.width])
        query, key, value = tf.split(tf.transpose(projected, [0, 2, 1, 3]), 3, axis=1)  # [items, heads, tokens, width]
        scores = tf.matmul(query * self.width**-0.5, key, transpose_b=True)  # [items, heads, from, to]
        weights = masked_softmax(scores, tf.broadcast_to(allowed[:, tf.newaxis], tf.shape(scores)))
        joined = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])  # [items, tokens, heads, width]
        return self.outputs(tf.reshape(joined, [-1, count, self.heads * self.width])), weights
