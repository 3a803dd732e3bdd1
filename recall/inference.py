"""Vectors out of a trained model, in batches: the catalogue's, and the queries of examples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recall.dataset import Examples, pad
from recall.model import RecallModel

Matrix = npt.NDArray[np.float32]


def encode_items(model: RecallModel, posterior: Matrix, *, batch_size: int = 8192) -> tuple[Matrix, Matrix]:
    """Vectors of the whole catalogue at a moment.

    Args:
      model: a trained model.
      posterior: float32 [items, 4]: exposures, clicks, smoothed CTR, hours since first exposure.
      batch_size: items per call.

    Returns:
      float32 [items, width] vectors, and float32 [items] behaviour shares, NaN where the structure has no gate.
    """

    @tf.function(reduce_retracing=True)
    def encode(rows: tf.Tensor, posterior: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        result = model.item_vectors_of(model.item_table.gather(rows), posterior)
        nothing = tf.fill(tf.shape(rows), np.float32(np.nan))
        return result.vector, nothing if result.share is None else result.share

    starts = range(0, len(posterior), batch_size)
    parts = [
        encode(
            tf.range(start, min(start + batch_size, len(posterior))), tf.constant(posterior[start : start + batch_size])
        )
        for start in starts
    ]
    vectors, shares = zip(*parts, strict=True)
    return np.concatenate(vectors), np.concatenate(shares)


def encode_users(
    model: RecallModel, users: npt.NDArray[np.object_], history: npt.NDArray[np.int32], *, batch_size: int = 4096
) -> Matrix:
    """User queries: user ids [n] and histories int32 [n, time] (item rows, oldest first, -1 after the end)."""
    encode = tf.function(model.user_queries, reduce_retracing=True)
    rows = model.user_rows(tf.constant(users.astype(str).astype(object), tf.string))
    parts = [
        encode(rows[start : start + batch_size], tf.constant(history[start : start + batch_size]))
        for start in range(0, len(users), batch_size)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, model.items.width), np.float32)


def encode_triggers(model: RecallModel, items: npt.NDArray[np.int32], *, batch_size: int = 8192) -> Matrix:
    """Trigger queries of item rows [n]."""
    encode = tf.function(model.trigger_queries, reduce_retracing=True)
    parts = [encode(tf.constant(items[start : start + batch_size])) for start in range(0, len(items), batch_size)]
    return np.concatenate(parts) if parts else np.zeros((0, model.items.width), np.float32)


def answerable(model: RecallModel, examples: Examples) -> Examples:
    """The examples that the model has a query for: an i2i model needs a trigger, others take all."""
    if model.user_tower:
        return examples
    return examples.select(np.flatnonzero(examples.triggers >= 0))


def encode_queries(model: RecallModel, examples: Examples) -> Matrix:
    """Query vectors of `answerable` examples: of their users, or of their triggers if there is no user tower."""
    if model.user_tower:
        return encode_users(model, examples.users, pad(examples.history, width=model.config.data.history))
    return encode_triggers(model, examples.triggers)
