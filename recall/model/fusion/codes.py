"""Several vectors for an item's content: learned codes, each of which reads the modalities in its own way."""

from __future__ import annotations

import tensorflow as tf

from recall.model.fusion.masks import masked_softmax


class CodeAttention(tf.keras.layers.Layer):
    """y_j = f + sum_m a_jm h_m + o_j, where a_j = softmax_m(c_j . h_m / |h_m|) over the modalities that an item has.

    h_m are the tokens of the modalities, f is what the fusion makes of them, c_j and o_j are learned. The codes of
    Poly-encoders (Humeau et al., ICLR 2020, section 4.4), on the side of the candidate. Departures: the paper has a
    text's words where an item has a few modalities, some of which are missing, so that codes differ in little but how
    they mix them. So each adds a vector of its own, with which items of one modality have different vectors too, and
    all share f, which is the whole of an item without modalities. Tokens are compared by direction, so that codes
    start equally decided over those of every fusion, whatever their length.

    Args:
      count: codes.
      dim: width of the tokens.
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__(name="codes")
        # Two initializers: one that is used twice gives the same numbers again.
        directions, offsets = (tf.keras.initializers.RandomNormal(stddev=stddev) for stddev in (1.0, 0.05))
        self.directions = self.add_weight(name="directions", shape=(count, dim), initializer=directions)
        self.offsets = self.add_weight(name="offsets", shape=(count, dim), initializer=offsets)

    def call(self, fused: tf.Tensor, tokens: tf.Tensor, present: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads the modalities of items with every code.

        Args:
          fused: float32 [items, dim].
          tokens: float32 [items, modalities, dim]; what stands where one is missing means nothing.
          present: bool [items, modalities].

        Returns:
          Vectors float32 [items, codes, dim], and the mean weights of the codes float32 [items, modalities]: 0 where
          missing, the others of an item sum to 1.
        """
        tokens = tf.where(present[..., tf.newaxis], tokens, 0.0)
        scores = tf.einsum("cd,imd->icm", self.directions, tf.math.l2_normalize(tokens, axis=-1))
        allowed = tf.broadcast_to(present[:, tf.newaxis], tf.shape(scores))
        weights = masked_softmax(scores, allowed)  # [items, codes, modalities]
        read = tf.matmul(weights, tokens)  # [items, codes, dim]
        return fused[:, tf.newaxis] + read + self.offsets, tf.reduce_mean(weights, axis=1)
