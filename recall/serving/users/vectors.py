"""Computes query vectors with the exported query model: of users and their clicks, and of items by the trigger tower.

The NumPy user tower answers where the run has one, else TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import tensorflow as tf

from recall.core.arrays import Float32s
from recall.core.errors import ArtifactError, DataError
from recall.model.numpy_tower.tower import NumpyUserTower
from recall.serving.users.asked import AskedOfLog

UserTower = Literal["user", "student"]
"""Which tower answers for users: the user tower, or its student."""

_T = TypeVar("_T")


def load_query_model(run: Path, *, tower: UserTower) -> Any:
    """Load the query/ SavedModel of a run.

    Raises:
      ArtifactError: the student is asked for and the model has none.
      DataError: `tower` is neither user nor student.
    """
    if tower not in ("user", "student"):
        raise DataError(f"query: expected user or student, found {tower}")
    loaded = tf.saved_model.load(str(run / "model" / "query"))
    if tower == "student" and "student" not in loaded.signatures:
        raise ArtifactError(
            f"{run}: the model has no student; train it with model.student in the experiment file (`{{}}` takes its "
            "defaults), or ask the user tower"
        )
    return loaded


class QueryVectors:
    """Compute query vectors of users by id, and of items.

    Attributes:
      model: the query/ SavedModel.
      arrays: the user tower in NumPy; None where the run has none, or the student answers.

    Args:
      model: as the attribute.
      tower: the tower that answers for users.
      arrays: the user tower in NumPy, if there is one.
      further: names of further histories that the model reads.
    """

    def __init__(
        self,
        model: Any,
        *,
        tower: UserTower = "user",
        arrays: NumpyUserTower | None = None,
        further: Sequence[str] = (),
    ) -> None:
        self.model, self._tower, self._further = model, tower, tuple(further)
        self.arrays = arrays if tower == "user" else None

    @property
    def reads_times(self) -> bool:
        """Tell whether times of clicks may change a vector."""
        return self.arrays is None or self.arrays.reads_times

    def of_users(
        self,
        users: Sequence[str],
        histories: Sequence[Sequence[str]],
        *,
        ages_hours: Sequence[Sequence[float]] | None = None,
        further: Mapping[str, Sequence[Sequence[str]]] | None = None,
    ) -> Float32s:
        """Compute query vectors of users from item ids; see `Recaller.user_vectors`."""
        self._require_tower()
        if self.arrays:
            return self.arrays.vectors(users, histories, ages_hours)
        inputs = {"user_id": tf.constant(users, tf.string), "history": padded(histories, "", tf.string)}
        if self._tower == "student" or "user_in_full" not in self.model.signatures:
            return _vectors(self.model.signatures[self._tower](**inputs))
        signature = self.model.signatures["user_in_full"]
        if "history_age_hours" in signature.structured_input_signature[1]:
            ages = ages_hours or [[-1.0] * len(history) for history in histories]
            inputs["history_age_hours"] = padded(ages, -1.0, tf.float32)
        for name in self._further:
            own = (further or {}).get(name) or [[]] * len(users)
            inputs[f"history_{name}"] = padded(own, "", tf.string)
        return _vectors(signature(**inputs))

    def of_asked(self, asked: AskedOfLog, *, now_ms: int) -> Float32s:
        """Compute query vectors of users from catalogue rows; as `of_users`.

        Args:
          asked: the users.
          now_ms: the moment of the query (Unix milliseconds).
        """
        self._require_tower()
        if self.arrays:
            ages_hours = asked.flat_ages_hours(now_ms) if self.arrays.reads_times else None
            return self.arrays.vectors_by_row(asked.users, asked.rows, ages_hours)
        return self.of_users(asked.users, asked.history, ages_hours=asked.ages_hours(now_ms), further=asked.further)

    @property
    def has_trigger_tower(self) -> bool:
        """Tell whether the model has a trigger tower, which `of_items` needs."""
        return "trigger" in self.model.signatures

    def of_items(self, items: Sequence[str]) -> Float32s:
        """Compute query vectors of items that the query model knows by the trigger tower; float32 [items, width]."""
        return _vectors(self.model.signatures["trigger"](item_id=tf.constant(items, tf.string)))

    def _require_tower(self) -> None:
        """Refuse with ArtifactError where the model has no user tower."""
        if "user" not in self.model.signatures:
            raise ArtifactError("the model has no user tower (model.query: trigger); ask with similar(items=...)")


def padded(lists: Sequence[Sequence[_T]], padding: _T, dtype: tf.DType) -> tf.Tensor:
    """Pad lists at the end to a tensor [lists, longest], at least one wide."""
    width = max([1, *map(len, lists)])
    rows = [[*values, *[padding] * (width - len(values))] for values in lists]
    return tf.reshape(tf.constant(rows, dtype), [len(lists), width])


def _vectors(answer: Mapping[str, Any]) -> Float32s:
    """Return the vectors of a signature's answer."""
    vectors: Float32s = answer["vector"].numpy()
    return vectors
