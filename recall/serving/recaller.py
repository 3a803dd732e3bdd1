"""Index -> candidates: who asks, what they clicked, what they get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from recall.core.arrays import Bools, Float32s
from recall.core.artifacts import read_manifest
from recall.core.errors import ArtifactError, DataError
from recall.core.ragged import Ragged
from recall.data.features.table_encoder import TableEncoder
from recall.data.prepared import PreparedData
from recall.data.serving_histories import ServingHistories
from recall.index import Index, LivingIndex, load_index
from recall.model.numpy_tower.tower import NumpyUserTower
from recall.serving.changes import ChangesItems
from recall.serving.items.encode import ItemVectors, RawRows
from recall.serving.items.facts import ItemFacts
from recall.serving.items.living import LivingItems, open_living_items
from recall.serving.required_steps import require_steps
from recall.serving.search.by_content import ContentSearch
from recall.serving.search.candidates import Candidates
from recall.serving.search.exclusions import CatalogueRows, excluded_by_position, excluded_rows
from recall.serving.search.filters import Filters
from recall.serving.search.search import Exclude, Fallback, Wanted, search_candidates
from recall.serving.users.asked import Asked, ids_of
from recall.serving.users.clicks import AskedOfLog
from recall.serving.users.from_features import FeatureQueries, UserFeatures
from recall.serving.users.from_log import LoggedUsers
from recall.serving.users.further_ids import FurtherIds
from recall.serving.users.query_model import UserQuery, load_query_model, trigger_vectors
from recall.serving.users.vectors import UserVectors

Ids = Iterable[str | int]
By = Literal["model", "content"]
Living = bool | Literal["read_only"]


class Recaller(ChangesItems):
    """Serves a finished run from its query model, its index and its log: users or items in, candidates out."""

    def __init__(
        self,
        *,
        index: Index | LivingIndex,
        query: Any,
        items: ItemVectors | None = None,
        histories: ServingHistories,
        item_ids: Sequence[str],
        titles: Mapping[str, str],
        now_ms: int = 0,
        further: Mapping[str, FurtherIds] | None = None,
        content: ContentSearch | None = None,
        user_query: UserQuery = "user",
        by_features: FeatureQueries | None = None,
        facts: ItemFacts | None = None,
        living: LivingItems | None = None,
        arrays: NumpyUserTower | None = None,
    ) -> None:
        super().__init__(index, living=living, titles=titles, content=content)
        self._items = items
        self._query, self._by_features = query, by_features
        self._user_vectors = UserVectors(query, user_query=user_query, arrays=arrays, further=tuple(further or {}))
        reads_times = self._user_vectors.reads_times
        self._users = LoggedUsers(histories, item_ids, further or {}, reads_times=reads_times)
        self._item_ids = self._users.item_ids
        self._catalogue = CatalogueRows(self._item_ids)
        self._now_ms, self._facts = now_ms, facts

    @classmethod
    def load(cls, run: str | Path, *, query: UserQuery = "user", living: Living = False) -> Recaller:
        """Opens a run directory.

        Args:
          run: the directory.
          query: what makes vectors of users: the user tower, or its student, which sees no times and further histories.
          living: with what was added, refreshed and deleted since the index was built, and ready for more of it; one
            process at a time. `read_only`: with what another process did of that until `refresh` was called last; any
            number of processes. False: the index is as it was built.

        Raises:
          ArtifactError: a step has not been run, its files are damaged, the index belongs to another model, or the
            model has no student; or another process has the index open as living.
        """
        run = Path(run)
        require_steps(run)
        manifest = read_manifest(run / "model", made_by=f"recall train --run {run}", verify=True)
        prepared = PreparedData.load(run / "data", verify="tables")
        query_model = load_query_model(run, query=query)
        item = tf.saved_model.load(str(run / "model" / "item"))
        encoder = TableEncoder.load(run / "model" / "encoder")
        further = FurtherIds.all_of(prepared)
        ids = (known.feature.source for _, known in encoder.features if known.feature.name == prepared.item_id_feature)
        vectors = ItemVectors(item, encoder=encoder, id_column=next(ids, None), content_prior=prepared.content_prior)
        facts, items = ItemFacts.of_run(prepared), None
        if living:
            items = open_living_items(
                run,
                fingerprint=manifest["fingerprint"],
                vectors=vectors,
                prepared=prepared,
                facts=facts,
                read_only=living == "read_only",
            )
        return cls(
            index=items.index if items else load_index(run / "index", fingerprint=manifest["fingerprint"]),
            query=query_model,
            items=vectors,
            user_query=query,
            histories=prepared.histories,
            item_ids=prepared.item_ids.to_pylist(),
            titles=prepared.titles_by_id,
            now_ms=prepared.manifest["last_time_ms"],
            further=further,
            content=ContentSearch(
                item, encoder=encoder, items=vectors, prepared=prepared, structure=manifest["structure"]
            ),
            by_features=FeatureQueries.load(
                run / "model", query_model, user_query=query, id_column=prepared.user_id_name, further=further
            ),
            facts=facts,
            living=items,
            arrays=NumpyUserTower.of_run(run, prepared),
        )

    def recall(
        self,
        users: Ids | None = None,
        *,
        features: UserFeatures | None = None,
        k: int = 100,
        histories: Mapping[str, Ids] | Mapping[int, Ids] | None = None,
        history_times_ms: Mapping[str, Sequence[int]] | Mapping[int, Sequence[int]] | None = None,
        now_ms: int | None = None,
        further_histories: Mapping[str, Mapping[str, Ids] | Mapping[int, Ids]] | None = None,
        exclude_seen: bool = True,
        by: By = "model",
        last: int = 5,
        filters: Filters | Mapping[str, Any] | None = None,
        exclude: Exclude | None = None,
        caps: Mapping[str, int] | None = None,
        min_cold_share: float = 0.0,
        fallback: Fallback = False,
    ) -> Candidates:
        """Candidates for users (u2i): by the model, or by the content of what they clicked last.

        Args:
          users: ids. A user that the log does not hold is served by profile, if the users file has one, and by the
            learned answer to an empty history.
          features: in the place of `users`, raw features and clicks of users that no file knows: see `UserFeatures`.
            The queries of the result are their positions from "0".
          k: candidates per user.
          histories: clicked item ids per user, oldest first, that take the place of what the log holds of the user;
            items that the catalogue lacks are passed over.
          history_times_ms: per user of `histories`, when each was clicked (Unix milliseconds); unknown without. Only a
            model with `model.history_time` reads times.
          now_ms: the moment of the query (Unix milliseconds); default: the end of the log. Clicks that come later
            happened at an unknown time.
          further_histories: by name of `data.histories`, item ids per user that take the place of what the log holds.
          exclude_seen: leave out what the user clicked, in the log or in the history given here.
          by: `content` looks for the items nearest to each of the last clicks by meta vectors alone; a score is the
            cosine to the nearest click. Times and further histories have no say, and who clicked nothing gets nothing.
          last: how many of the last clicks `content` starts from.
          filters: which items may be given, e.g. {"where": [{"column": "category", "in": ["news"]}]}: see `Filters`.
            Where k of them exist, k are given.
          exclude: item ids that may not be given, for all or by user; those that the index lacks are passed over.
          caps: by column of text or tags, how many items of one value a list holds at most, e.g. {"author_id": 2}.
          min_cold_share: of each list at least this share, rounded up, has no exposure yet, while there are such items
            that filters and caps allow. Lists stay in the order of their scores.
          fallback: who clicked nothing gets popular and fresh items (see `search/fallback.py`), unless `features` bring
            a profile; so does, from the filters' lists of ids alone, who would get nothing of what their predicates
            allow: `filtered` leaves that list empty. `Candidates.sources` says who answered.

        Raises:
          ArtifactError: the model has no user tower (`model.query: trigger`), by content no meta tower, or data/ is
            older than attributes that a filter or cap names.
          DataError: neither or both of users and features, an id is missing, times do not belong to a history given
            here, a value is not of its feature's type, the model has no history of such a name, `by` is neither, k, a
            cap or last is below 1, the share is outside 0 to 1, or filters or caps do not fit the items' attributes.
        """
        content = self._content_if(by)
        wanted = Wanted.read(k=k, filters=filters, caps=caps, min_cold_share=min_cold_share, fallback=fallback)
        if last < 1:
            raise DataError(f"last: expected at least 1, found {last}")
        asked: Asked | AskedOfLog
        if features is None:
            asked = self._users.asked(users, histories, history_times_ms, further_histories)
        elif users is None and not (histories or history_times_ms or further_histories):
            asked = self._feature_queries.read(features)
        else:
            raise DataError("features: their rows bring their own clicks; remove users, histories and times")
        seen = self._users.seen(asked.users) if exclude_seen else None
        excluded = excluded_by_position(exclude, asked.names, asked.given if exclude_seen else {})
        now = self._now_ms if now_ms is None else now_ms
        index: LivingIndex | None = None
        lacking: Bools | None = None
        if content:
            vectors, has_clicks = content.interests(asked.history, last=last)
            index, lacking = content.index, ~has_clicks
        elif isinstance(asked, AskedOfLog):
            vectors = self._user_vectors.of_asked(asked, now_ms=now)
            lacking = self._users.without_clicks(asked) if fallback else None
        else:
            assert features is not None
            vectors = self._feature_queries.vectors(features, asked, now_ms=now)
        return self._search(
            asked.names, vectors, wanted, excluded=excluded, seen=seen, now_ms=now, index=index, lacking=lacking
        )

    def similar(
        self,
        items: Ids,
        *,
        k: int = 100,
        by: By = "model",
        now_ms: int | None = None,
        filters: Filters | Mapping[str, Any] | None = None,
        exclude: Exclude | None = None,
        caps: Mapping[str, int] | None = None,
        min_cold_share: float = 0.0,
        fallback: Fallback = False,
    ) -> Candidates:
        """Candidates for items (i2i).

        Args:
          items: ids.
          k: candidates per item.
          by: `model` asks the trigger tower if the model has one, else the items' own vectors; `content` compares meta
            vectors alone by cosine, so that an item without any exposure is asked for, and found, as others are.
          now_ms: the moment of the query (Unix milliseconds), for ages; default: the end of the log.
          filters: as of `recall`, like exclude (for all or by item), caps, min_cold_share and fallback.

        Raises:
          ArtifactError: by content, and the model has no meta tower; or as `recall` for filters and caps.
          DataError: an item that the index does not hold, a missing id, `by` is neither, or k below 1; or as `recall`.
        """
        names, content = ids_of(items, "items"), self._content_if(by)
        wanted = Wanted.read(k=k, filters=filters, caps=caps, min_cold_share=min_cold_share, fallback=fallback)
        excluded = excluded_by_position(exclude, names, {query: [name] for query, name in enumerate(names)})
        vectors, index = self.vectors(names), None  # refuses unknown items
        if content:
            vectors, index = content.index.vectors(names), content.index
        else:
            vectors[..., -1] = 0  # what is like an item is not what everybody likes
            if "trigger" in self._query.signatures:
                vectors = trigger_vectors(self._query, names, own=vectors, known=np.isin(names, self._item_ids))
        return self._search(names, vectors, wanted, excluded=excluded, now_ms=now_ms, index=index)

    def similar_to_new(
        self,
        rows: RawRows,
        *,
        k: int = 100,
        now_ms: int | None = None,
        filters: Filters | Mapping[str, Any] | None = None,
        exclude: Exclude | None = None,
        caps: Mapping[str, int] | None = None,
        min_cold_share: float = 0.0,
        fallback: Fallback = False,
    ) -> Candidates:
        """Items of the catalogue whose content is most like that of items it lacks, by cosine of meta vectors.

        Args:
          rows: as of `new_item_vectors`; the queries of the result are their positions from "0".
          k: candidates per row.
          now_ms: as of `similar`, like filters, exclude, caps, min_cold_share and fallback.

        Raises:
          ArtifactError: the model has no meta tower; or as `recall` for filters and caps.
          DataError: a value is not of its feature's type, or k below 1; or as `recall`.
        """
        content = self._content_if("content")
        assert content is not None
        wanted = Wanted.read(k=k, filters=filters, caps=caps, min_cold_share=min_cold_share, fallback=fallback)
        vectors = content.vectors(self._of_raw.encoded(rows))
        names = [str(position) for position in range(len(rows))]
        excluded = excluded_by_position(exclude, names)
        return self._search(names, vectors, wanted, excluded=excluded, now_ms=now_ms, index=content.index)

    def vectors(self, items: Ids) -> Float32s:
        """Served vectors of items of the index, float32 [items, width], or [items, codes, width] with several each.

        Raises:
          DataError: an item that the index does not hold, or a missing id.
        """
        try:
            return self.index.vectors(ids_of(items, "items"))
        except DataError as error:
            raise DataError(
                f"{error}; give ids of the items file, or ask new_item_vectors for items that came later"
            ) from error

    def user_vectors(
        self,
        users: Sequence[str],
        histories: Sequence[Sequence[str]],
        *,
        ages_hours: Sequence[Sequence[float]] | None = None,
        further: Mapping[str, Sequence[Sequence[str]]] | None = None,
    ) -> Float32s:
        """Query vectors of users.

        Args:
          users: ids.
          histories: per user the clicked item ids, oldest first.
          ages_hours: per user how long ago each was clicked; negative, NaN, or None is unknown.
          further: by name of a further history, item ids per user, oldest first; without, they are empty.

        Returns:
          float32 [users, width], or [users, interests, width] of a model with several interests.

        Raises:
          ArtifactError: the model has no user tower.
        """
        return self._user_vectors.of(users, histories, ages_hours=ages_hours, further=further)

    def user_vectors_of(self, features: UserFeatures, *, now_ms: int | None = None) -> Float32s:
        """Query vectors, as of `user_vectors`, of users that no file knows.

        Args:
          features: one row per user: see `UserFeatures`.
          now_ms: the moment of the query (Unix milliseconds); default: the end of the log.

        Raises:
          ArtifactError: the model has no user tower, or was written before it could be asked by features.
          DataError: a value is not of its feature's type, clicks are no list of ids, or times do not belong to them.
        """
        queries = self._feature_queries
        now = self._now_ms if now_ms is None else now_ms
        return queries.vectors(features, queries.read(features), now_ms=now)

    def new_item_vectors(self, rows: RawRows) -> Float32s:
        """Vectors of items that the log has never seen, from their content alone.

        Args:
          rows: raw values under the column names of the items file; what is absent counts as missing, and the item id
            as unknown, whatever it is. Vectors are lists under the feature's column (or its name, where the
            experiment reads a .npy).

        Returns:
          As `vectors`, of the posterior of an item without exposures (with its content prior, where the data has one),
          with the index's cold bias.

        Raises:
          DataError: a value is not of its feature's type.
        """
        return self._of_raw.of_new(rows, cold_bias=self.index.report.get("cold_bias", 0.0)).vectors

    @property
    def _of_raw(self) -> ItemVectors:
        if self._items is None:
            raise ArtifactError("new items: this recaller cannot encode them; open the run with Recaller.load")
        return self._items

    @property
    def _feature_queries(self) -> FeatureQueries:
        if self._by_features is None:
            raise ArtifactError("features: this recaller cannot be asked by features; open the run with Recaller.load")
        return self._by_features

    def _content_if(self, by: str) -> ContentSearch | None:
        if by not in ("model", "content"):
            raise DataError(f"by: expected model or content, found {by}")
        if by == "content" and self._content is None:
            raise ArtifactError("by content: this recaller has no content to search; open the run with Recaller.load")
        return self._content if by == "content" else None

    def _search(
        self,
        names: Sequence[str],
        vectors: Float32s,
        wanted: Wanted,
        *,
        excluded: Mapping[int, Sequence[str]],
        now_ms: int | None,
        seen: Ragged | None = None,
        index: LivingIndex | None = None,
        lacking: Bools | None = None,
    ) -> Candidates:
        if index is not None and self._deleted:  # that of contents is as training left it
            deleted = list(self._deleted)
            excluded = {query: [*deleted, *excluded.get(query, ())] for query in range(len(names))}
        with self._in_step:
            snapshot = (index or self.index).snapshot()
            facts = self._facts.of(snapshot) if self._facts and wanted.needs_facts else None
        found = search_candidates(
            snapshot,
            vectors,
            wanted=wanted,
            excluded=excluded_rows(snapshot, seen=seen, ids=excluded, catalogue=self._catalogue, queries=len(names)),
            facts=facts,
            now_ms=self._now_ms if now_ms is None else now_ms,
            lacking=lacking,
        )
        return found.candidates(names, titles=self._titles)
