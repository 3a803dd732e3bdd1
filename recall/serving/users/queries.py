"""Turns a request for users into the queries of a search: `UserQuery` -> `Queries`.

`from_log.py` and `from_features.py` look up the users -> `vectors.py` computes their vectors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import Bools, Float32s
from recall.core.errors import ArtifactError
from recall.core.ragged import Ragged
from recall.data.prepared import PreparedData
from recall.model.numpy_tower.tower import NumpyUserTower
from recall.serving.items.content import ContentSearch
from recall.serving.users.asked import Asked, AskedOfLog, UserFeatures, UserQuery
from recall.serving.users.from_features import FeatureQueries
from recall.serving.users.from_log import LoggedItemIds, LoggedUsers
from recall.serving.users.vectors import QueryVectors, UserTower, load_query_model


class Queries(NamedTuple):
    """Hold the queries of a search.

    Attributes:
      names: name of each query: a user id, an item id, or a position.
      vectors: float32 [queries, width], or [queries, interests, width].
      excluded: by position of a query, item ids that its list may not hold.
      seen: per query rows of the catalogue that its list may not hold, unique and rising; None: no rows.
      lacking: bool [queries], whether the vector says nothing about the query; None: no query lacks.
    """

    names: Sequence[str]
    vectors: Float32s
    excluded: Mapping[int, Sequence[str]]
    seen: Ragged | None = None
    lacking: Bools | None = None

    @classmethod
    def of_items(cls, names: Sequence[str], vectors: Float32s) -> Queries:
        """Make queries of items, none of which is in its own list."""
        return cls(names, vectors, excluded={query: [name] for query, name in enumerate(names)})


class UserQueries:
    """Turn requests for users into queries.

    Attributes:
      logged: users of the log.
      vectors: query vectors of users and items by id.

    Args:
      logged: as the attribute.
      vectors: as the attribute.
      by_features: query vectors by features; without it requests by features are refused.
      prepared: data of the run, which knows the users without clicks, too.
    """

    def __init__(
        self,
        logged: LoggedUsers,
        vectors: QueryVectors,
        *,
        by_features: FeatureQueries | None = None,
        prepared: PreparedData | None = None,
    ) -> None:
        self.logged, self.vectors, self._by_features = logged, vectors, by_features
        self._prepared = prepared

    @classmethod
    def load(cls, run: Path, prepared: PreparedData, *, tower: UserTower) -> UserQueries:
        """Open the query model of a run directory.

        Args:
          run: the directory.
          prepared: its data.
          tower: the tower that answers.

        Raises:
          ArtifactError: the student is asked for and the model has none.
          DataError: `tower` is neither user nor student.
        """
        model = load_query_model(run, tower=tower)
        further = LoggedItemIds.all_of(prepared)
        vectors = QueryVectors(model, tower=tower, arrays=NumpyUserTower.of_run(run, prepared), further=tuple(further))
        logged = LoggedUsers(
            prepared.histories, prepared.item_ids.to_pylist(), further=further, reads_times=vectors.reads_times
        )
        by_features = FeatureQueries.load(run, model, tower=tower, id_column=prepared.user_id_name, further=further)
        return cls(logged, vectors, by_features=by_features, prepared=prepared)

    def knows_users(self, users: Sequence[str]) -> Bools:
        """Mark the users that the log or the users file has, bool [users]; others are answered as strangers."""
        if self._prepared is None:
            return self.logged.has_clicks(users)
        return np.asarray(pc.is_in(pa.array(users, pa.string()), value_set=self._prepared.user_ids))

    def by_model(
        self, query: UserQuery, *, now_ms: int, exclude_seen: bool, marks_lacking: bool, reused: Collection[str] = ()
    ) -> Queries:
        """Compute query vectors with the model.

        Args:
          query: the users.
          now_ms: the moment of the query (Unix milliseconds).
          exclude_seen: whether lists may not hold the user's clicks.
          marks_lacking: whether users without clicks are marked as lacking; users by features never are.
          reused: ids that the query model and the log know of other items than those that are served. Callers mean the
            items that are served, the log means the others.

        Raises:
          ArtifactError: the model has no user tower, or cannot answer by features.
          DataError: a value is not of its feature's type, clicks of features are no list of ids, or the model has no
            further history of such a name.
        """
        asked = self._asked(query)
        known = asked.without_given(reused) if reused else asked
        if isinstance(known, AskedOfLog):
            vectors = self.vectors.of_asked(known, now_ms=now_ms)
            lacking = known.without_clicks if marks_lacking else None
        else:
            assert query.features is not None
            vectors, lacking = self._features.vectors(query.features, known, now_ms=now_ms), None
        return self._queries(asked, vectors, lacking=lacking, exclude_seen=exclude_seen, reused=reused)

    def by_content(
        self,
        query: UserQuery,
        content: ContentSearch,
        *,
        last: int | None,
        exclude_seen: bool,
        reused: Collection[str] = (),
    ) -> Queries:
        """Use the content vectors of the last `last` clicks, or the mean of all; users without any lack.

        The rest is as of `by_model`.
        """
        asked = self._asked(query)
        known = asked.without_logged(reused) if reused and isinstance(asked, AskedOfLog) else asked
        vectors, has_clicks = content.interests(known.history, last=last)
        return self._queries(asked, vectors, lacking=~has_clicks, exclude_seen=exclude_seen, reused=reused)

    def vectors_by_features(self, features: UserFeatures, *, now_ms: int) -> Float32s:
        """Compute query vectors of users that no file knows; see `Recaller.user_vectors_of`."""
        return self._features.vectors(features, self._features.read(features), now_ms=now_ms)

    def _asked(self, query: UserQuery) -> Asked | AskedOfLog:
        """Look up the clicks of the users."""
        if query.features is not None:
            return self._features.read(query.features)
        return self.logged.asked(query)

    def _queries(
        self,
        asked: Asked | AskedOfLog,
        vectors: Float32s,
        *,
        lacking: Bools | None,
        exclude_seen: bool,
        reused: Collection[str],
    ) -> Queries:
        """Add to query vectors the clicks that lists may not hold."""
        if not exclude_seen:
            return Queries(asked.names, vectors, {}, None, lacking)
        seen = self.logged.seen(asked.users, but=reused)
        return Queries(asked.names, vectors, asked.caller_histories, seen, lacking)

    @property
    def _features(self) -> FeatureQueries:
        """Return the queries by features, or refuse with ArtifactError where there are none."""
        if self._by_features is None:
            raise ArtifactError("features: this recaller cannot be asked by features; open the run with Recaller.load")
        return self._by_features
