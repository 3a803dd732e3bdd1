"""Makes several content vectors per item: each learned code weighs the modalities in its own way."""

from __future__ import annotations

import tensorflow as tf

from recall.model.fusion.masks import masked_softmax


class CodeAttention(tf.keras.layers.Layer):
    """Attend to the modalities of an item with each code: one content vector per code.

    y_j = f + sum_m a_jm h_m + o_j, where a_j = softmax_m(c_j . h_m / |h_m|) over the modalities that an item has. h_m
    are the tokens of the modalities, f is the fused vector, c_j and o_j are learned. These are the codes of
    Poly-encoders (Humeau et al., ICLR 2020, section 4.4), on the candidate side.

    Departures: the paper attends to the words of a text, an item has a few modalities, some of them missing, and codes
    differ only in how they mix them. So each code adds a learned vector, which separates the vectors of an item with
    one modality. All codes share f, which is all that an item without modalities has. Tokens are compared by direction,
    so that the attention starts equally sharp for every fusion, whatever the length of its tokens.

    Args:
      count: number of codes.
      dim: width of the tokens.
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__(name="codes")
        # Two initializers, since one that is used twice draws the same numbers again.
        directions, offsets = (tf.keras.initializers.RandomNormal(stddev=stddev) for stddev in (1.0, 0.05))
        self.directions = self.add_weight(name="directions", shape=(count, dim), initializer=directions)
        self.offsets = self.add_weight(name="offsets", shape=(count, dim), initializer=offsets)

    def call(self, fused: tf.Tensor, tokens: tf.Tensor, present: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Compute the content vectors of items.

        Args:
          fused: float32 [items, dim], fused vectors.
          tokens: float32 [items, modalities, dim]; the values of missing modalities are ignored.
          present: bool [items, modalities].

        Returns:
          Vectors float32 [items, codes, dim], and weights float32 [items, modalities], the mean over the codes: 0 where
          missing, else they sum to 1 per item.
        """
        tokens = tf.where(present[..., tf.newaxis], tokens, 0.0)
        scores = tf.einsum("cd,imd->icm", self.directions, tf.math.l2_normalize(tokens, axis=-1))
        allowed = tf.broadcast_to(present[:, tf.newaxis], tf.shape(scores))
        weights = masked_softmax(scores, allowed)  # [items, codes, modalities]
        read = tf.matmul(weights, tokens)  # [items, codes, dim]
        return fused[:, tf.newaxis] + read + self.offsets, tf.reduce_mean(weights, axis=1)
