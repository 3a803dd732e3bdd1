"""Appeal: what an item's posterior says for everybody, as one more dimension of its vector."""

from __future__ import annotations

import tensorflow as tf


class Appeal(tf.keras.layers.Layer):
    """Score that is added for every query, an MLP of the posterior; it starts at zero.

    Vectors of unit length leave popularity no place but their direction, where it costs the similarity of tastes; and
    a direction learned from old clicks does not follow what is liked today. One number per item carries both, and
    puts items with and without a trained id on one scale: an id has learned part of its popularity, so the same
    posterior means something else where the id is unknown.
    """

    def __init__(self, *, hidden: int, name: str = "appeal") -> None:
        super().__init__(name=name)
        self.hidden = tf.keras.layers.Dense(hidden, activation="tanh", name=f"{name}_hidden")
        self.score = tf.keras.layers.Dense(1, kernel_initializer="zeros", name=f"{name}_score")

    def call(self, features: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
        """float32 [..., 4] of `posterior_features`, bool [...] known ids -> float32 [..., 1], on a cosine's scale."""
        known = tf.cast(known, tf.float32)[..., tf.newaxis]
        return self.score(self.hidden(tf.concat([features, known], axis=-1)))


def with_appeal(vectors: tf.Tensor, appeal: tf.Tensor | None = None) -> tf.Tensor:
    """Item vectors with their last dimension: appeal [..., 1], or 0. float32 [..., width] -> [..., width + 1]."""
    return tf.concat([vectors, tf.zeros_like(vectors[..., :1]) if appeal is None else appeal], axis=-1)


def asking_for_appeal(queries: tf.Tensor) -> tf.Tensor:
    """Query vectors with a 1 for that dimension: float32 [..., width] -> [..., width + 1]."""
    return tf.concat([queries, tf.ones_like(queries[..., :1])], axis=-1)
