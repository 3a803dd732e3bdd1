"""Reads users that no file knows: raw features and clicks -> query vectors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow as tf

from recall.core.arrays import Float32s
from recall.core.errors import ArtifactError, DataError
from recall.data.features.raw_values import is_missing
from recall.data.features.table_encoder import TableEncoder
from recall.model.layers.features import dense_features
from recall.model.saved_model import PROFILE, USER_ENCODER
from recall.serving.ids import ids_of
from recall.serving.users.asked import Asked, UserFeatures, require_times
from recall.serving.users.vectors import UserTower, padded

_HISTORY, _TIMES = "history", "history_times_ms"
_UNKNOWN = "\0"  # no id holds NUL: out of vocabulary, as users with too few clicks are in training


class FeatureQueries:
    """Compute query vectors of users from their features.

    Args:
      model: the query/ SavedModel.
      encoder: encoder of raw user rows; None for a model that was saved without.
      tower: the tower that answers.
      id_column: raw column of user ids.
      further: names of further histories that the model reads.
    """

    def __init__(
        self,
        model: Any,
        encoder: TableEncoder | None,
        *,
        tower: UserTower,
        id_column: str,
        further: Collection[str] = (),
    ) -> None:
        self._model, self._encoder, self._id_column = model, encoder, id_column
        self._signature = f"{tower}_features"
        self._further = tuple(further)

    @classmethod
    def load(
        cls, run: Path, model: Any, *, tower: UserTower, id_column: str, further: Collection[str] = ()
    ) -> FeatureQueries:
        """Load the encoder of a run's model. Without one the first request is refused, and not the load."""
        folder = run / "model" / USER_ENCODER
        encoder = TableEncoder.load(folder) if folder.is_dir() else None
        return cls(model, encoder, tower=tower, id_column=id_column, further=further)

    def read(self, features: UserFeatures) -> Asked:
        """Read the ids and clicks of users, who are named "0", "1" and so on by position.

        Raises:
          DataError: clicks are no list of ids, or times do not belong to them.
        """
        users, history, clicked_ms = [], [], []
        further: dict[str, list[list[str]]] = {name: [] for name in self._further}
        for position, row in enumerate(_records(features)):
            at = f"features[{position}]"
            own = row.get(self._id_column)
            users.append(_UNKNOWN if is_missing(own) else ids_of([own], f"{at}[{self._id_column!r}]")[0])
            history.append(_list_of(row, _HISTORY, at))
            times = row.get(_TIMES)
            times = None if is_missing(times) else times
            if times is not None:
                require_times(times, history[-1], times_at=f"{at}[{_TIMES!r}]", history_at=f"{at}[{_HISTORY!r}]")
            clicked_ms.append(times)
            for name, lists in further.items():
                lists.append(_list_of(row, f"{_HISTORY}_{name}", at))
        return Asked([str(position) for position in range(len(users))], users, history, clicked_ms, further)

    def vectors(self, features: UserFeatures, asked: Asked, *, now_ms: int) -> Float32s:
        """Compute query vectors.

        Args:
          features: one row per user.
          asked: the result of `read` for these features.
          now_ms: the moment of the query (Unix milliseconds).

        Returns:
          float32 [users, width], or [users, interests, width] of a model with several interests.

        Raises:
          ArtifactError: the model has no user tower, or was saved before it could be asked by features.
          DataError: a value is not of its feature's type.
        """
        if "user" not in self._model.signatures:
            raise ArtifactError("the model has no user tower (model.query: trigger); ask with similar(items=...)")
        if self._encoder is None or self._signature not in self._model.signatures:
            raise ArtifactError(
                "features: the model was written before it could be asked by features of users; "
                "remove the folder model of the run and train again"
            )
        if not asked.names:  # a signature traces no batch without rows of lists
            width = self._model.signatures["user"].structured_outputs["vector"].shape[1:]
            return np.zeros((0, *width), np.float32)
        rows = [
            {**self._raw(row), self._id_column: user} for row, user in zip(_records(features), asked.users, strict=True)
        ]
        encoded = dense_features(self._encoder.columns, self._encoder.encode(rows))
        inputs = {PROFILE + name: tf.constant(values) for name, values in encoded.items()}
        inputs["history"] = padded(asked.history, "", tf.string)
        signature = self._model.signatures[self._signature]
        names = signature.structured_input_signature[1]
        if "history_age_hours" in names:
            inputs["history_age_hours"] = padded(asked.ages_hours(now_ms), -1.0, tf.float32)
        for name, lists in asked.further.items():
            if f"history_{name}" in names:
                inputs[f"history_{name}"] = padded(lists, "", tf.string)
        return signature(**inputs)["vector"].numpy()

    def _raw(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Select the raw values that the encoder reads; None for an absent one."""
        assert self._encoder is not None
        sources = dict.fromkeys(encoder.feature.source for _, encoder in self._encoder.features)
        return {source: row.get(source) for source in sources}


def _records(features: UserFeatures) -> Sequence[Mapping[str, Any]]:
    """Convert features to a list of rows.

    Raises:
      DataError: features are a single row.
    """
    if isinstance(features, Mapping):
        raise DataError("features: expected a list of rows, found one row; write [{...}]")
    if not isinstance(features, pd.DataFrame):
        return features
    try:
        return pa.Table.from_pandas(features, preserve_index=False).to_pylist()  # missing values become None
    except (pa.ArrowException, UnicodeEncodeError, OverflowError):  # values of a column differ in type
        return [{str(name): value for name, value in row.items()} for row in features.to_dict("records")]


def _list_of(row: Mapping[str, Any], key: str, at: str) -> list[str]:
    """Read a list of item ids in a row; empty without the key."""
    values = row.get(key)
    return [] if values is None or is_missing(values) else ids_of(values, f"{at}[{key!r}]")
