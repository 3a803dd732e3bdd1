"""The gated model as the tutorials of TensorFlow Recommenders would write it: Keras layers, one task, one optimizer.

Ids come as integers, which spares it the StringLookup of the tutorials. It has the library's parts for the query (id,
mean of the history), for both item towers and the gate, and one loss; it neither corrects for popularity nor leaves
out accidental hits. History items enter by id, or, where the batch has their content, by id and content.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf
import tensorflow_recommenders as tfrs

Batch = Mapping[str, tf.Tensor]


class GatedModel(tfrs.Model):
    """Query tower, behaviour and meta tower, and a gate that reads the posterior."""

    def __init__(self, *, sizes: Mapping[str, int], dim: int, hidden: int) -> None:
        super().__init__()
        self.tables = {name: tf.keras.layers.Embedding(size, dim) for name, size in sizes.items()}
        self.query, self.behaviour, self.meta = (_mlp(hidden, dim) for _ in range(3))
        self.token = tf.keras.layers.Dense(dim)
        self.gate = tf.keras.Sequential(
            [tf.keras.layers.Dense(16, activation="relu"), tf.keras.layers.Dense(1, activation="sigmoid")]
        )
        self.task = tfrs.tasks.Retrieval()

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """Loss of a batch: user, item, author, category int32 [batch], history int32 [batch, time], duration float32
        [batch], posterior float32 [batch, 4]; and maybe history_category and history_duration [batch, time]."""
        tokens = self.tables["item"](inputs["history"])  # [batch, time, dim]
        if "history_category" in inputs:
            category = self.tables["category"](inputs["history_category"])  # [batch, time, dim]
            content = tf.concat([category, inputs["history_duration"][..., tf.newaxis]], axis=-1)
            tokens += self.token(self.meta(content))
        clicked = tf.reduce_mean(tokens, axis=1)  # [batch, dim]
        query = self.query(tf.concat([self.tables["user"](inputs["user"]), clicked], axis=1))
        ids = [self.tables[name](inputs[name]) for name in ("item", "author")]
        content = [self.tables["category"](inputs["category"]), inputs["duration"][:, tf.newaxis]]
        share = self.gate(tf.math.log1p(inputs["posterior"]))  # [batch, 1]
        behaviour, meta = self.behaviour(tf.concat(ids, axis=1)), self.meta(tf.concat(content, axis=1))
        return self.task(query, share * behaviour + (1 - share) * meta, compute_metrics=False)


def optimizer(name: str) -> tf.keras.optimizers.Optimizer:
    """Keras' own, as the tutorials use them."""
    return tf.keras.optimizers.Adam(1e-3) if name == "adam" else tf.keras.optimizers.Adagrad(0.1)


def _mlp(hidden: int, dim: int) -> tf.keras.Sequential:
    return tf.keras.Sequential([tf.keras.layers.Dense(hidden, activation="relu"), tf.keras.layers.Dense(dim)])
