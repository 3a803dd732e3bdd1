"""Index -> candidates: who asks, what they clicked, what they get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import tensorflow as tf

from recall.artifacts import read_manifest
from recall.encoding import TableEncoder
from recall.errors import ArtifactError, DataError
from recall.index import Index, load_index
from recall.prepared import PreparedData, ServingHistories
from recall.towers.features import FeatureTable

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Candidates:
    """Recalled items, best first.

    Attributes:
      queries: the users or items that were asked for.
      ids: object [queries, k], item ids; None where the catalogue had no more to give.
      scores: float32 [queries, k], inner products; -inf where the id is None.
      titles: titles by item id, where the catalogue has some.
    """

    queries: Sequence[str]
    ids: npt.NDArray[np.object_]
    scores: Matrix
    titles: Mapping[str, str]

    def to_pandas(self) -> pd.DataFrame:
        """One row per candidate: query, rank (from 1), item, score, title."""
        present = self.ids != None  # noqa: E711 - elementwise
        row, column = np.nonzero(present)
        items = self.ids[present]
        return pd.DataFrame(
            {
                "query": np.asarray(self.queries, dtype=object)[row],
                "rank": column + 1,
                "item": items,
                "score": self.scores[present],
                "title": [self.titles.get(item) for item in items],
            }
        )


class Recaller:
    """Serves a finished run: users or items in, candidates out.

    Loads the query SavedModel, the index, and what users clicked until the end of the log.
    """

    def __init__(
        self,
        *,
        index: Index,
        query: Any,
        item: Any,
        encoder: TableEncoder,
        histories: ServingHistories,
        item_ids: Sequence[str],
        titles: Mapping[str, str],
        history_length: int,
    ) -> None:
        self.index = index
        self._query, self._item, self._encoder = query, item, encoder
        self._histories, self._titles, self._history_length = histories, titles, history_length
        self._item_ids = np.asarray(item_ids, dtype=object)

    @classmethod
    def load(cls, run: str | Path) -> Recaller:
        """Opens a run directory.

        Raises:
          ArtifactError: a step has not been run, its files are damaged, or the index belongs to another model.
        """
        run = Path(run)
        manifest = read_manifest(run / "model", made_by=f"recall train --run {run}")
        index = load_index(run / "index", fingerprint=manifest["fingerprint"])
        prepared = PreparedData.load(run / "data")
        query = tf.saved_model.load(str(run / "model" / "query"))
        item = tf.saved_model.load(str(run / "model" / "item"))
        return cls(
            index=index,
            query=query,
            item=item,
            encoder=TableEncoder.load(run / "model" / "encoder"),
            histories=prepared.histories,
            item_ids=prepared.item_ids.to_pylist(),
            titles=_titles(prepared),
            history_length=manifest["history"],
        )

    def recall(
        self,
        users: Iterable[str | int],
        *,
        k: int = 100,
        histories: Mapping[str, Sequence[str | int]] | None = None,
        exclude_seen: bool = True,
    ) -> Candidates:
        """Candidates for users (u2i).

        Args:
          users: ids. A user that the log does not hold is served by profile, if the users file has one, and by the
            learned answer to an empty history.
          k: candidates per user.
          histories: clicked item ids per user, oldest first, where they are fresher than the log's.
          exclude_seen: leave out items that the user clicked.

        Raises:
          ArtifactError: the model has no user tower (`model.query: trigger`).
        """
        names = [str(user) for user in users]
        fresh = {str(user): [str(item) for item in items] for user, items in (histories or {}).items()}
        history = [fresh[name] if name in fresh else self._clicked(name) for name in names]
        vectors = self.user_vectors(names, history)
        seen = [
            set(items) | (self._seen(name) if name not in fresh else set())
            for name, items in zip(names, history, strict=True)
        ]
        return self._search(names, vectors, k=k, excluded=seen if exclude_seen else [set()] * len(names))

    def similar(self, items: Iterable[str | int], *, k: int = 100) -> Candidates:
        """Candidates for items (i2i): by the trigger tower if the model has one, else by the items' own vectors.

        Raises:
          DataError: an item that the index does not hold.
        """
        names = [str(item) for item in items]
        vectors = self.vectors(names)  # refuses unknown items
        if "trigger" in self._query.signatures:
            vectors = self._query.signatures["trigger"](item_id=tf.constant(names, tf.string))["vector"].numpy()
        return self._search(names, vectors, k=k, excluded=[{name} for name in names])

    def vectors(self, items: Iterable[str | int]) -> Matrix:
        """Served vectors of items of the index, float32 [items, width]; an unknown item is a DataError."""
        return self.index.vectors([str(item) for item in items])

    def user_vectors(self, users: Sequence[str], histories: Sequence[Sequence[str]]) -> Matrix:
        """Query vectors of users with given histories (item ids, oldest first), float32 [users, width]."""
        if "user" not in self._query.signatures:
            raise ArtifactError("the model has no user tower (model.query: trigger); ask with similar(items=...)")
        if not users:
            return np.zeros((0, self.index.dim), np.float32)
        recent = [list(history)[-self._history_length :] for history in histories]
        longest = max(1, *map(len, recent))
        padded = tf.constant([[*history, *[""] * (longest - len(history))] for history in recent], tf.string)
        return self._query.signatures["user"](user_id=tf.constant(users, tf.string), history=padded)["vector"].numpy()

    def new_item_vectors(self, rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> Matrix:
        """Vectors of items that the log has never seen, from their content alone.

        Args:
          rows: raw values under the column names of the items file; what is absent counts as missing. Vectors are
            lists under the feature's column (or its name, where the experiment reads a .npy).

        Returns:
          float32 [rows, width], of the posterior of an item without exposures.
        """
        records = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
        table = FeatureTable(self._encoder.columns, self._encoder.encode(records))
        features = {name: variable.value() for name, variable in table.variables.items()}
        posterior = tf.tile(self._item.new_posterior[tf.newaxis], [len(records), 1])
        return self._item.vectors(features, posterior)["vector"].numpy()

    def _clicked(self, user: str) -> list[str]:
        return list(self._item_ids[self._histories.recent(user)])

    def _seen(self, user: str) -> set[str]:
        return set(self._item_ids[self._histories.seen(user)])

    def _search(self, names: Sequence[str], vectors: Matrix, *, k: int, excluded: Sequence[set[str]]) -> Candidates:
        if k < 1:
            raise DataError(f"k: expected at least 1, found {k}")
        longest = max((len(items) for items in excluded), default=0)
        found = self.index.search(vectors, min(k + longest, len(self.index)))
        ids = np.full((len(names), k), None, dtype=object)
        scores = np.full((len(names), k), -np.inf, dtype=np.float32)
        for row, seen in enumerate(excluded):
            kept = [column for column, item in enumerate(found.ids[row]) if item is not None and item not in seen][:k]
            ids[row, : len(kept)] = found.ids[row, kept]
            scores[row, : len(kept)] = found.scores[row, kept]
        return Candidates(names, ids, scores, self._titles)


def _titles(prepared: PreparedData) -> dict[str, str]:
    if prepared.titles is None:
        return {}
    pairs = zip(prepared.item_ids.to_pylist(), prepared.titles.to_pylist(), strict=True)
    return {item: title for item, title in pairs if title is not None}
