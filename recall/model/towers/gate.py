"""Gates items between behaviour and content, given their posterior and the training clicks of their id."""

from __future__ import annotations

import tensorflow as tf

from recall.model.towers.evidence import PER_HALF_LIFE, feature_count


def gate_features(posterior: tf.Tensor, learned: tf.Tensor) -> tf.Tensor:
    """Join the inputs of the gate: `posterior_features` [..., n] and `learned_feature` of the id [...] -> [..., n + 1].

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

    With `monotone` the share never falls when exposures, clicks or training clicks grow while the age and the lifts
    stay: along these inputs all weights are >= 0 and the activation rises (Sill, NIPS 1997). A CTR falls when exposures
    grow alone; it is then not an input, since the counts contain it.

    Args:
      width: 1, or the number of dimensions.
      hidden: units of the MLP.
      monotone: as above.
      half_lives: half-lives of the fresh evidence among the features.
    """

    def __init__(self, width: int, *, hidden: int, monotone: bool, half_lives: int = 0, name: str = "gate") -> None:
        super().__init__(name=name)
        self.monotone, self._half_lives = monotone, half_lives
        self._learned = feature_count(half_lives)  # place of the last feature
        self.first = self.add_weight(name="first", shape=(self._learned + 1, hidden), initializer="glorot_uniform")
        self.first_bias = self.add_weight(name="first_bias", shape=(hidden,), initializer="zeros")
        self.second = self.add_weight(name="second", shape=(hidden, width), initializer="glorot_uniform")
        self.second_bias = self.add_weight(
            name="second_bias", shape=(width,), initializer=tf.keras.initializers.Constant(_START_NEW)
        )
        self.slopes = self.add_weight(
            name="slopes", shape=(2, width), initializer=tf.keras.initializers.Constant(_START_SLOPE)
        )

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Compute shares from `gate_features`, float32 [..., features]: float32 [..., width] in (0, 1)."""
        return tf.sigmoid(self.logits(features))

    def logits(self, features: tf.Tensor) -> tf.Tensor:
        """Compute the logits of the shares: float32 [..., width]."""
        first, second, slopes = self.first, self.second, self.slopes
        if self.monotone:
            exposures, clicks, ctr, age, *fresh, learned = tf.unstack(first, axis=0)
            rows = [tf.abs(exposures), tf.abs(clicks), tf.zeros_like(ctr), age]
            for start in range(0, len(fresh), PER_HALF_LIFE):
                exposures, clicks, ctr, lift = fresh[start : start + PER_HALF_LIFE]
                rows += [tf.abs(exposures), tf.abs(clicks), tf.zeros_like(ctr), tf.abs(lift)]
            first = tf.stack([*rows, tf.abs(learned)])
            second, slopes = tf.abs(second), tf.abs(slopes)
        hidden = tf.tanh(tf.tensordot(features, first, 1) + self.first_bias)
        rising = tf.tensordot(tf.gather(features, [0, self._learned], axis=-1), slopes, 1)
        return tf.tensordot(hidden, second, 1) + rising + self.second_bias
