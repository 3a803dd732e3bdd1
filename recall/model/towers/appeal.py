"""Scores the appeal of items, a popularity term equal for all queries: `model.appeal`."""

from __future__ import annotations

import tensorflow as tf


class Appeal(tf.keras.layers.Layer):
    """Score items for every query alike, by an MLP of the posterior. The score starts at zero.

    Vectors of unit length could express popularity by their direction only, at the cost of the similarity of tastes;
    and a direction learned from old clicks does not follow the clicks of today. A number per item expresses it without
    this cost, and it puts items with and without a trained id on one scale: a trained id has learned part of its
    popularity, so that the same posterior means something else where the id is unknown.
    """

    def __init__(self, *, hidden: int, name: str = "appeal") -> None:
        super().__init__(name=name)
        self.hidden = tf.keras.layers.Dense(hidden, activation="tanh", name=f"{name}_hidden")
        self.score = tf.keras.layers.Dense(1, kernel_initializer="zeros", name=f"{name}_score")

    def call(self, features: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
        """Score `posterior_features` [..., n] and bool [...] known ids: float32 [..., 1], on the scale of cosines."""
        known = tf.cast(known, tf.float32)[..., tf.newaxis]
        return self.score(self.hidden(tf.concat([features, known], axis=-1)))


def with_appeal(vectors: tf.Tensor, appeal: tf.Tensor | None = None) -> tf.Tensor:
    """Append the appeal, [..., 1], or 0 to item vectors: float32 [..., width] -> [..., width + 1]."""
    return tf.concat([vectors, tf.zeros_like(vectors[..., :1]) if appeal is None else appeal], axis=-1)


def with_appeal_factor(queries: tf.Tensor) -> tf.Tensor:
    """Append a 1, the factor of the appeal, to query vectors: float32 [..., width] -> [..., width + 1]."""
    return tf.concat([queries, tf.ones_like(queries[..., :1])], axis=-1)
