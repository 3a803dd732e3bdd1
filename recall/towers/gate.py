"""The gate: how far an item's behaviour vector is trusted, given its posterior."""

from __future__ import annotations

import tensorflow as tf


def posterior_features(posterior: tf.Tensor, *, prior_ctr: float) -> tf.Tensor:
    """Gate inputs of about unit scale: log counts, CTR relative to the prior, log age.

    Args:
      posterior: float32 [..., 4]: exposures, clicks, smoothed CTR, hours since the first exposure.
      prior_ctr: the CTR that an item without exposures is smoothed to; its feature is then 0.

    Returns:
      float32 [..., 4].
    """
    exposures, clicks, ctr, age_hours = tf.unstack(posterior, axis=-1)
    relative_ctr = tf.math.log(tf.maximum(ctr, 1e-6) / prior_ctr)
    return tf.stack(
        [tf.math.log1p(exposures) / 5, tf.math.log1p(clicks) / 5, relative_ctr, tf.math.log1p(age_hours) / 5], axis=-1
    )


# Where the gate starts, in logits: a share of about 0.1 without exposures, 0.5 at 11 and 0.9 at 150.
_START_WITHOUT_EXPOSURES, _START_SLOPE = -2.0, 4.0


class Gate(tf.keras.layers.Layer):
    """Behaviour share g = sigmoid(MLP(posterior) + slope * log exposures), one per item or one per dimension.

    It starts as a rising function of exposures and learns from there.

    With `monotone` the share provably never falls when exposures or clicks grow while the age stays: along these
    two inputs all weights are >= 0 and the activation rises (Sill, NIPS 1997). The smoothed CTR, which falls when
    exposures grow alone, is then not an input; counts carry it.
    """

    def __init__(self, width: int, *, hidden: int, monotone: bool, name: str = "gate") -> None:
        super().__init__(name=name)
        self.monotone = monotone
        self.first = self.add_weight(name="first", shape=(4, hidden), initializer="glorot_uniform")
        self.first_bias = self.add_weight(name="first_bias", shape=(hidden,), initializer="zeros")
        self.second = self.add_weight(name="second", shape=(hidden, width), initializer="glorot_uniform")
        self.second_bias = self.add_weight(
            name="second_bias", shape=(width,), initializer=tf.keras.initializers.Constant(_START_WITHOUT_EXPOSURES)
        )
        self.slope = self.add_weight(
            name="slope", shape=(width,), initializer=tf.keras.initializers.Constant(_START_SLOPE)
        )  # fmt: skip

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """float32 [..., 4] of `posterior_features` -> float32 [..., width] in (0, 1)."""
        first, second, slope = self.first, self.second, self.slope
        if self.monotone:
            exposures, clicks, ctr, age = tf.unstack(first, axis=0)
            first = tf.stack([tf.abs(exposures), tf.abs(clicks), tf.zeros_like(ctr), age])
            second, slope = tf.abs(second), tf.abs(slope)
        hidden = tf.tanh(tf.tensordot(features, first, 1) + self.first_bias)
        return tf.sigmoid(tf.tensordot(hidden, second, 1) + slope * features[..., :1] + self.second_bias)
