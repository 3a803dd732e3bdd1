"""Fuses modalities by cross-modal attention: each modality attends to the others, then all are pooled."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.fusion.contract import FusionOutput, ModalityFusion
from recall.model.fusion.masks import masked_softmax
from recall.model.randomness import dropout_layer


class TokenAttention(tf.keras.layers.Layer):
    """Attend among the tokens of an item: multi-head scaled dot-product attention under a mask, without biases.

    Vaswani et al., NIPS 2017, section 3.2. A token that may attend to nothing gets zeros.
    """

    def __init__(self, heads: int, dim: int) -> None:
        super().__init__(name="attention")
        self.heads, self.width = heads, dim // heads
        self.inputs = tf.keras.layers.Dense(3 * dim, use_bias=False, name="query_key_value")
        self.outputs = tf.keras.layers.Dense(dim, use_bias=False, name="output")

    def call(self, tokens: tf.Tensor, allowed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Compute the attention of each token to the tokens that it may attend to.

        Args:
          tokens: float32 [items, tokens, dim].
          allowed: bool [items, from, to], whether token `from` may attend to token `to`.

        Returns:
          The result of each token, float32 [items, tokens, dim], and the weights float32 [items, heads, from, to].
        """
        count = tokens.shape[1]
        projected = tf.reshape(self.inputs(tokens), [-1, count, 3 * self.heads, self.width])
        query, key, value = tf.split(tf.transpose(projected, [0, 2, 1, 3]), 3, axis=1)  # [items, heads, tokens, width]
        scores = tf.matmul(query * self.width**-0.5, key, transpose_b=True)  # [items, heads, from, to]
        weights = masked_softmax(scores, tf.broadcast_to(allowed[:, tf.newaxis], tf.shape(scores)))
        joined = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])  # [items, tokens, heads, width]
        return self.outputs(tf.reshape(joined, [-1, count, self.heads * self.width])), weights


class CrossAttentionFusion(ModalityFusion):
    """Let each modality attend to the others, then pool them by additive attention.

    y_m = norm(x_m + attention of x_m to the other modalities); the result is the mean of the y_m, weighted by
    softmax_m(v . tanh(U y_m)).

    The cross-modal attention with a residual connection comes from the Multimodal Transformer (Tsai et al., ACL 2019),
    the pooling from additive attention (Bahdanau et al., ICLR 2015), with a learned vector in place of a query.
    Departures: a modality is one vector instead of a sequence and attends to all others at once, not in one network per
    pair; there is one layer and no feed-forward part, since the meta tower follows. A modality that is alone is only
    normalised.
    """

    def __init__(self, names: Sequence[str], *, config: ModelConfig) -> None:
        super().__init__(names, config=config)
        self.attention = TokenAttention(config.fusion.heads, config.dim)
        self.norm = tf.keras.layers.LayerNormalization(epsilon=1e-6, name="norm")
        self.dropout = dropout_layer(config.dropout)
        self.hidden = tf.keras.layers.Dense(config.dim, activation="tanh", name="pool_hidden")
        self.score = tf.keras.layers.Dense(1, use_bias=False, name="pool_score")

    def fuse(self, states: tf.Tensor, present: tf.Tensor, *, training: bool) -> FusionOutput:
        """Let each modality attend to the others, then pool them; shapes as in the base class."""
        others = present[:, tf.newaxis] & ~tf.eye(len(self.names), dtype=tf.bool)  # [items, from, to]
        attended, _ = self.attention(states, others)
        states = self.norm(states + self.dropout(attended, training=training))  # [items, modalities, dim]
        weights = masked_softmax(tf.squeeze(self.score(self.hidden(states)), -1), present)
        return FusionOutput(tf.einsum("im,imd->id", weights, states), weights, states)
