"""The exported query model as it is asked for users: by its user tower, or by the student of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import tensorflow as tf

from recall.errors import ArtifactError, DataError

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
