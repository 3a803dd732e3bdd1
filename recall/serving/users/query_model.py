"""The exported query model as it is asked for users: by its user tower, or by the student of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from recall.core.arrays import Bools, Float32s
from recall.core.errors import ArtifactError, DataError

UserQuery = Literal["user", "student"]


def load_query_model(run: Path, *, query: UserQuery) -> Any:
    """The query/ SavedModel of a run, which has to have a student if that is to be asked.

    Raises:
      ArtifactError: it has none.
      DataError: `query` is neither user nor student.
    """
    if query not in ("user", "student"):
        raise DataError(f"query: expected user or student, found {query}")
    loaded = tf.saved_model.load(str(run / "model" / "query"))
    if query == "student" and "student" not in loaded.signatures:
        raise ArtifactError(
            f"{run}: the model has no student; train it with model.student in the experiment file (`{{}}` takes its "
            "defaults), or ask the user tower"
        )
    return loaded


def trigger_vectors(query: Any, items: Sequence[str], *, own: Float32s, known: Bools) -> Float32s:
    """Queries by the trigger tower for items that it was trained with; for those that came later, their own vectors.

    Args:
      query: the query model.
      items: ids.
      own: float32 [items, width] or [items, codes, width].
      known: bool [items], whether the query model holds them.

    Returns:
      float32 [items, width], or of the shape of `own` where some came later.
    """
    if known.all():
        return np.asarray(query.signatures["trigger"](item_id=tf.constant(items, tf.string))["vector"])
    vectors = own.copy()
    if known.any():
        asked = [name for name, is_known in zip(items, known, strict=True) if is_known]
        found = query.signatures["trigger"](item_id=tf.constant(asked, tf.string))["vector"].numpy()
        vectors[known] = found if own.ndim == 2 else found[:, np.newaxis]  # each of its entries the same
    return vectors
