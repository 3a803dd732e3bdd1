"""Makes the audience vector of items: live behaviour, read from what the users who clicked had clicked just before.

`recall.data.audience` says who that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from recall.model.layers.features import dense_stack


class Audience(NamedTuple):
    """Hold the audiences of items as of a moment, averaged."""

    mean: tf.Tensor  # float32 [items, dim], mean of the tokens of the sources; 0 for an item without any
    size: tf.Tensor  # float32 [items], number of sources

    @classmethod
    def of(cls, tokens: tf.Tensor, is_there: tf.Tensor) -> Audience:
        """Average tokens, float32 [items, last, dim], of the sources that are there, bool [items, last]."""
        weights = tf.cast(is_there, tf.float32)
        size = tf.reduce_sum(weights, axis=1)
        total = tf.reduce_sum(tokens * weights[:, :, tf.newaxis], axis=1)
        return cls(total / tf.maximum(size, 1.0)[:, tf.newaxis], size)

    @classmethod
    def of_columns(cls, columns: tf.Tensor) -> Audience:
        """Read the result of `columns`."""
        return cls(columns[:, :-1], columns[:, -1])

    @property
    def columns(self) -> tf.Tensor:
        """Return means and sizes as float32 [items, dim + 1], to stand behind a posterior."""
        return tf.concat([self.mean, self.size[:, tf.newaxis]], axis=1)

    @property
    def feature(self) -> tf.Tensor:
        """Return the size on the scale of `posterior_features`, float32 [items, 1]."""
        return tf.math.log1p(self.size)[:, tf.newaxis] / 5


class AudienceTower(tf.keras.layers.Layer):
    """Turn the mean of the sources' tokens into a vector of the item: the mean plus an MLP that starts at zero.

    Args:
      dim: length of tokens and vectors.
      hidden: layers of the MLP.
      dropout: share of units.
    """

    def __init__(self, dim: int, *, hidden: Sequence[int], dropout: float, name: str = "audience") -> None:
        super().__init__(name=name)
        self.stack = dense_stack(tuple(hidden), dim, dropout=dropout, name=name, starts_at_zero=True)

    def call(self, audience: Audience, *, training: bool = False) -> tf.Tensor:
        """Compute audience vectors, float32 [items, dim]; 0 for an item without an audience."""
        vectors = audience.mean + self.stack(audience.mean, training=training)
        return tf.where(audience.size[:, tf.newaxis] > 0, vectors, 0.0)


# Where the share of the audience starts, in logits, against 0 of the content.
_START, _START_SLOPE = -1.5, 2.0


class AudienceGate(tf.keras.layers.Layer):
    """Score how far the audience of an item is to be trusted, as a logit against the content's, which is 0.

    MLP(features, log size) + slope . log size. With `monotone` it never falls when the audience grows and the rest
    stays, as in `Gate`: the weights that the size meets are >= 0.

    Args:
      hidden: units of the MLP.
      monotone: as above.
    """

    def __init__(self, *, hidden: int, monotone: bool = False, name: str = "audience_gate") -> None:
        super().__init__(name=name)
        self.monotone = monotone
        self.of_features = tf.keras.layers.Dense(hidden, name=f"{name}_features")
        self.of_size = self.add_weight(name="size", shape=(1, hidden), initializer="glorot_uniform")
        self.second = self.add_weight(name="second", shape=(hidden, 1), initializer="zeros")
        self.bias = self.add_weight(name="bias", shape=(1,), initializer=tf.keras.initializers.Constant(_START))
        self.slope = self.add_weight(name="slope", shape=(), initializer=tf.keras.initializers.Constant(_START_SLOPE))

    def call(self, features: tf.Tensor, audience: Audience) -> tf.Tensor:
        """Compute logits from `gate_features`, float32 [items, features]: float32 [items, 1]."""
        of_size, second, slope = self.of_size, self.second, self.slope
        if self.monotone:
            of_size, second, slope = tf.abs(of_size), tf.abs(second), tf.abs(slope)
        size = audience.feature
        hidden = tf.tanh(self.of_features(features) + tf.matmul(size, of_size))
        return tf.matmul(hidden, second) + slope * size + self.bias


class Shares(NamedTuple):
    """Hold how the gate divides one among the vectors of items."""

    behaviour: tf.Tensor  # [items, 1 or dim]
    content: tf.Tensor  # [items, 1 or dim]
    audience: tf.Tensor | None = None  # [items, 1 or dim]; 0 for an item without an audience

    @classmethod
    def of_two(cls, behaviour: tf.Tensor) -> Shares:
        """Give the content what the behaviour share, [items, 1 or dim], leaves."""
        return cls(behaviour, 1 - behaviour)

    @classmethod
    def of_three(cls, behaviour: tf.Tensor, audience: tf.Tensor, size: tf.Tensor) -> Shares:
        """Divide by a softmax of logits, of which the content's is 0: without an audience as the gate of two does.

        Args:
          behaviour: float32 [items, 1 or dim], logits of the behaviour vector.
          audience: float32 [items, 1], logits of the audience vector.
          size: float32 [items], number of sources.
        """
        content = tf.zeros_like(behaviour)
        audience = tf.where(size[:, tf.newaxis] > 0, audience, -np.inf) + content
        shares = tf.nn.softmax(tf.stack([behaviour, content, audience]), axis=0)
        return cls(*tf.unstack(shares))
