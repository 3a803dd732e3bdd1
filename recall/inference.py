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
    rows = np.arange(len(posterior), dtype=np.int32)
    parts = [
        model.encode_items(
            tf.constant(rows[start : start + batch_size]), tf.constant(posterior[start : start + batch_size])
        )
        for start in range(0, len(posterior), batch_size)
    ]
    vectors, shares = zip(*parts, strict=True)
    return np.concatenate(vectors), np.concatenate(shares)


def encode_users(
    model: RecallModel, users: npt.NDArray[np.object_], history: npt.NDArray[np.int32], *, batch_size: int = 4096
) -> Matrix:
    """User queries.

    Args:
      model: one with a user tower.
      users: ids [n]; those that the users file lacks have no profile.
      history: int32 [n, time], item rows, oldest first, -1 after the end.
      batch_size: users per call.

    Returns:
      float32 [n, width], or [n, interests, width] of a model with several interests.
    """
    rows = model.user_rows(tf.constant(users.astype(str).astype(object), tf.string))
    parts = [
        model.encode_users(rows[start : start + batch_size], tf.constant(history[start : start + batch_size]))
        for start in range(0, max(1, len(users)), batch_size)  # nobody has a shape too
    ]
    return np.concatenate(parts)


def encode_triggers(model: RecallModel, items: npt.NDArray[np.int32], *, batch_size: int = 8192) -> Matrix:
    """Trigger queries of item rows [n]."""
    parts = [
        model.encode_triggers(tf.constant(items[start : start + batch_size]))
        for start in range(0, len(items), batch_size)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, model.items.width), np.float32)


def answerable(model: RecallModel, examples: Examples) -> Examples:
    """The examples that the model has a query for: an i2i model needs a trigger, others take all."""
    if model.user_tower:
        return examples
    return examples.select(np.flatnonzero(examples.triggers >= 0))


def encode_queries(model: RecallModel, examples: Examples) -> Matrix:
    """Query vectors of `answerable` examples: of their users, or of their triggers if there is no user tower.

    As `encode_users`: [examples, interests, width] where users have several interests.
    """
    if model.user_tower:
        return encode_users(model, examples.users, pad(examples.history, width=model.config.data.history))
    return encode_triggers(model, examples.triggers)
