"""Gates items between behaviour and content, given their posterior and the training clicks of their id."""

from __future__ import annotations

import tensorflow as tf


def posterior_features(posterior: tf.Tensor, *, prior_ctr: float) -> tf.Tensor:
    """Convert posteriors to inputs of gate and appeal, of about unit scale: log counts, log relative CTR, log age.

    Args:
      posterior: float32 [..., 4]: exposures, clicks, smoothed CTR, hours since the first exposure.
      prior_ctr: the CTR to which an item without exposures is smoothed; the feature of this CTR is 0.

    Returns:
      float32 [..., 4].
    """
    exposures, clicks, ctr, age_hours = tf.unstack(posterior, axis=-1)
    relative_ctr = tf.math.log(tf.maximum(ctr, 1e-6) / prior_ctr)
    return tf.stack(
        [tf.math.log1p(exposures) / 5, tf.math.log1p(clicks) / 5, relative_ctr, tf.math.log1p(age_hours) / 5], axis=-1
    )


def gate_features(posterior: tf.Tensor, learned: tf.Tensor) -> tf.Tensor:
    """Join the inputs of the gate: `posterior_features` [..., 4] and `learned_feature` of the id [...] -> [..., 5].

    Both are needed. The posterior counts the clicks up to now. An item published after the training has a posterior,
    too, but its behaviour vector has learned nothing from these clicks.
    """
    return tf.concat([posterior, learned[..., tf.newaxis]], axis=-1)


def learned_feature(clicks: tf.Tensor) -> tf.Tensor:
    """Convert the numbers of training clicks of ids to the scale of `posterior_features`."""
    return tf.math.log1p(clicks) / 5


# Where the gate starts, in logits: a share of 0.1 for a new item, 0.4 for one that got its first 50 exposures after the
# training, 0.8 for one with 100 exposures and 30 training clicks.
_START_NEW, _START_SLOPE = -2.0, 2.0


class Gate(tf.keras.layers.Layer):
    """Compute the behaviour share g, one number or one per dimension.

    g = sigmoid(MLP(features) + slopes . [log exposures, log training clicks]); it starts as a rising function of both.

    With `monotone` the share never falls when exposures, clicks or training clicks grow while the age stays: along
    these inputs all weights are >= 0 and the activation rises (Sill, NIPS 1997). The smoothed CTR falls when exposures
    grow alone; it is then not an input, since the counts contain it.
    """

    def __init__(self, width: int, *, hidden: int, monotone: bool, name: str = "gate") -> None:
        super().__init__(name=name)
        self.monotone = monotone
        self.first = self.add_weight(name="first", shape=(5, hidden), initializer="glorot_uniform")
        self.first_bias = self.add_weight(name="first_bias", shape=(hidden,), initializer="zeros")
        self.second = self.add_weight(name="second", shape=(hidden, width), initializer="glorot_uniform")
        self.second_bias = self.add_weight(
            name="second_bias", shape=(width,), initializer=tf.keras.initializers.Constant(_START_NEW)
        )
        self.slopes = self.add_weight(
            name="slopes", shape=(2, width), initializer=tf.keras.initializers.Constant(_START_SLOPE)
        )

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Compute shares from `gate_features`, float32 [..., 5]: float32 [..., width] in (0, 1)."""
        first, second, slopes = self.first, self.second, self.slopes
        if self.monotone:
            exposures, clicks, ctr, age, learned = tf.unstack(first, axis=0)
            first = tf.stack([tf.abs(exposures), tf.abs(clicks), tf.zeros_like(ctr), age, tf.abs(learned)])
            second, slopes = tf.abs(second), tf.abs(slopes)
        hidden = tf.tanh(tf.tensordot(features, first, 1) + self.first_bias)
        rising = tf.tensordot(tf.gather(features, [0, 4], axis=-1), slopes, 1)
        return tf.sigmoid(tf.tensordot(hidden, second, 1) + rising + self.second_bias)
