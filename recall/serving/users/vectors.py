"""Who is asked for, and what they clicked -> query vectors: by arrays where the tower is one that they know, else by
TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from recall.core.arrays import Float32s
from recall.core.errors import ArtifactError
from recall.model.numpy_tower.tower import NumpyUserTower
from recall.serving.users.asked import padded
from recall.serving.users.clicks import AskedOfLog
from recall.serving.users.query_model import UserQuery


class UserVectors:
    """Query vectors of users that a file knows, and of those of whom nothing is known.

    Args:
      query: the query model.
      user_query: who answers, the user tower or its student.
      arrays: the user tower in NumPy, if there is one.
      further: names of further histories that the model reads.
    """

    def __init__(
        self, query: Any, *, user_query: UserQuery, arrays: NumpyUserTower | None, further: Sequence[str] = ()
    ) -> None:
        self._query, self._user_query, self._further = query, user_query, tuple(further)
        self.arrays = arrays if user_query == "user" else None

    @property
    def reads_times(self) -> bool:
        """Whether it makes a difference when items were clicked."""
        return self.arrays is None or self.arrays.reads_times

    def of(
        self,
        users: Sequence[str],
        histories: Sequence[Sequence[str]],
        *,
        ages_hours: Sequence[Sequence[float]] | None = None,
        further: Mapping[str, Sequence[Sequence[str]]] | None = None,
    ) -> Float32s:
        """See `Recaller.user_vectors`."""
        self._require_tower()
        if self.arrays:
            return self.arrays.vectors(users, histories, ages_hours)
        inputs = {"user_id": tf.constant(users, tf.string), "history": padded(histories, "", tf.string)}
        if self._user_query == "student" or "user_in_full" not in self._query.signatures:
            return _vectors(self._query.signatures[self._user_query](**inputs))
        signature = self._query.signatures["user_in_full"]
        if "history_age_hours" in signature.structured_input_signature[1]:
            ages = ages_hours or [[-1.0] * len(history) for history in histories]
            inputs["history_age_hours"] = padded(ages, -1.0, tf.float32)
        for name in self._further:
            own = (further or {}).get(name) or [[]] * len(users)
            inputs[f"history_{name}"] = padded(own, "", tf.string)
        return _vectors(signature(**inputs))

    def of_asked(self, asked: AskedOfLog, *, now_ms: int) -> Float32s:
        """The same of those whose clicks are known as rows of the catalogue.

        Args:
          asked: the users.
          now_ms: the moment of the query (Unix milliseconds).
        """
        self._require_tower()
        if self.arrays:
            ages_hours = asked.flat_ages_hours(now_ms) if self.arrays.reads_times else None
            return self.arrays.vectors_by_row(asked.users, asked.rows, ages_hours)
        return self.of(asked.users, asked.history, ages_hours=asked.ages_hours(now_ms), further=asked.further)

    def _require_tower(self) -> None:
        if "user" not in self._query.signatures:
            raise ArtifactError("the model has no user tower (model.query: trigger); ask with similar(items=...)")


def _vectors(answer: Mapping[str, Any]) -> Float32s:
    vectors: Float32s = answer["vector"].numpy()
    return vectors
