"""Answers requests: users or items in, lists of candidates out; and changes the items that are served.

`users/` makes query vectors -> `search/` finds candidates -> `items/` has the index and the facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from typing_extensions import Unpack

from recall.core.arrays import Float32s, Intps
from recall.core.artifacts import read_manifest
from recall.core.errors import DataError
from recall.core.whole_numbers import require_at_least
from recall.data.prepared import PreparedData
from recall.index import Index, LivingIndex
from recall.index.items import unit_vectors
from recall.serving.ids import Ids, ids_of
from recall.serving.items.changed import Behaviour
from recall.serving.items.content import ContentSearch
from recall.serving.items.raw import RawRows
from recall.serving.items.served import Living, ServedItems
from recall.serving.required_steps import require_steps
from recall.serving.search.candidates import Candidates, joined
from recall.serving.search.exclusions import CatalogueRows, excluded_by_position, excluded_rows
from recall.serving.search.options import SearchKeywords, SearchOptions
from recall.serving.search.search import search_candidates
from recall.serving.users.asked import USER_KEYWORDS, UserFeatures, UserKeywords, UserQuery
from recall.serving.users.queries import Queries, UserQueries
from recall.serving.users.vectors import UserTower

By = Literal["model", "content"]


class RecallKeywords(UserKeywords, SearchKeywords, total=False):
    """Name the keywords of `Recaller.recall`'s short form."""


class Recaller:
    """Serve a finished run: users or items in, candidates out.

    Example:
      >>> recaller = recall.Recaller.load("runs/mine")
      >>> recaller.recall(["u000", "new user"], k=5).ids.shape
      (2, 5)
      >>> recaller.similar(["i010"], k=3, by="content").queries
      ['i010']

    Attributes:
      items: the served items.
      user_queries: the reader of requests for users, with the query model.

    Args:
      items: as the attribute.
      user_queries: as the attribute.
      now_ms: the default moment of a query (Unix milliseconds): the end of the log.
    """

    def __init__(self, items: ServedItems, user_queries: UserQueries, *, now_ms: int = 0) -> None:
        self.items = items
        self.user_queries = user_queries
        self._living = items.living
        self._now_ms = now_ms
        self._catalogue = CatalogueRows(user_queries.logged.item_ids)

    @classmethod
    def load(cls, run: str | Path, *, query: UserTower = "user", living: Living = False) -> Recaller:
        """Open a run directory.

        Args:
          run: the directory.
          query: the tower that makes vectors of users: the user tower, or its student, which reads no times and no
            further histories.
          living: True: with the items that were added, refreshed and deleted since the index was built, and ready for
            more changes; one process at a time. "read_only": with the changes of another process up to the last
            `refresh`; any number of processes. False: the index as it was built.

        Raises:
          ArtifactError: a step has not been run, its files are damaged, the index belongs to another model, the model
            has no student, or another process has the index open as living.
        """
        run = Path(run)
        require_steps(run)
        model = read_manifest(run / "model", made_by=f"recall train --run {run}", verify=True)
        prepared = PreparedData.load(run / "data", verify="tables")
        user_queries = UserQueries.load(run, prepared, tower=query)
        items = ServedItems.load(run, prepared, model=model, living=living)
        return cls(items, user_queries, now_ms=prepared.manifest["last_time_ms"])

    # Requests

    def recall(
        self,
        users: Ids | UserQuery | None = None,
        *,
        options: SearchOptions | None = None,
        by: By = "model",
        last: int | None = None,
        exclude_seen: bool = True,
        now_ms: int | None = None,
        **keywords: Unpack[RecallKeywords],
    ) -> Candidates:
        """Find candidates for users (u2i): by the model, or by the content of their last clicks.

        Args:
          users: user ids, or a `UserQuery`.
          options: options of the search.
          by: `content` looks for the items nearest to the user's clicks by content vectors alone. It ignores click
            times and further histories; a user without clicks gets an empty list.
          last: number of last clicks that `content` starts from, each by itself: a score is the cosine to the nearest
            of them. Default: all clicks of the history at once; a score is the cosine to their mean.
          exclude_seen: leave out the user's clicks, in the log or in the history given here.
          now_ms: the moment of the query (Unix milliseconds); default: the end of the log. The time of a later click
            counts as unknown.
          keywords: the short form: the attributes of `UserQuery` (features, histories, history_times_ms,
            further_histories) beside ids, and of `SearchOptions` (k, filters, exclude, caps, min_cold_share,
            budget, fallback) in place of `options`.

        Raises:
          ArtifactError: the model has no user tower (`model.query: trigger`), by content no content vectors, or data/
            is older than attributes that a filter or cap names.
          DataError: an option or an id is refused, by `SearchOptions`, `UserQuery` or the data; `by` is neither; last
            is below 1; filters or caps do not fit the items' attributes; or a setting is given twice, in an object and
            as a keyword.
        """
        content = self._content_if(by)
        own = {name: keywords.pop(name) for name in USER_KEYWORDS & keywords.keys()}  # type: ignore[misc]
        options = SearchOptions.read(options, keywords)
        if last is not None:
            require_at_least(1, last, what="last")
        query, reused = UserQuery.read(users, own), self.items.reused
        moment = self._now_ms if now_ms is None else now_ms
        if content:
            queries = self.user_queries.by_content(query, content, last=last, exclude_seen=exclude_seen, reused=reused)
        else:
            queries = self.user_queries.by_model(
                query, now_ms=moment, exclude_seen=exclude_seen, marks_lacking=bool(options.fallback), reused=reused
            )
        return self._search(queries, options, content=content, now_ms=moment)

    def similar(
        self,
        items: Ids,
        *,
        options: SearchOptions | None = None,
        by: By = "model",
        now_ms: int | None = None,
        **keywords: Unpack[SearchKeywords],
    ) -> Candidates:
        """Find candidates for items (i2i).

        Args:
          items: item ids.
          options: options of the search.
          by: `model` asks the trigger tower what is clicked after the item, if the model has one; a score is then an
            inner product, as trained. Else it compares the items' vectors by cosine, and so it does for items that came
            after the training, which the tower does not know. `content` compares content vectors alone by cosine, so
            that items without exposures take part like all others.
          now_ms: the moment of the query (Unix milliseconds), for ages; default: the end of the log.
          keywords: the short form: the attributes of `SearchOptions`, in place of `options`.

        Raises:
          ArtifactError: by content, and the model has no content vectors; or as `recall` for filters and caps.
          DataError: an id is missing, or the index does not hold the item; or as `recall`.
        """
        names, content = ids_of(items, "items"), self._content_if(by)
        options = SearchOptions.read(options, keywords)
        own = self.vectors(names)  # refuses unknown items
        if content:
            queries = Queries.of_items(names, content.index.vectors(names))
            return self._search(queries, options, content=content, now_ms=now_ms)
        towers = self.user_queries.vectors
        by_trigger = np.zeros(len(names), bool)
        if towers.has_trigger_tower:
            by_trigger = self.user_queries.logged.knows_items(names, but=self.items.reused)

        def answered(asks_tower: bool) -> tuple[Intps, Candidates]:
            """Answer for the items that the trigger tower knows, or for the others."""
            places = np.flatnonzero(by_trigger == asks_tower)
            asked = [names[place] for place in places]
            # The last dimension is appeal and cold bias, which say nothing about likeness.
            vectors = towers.of_items(asked) if asks_tower else unit_vectors(own[places, ..., :-1])
            queries = Queries.of_items(asked, vectors)
            return places, self._search(queries, options, content=None, by_cosine=not asks_tower, now_ms=now_ms)

        if by_trigger.all() or not by_trigger.any():
            return answered(bool(by_trigger.any()))[1]
        return joined([answered(True), answered(False)])

    def similar_to_new(
        self,
        rows: RawRows,
        *,
        options: SearchOptions | None = None,
        now_ms: int | None = None,
        **keywords: Unpack[SearchKeywords],
    ) -> Candidates:
        """Find the items of the catalogue with the content most like new items, by cosine of content vectors.

        Args:
          rows: as of `new_item_vectors`. The queries of the result are named by their positions, from "0".
          options: options of the search.
          now_ms: as of `similar`, like keywords.
          keywords: the short form of `options`.

        Raises:
          ArtifactError: the model has no content vectors; or as `recall` for filters and caps.
          DataError: a value is not of its feature's type; or as `recall`.
        """
        content = self._content_if("content")
        options = SearchOptions.read(options, keywords)
        vectors = self.items.content_vectors(rows)
        queries = Queries([str(position) for position in range(len(rows))], vectors, excluded={})
        return self._search(queries, options, content=content, now_ms=now_ms)

    # Vectors

    @property
    def index(self) -> Index | LivingIndex:
        """Return the index that is searched."""
        return self.items.index

    def vectors(self, items: Ids) -> Float32s:
        """Return served vectors of items, float32 [items, width], or [items, codes, width] with several vectors each.

        Raises:
          DataError: an id is missing, or the index does not hold the item.
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
        """Compute query vectors of users.

        Args:
          users: user ids.
          histories: per user the clicked item ids, oldest first.
          ages_hours: per user the age of each click in hours; negative or NaN for an unknown one; default: all unknown.
          further: by name of a further history, item ids per user, oldest first; default: empty.

        Returns:
          float32 [users, width], or [users, interests, width] of a model with several interests.

        Raises:
          ArtifactError: the model has no user tower.
        """
        return self.user_queries.vectors.of_users(users, histories, ages_hours=ages_hours, further=further)

    def user_vectors_of(self, features: UserFeatures, *, now_ms: int | None = None) -> Float32s:
        """Compute query vectors, as of `user_vectors`, of users that no file knows.

        Args:
          features: one row per user: see `UserFeatures`.
          now_ms: the moment of the query (Unix milliseconds); default: the end of the log.

        Raises:
          ArtifactError: the model has no user tower, or was written before it could be asked by features.
          DataError: a value is not of its feature's type, clicks are no list of ids, or times do not belong to them.
        """
        return self.user_queries.vectors_by_features(features, now_ms=self._now_ms if now_ms is None else now_ms)

    def new_item_vectors(self, rows: RawRows) -> Float32s:
        """Compute vectors of items that the log has never seen, from their content alone.

        Args:
          rows: raw values under the column names of the items file. An absent value counts as missing, but a vector
            that every item has must be there, or null; any item id counts as unknown. Vectors are lists under the
            feature's column (or its name, where the experiment reads a .npy).

        Returns:
          As `vectors`, with the posterior of an item without exposures (with its content prior, where the data has one)
          and the index's cold bias.

        Raises:
          DataError: a column is unknown, a vector is left out, or a value is not of its feature's type.
        """
        return self.items.new_vectors(rows)

    # Changes of items

    @property
    def is_living(self) -> bool:
        """Tell whether the recaller sees changes made after the index was built."""
        return self._living is not None

    def add_items(self, rows: RawRows) -> list[str]:
        """Make new items searchable at once, by their content, and return their ids; see `LivingItems.add`.

        They are found, filtered and capped like all others, and `vectors` and `similar` know them. The user tower
        ignores them in histories: the query model holds the items of training.
        """
        return self.items.add(rows)

    def delete_items(self, items: Iterable[str | int], *, missing_ok: bool = False) -> int:
        """Remove items from all lists and return how many were removed; see `LivingIndex.delete`."""
        return self.items.delete(items, missing_ok=missing_ok)

    def refresh_posterior(self, counts: pd.DataFrame, *, now_ms: int | None = None) -> int:
        """Move the gates of items by newer counts and return the number of items; see `LivingItems.refresh`."""
        return self.items.refresh_posterior(counts, now_ms=now_ms)

    def behaviour(self, items: Sequence[str]) -> dict[str, Behaviour]:
        """Describe the inputs of the vectors of items added or refreshed since the index was built, by id."""
        return self.items.behaviour(items)

    def refresh(self) -> None:
        """Catch up with other processes: read a new version of the index, and their additions and deletions.

        Raises:
          ArtifactError: the version or the journal is damaged or another model's; everything is as it was.
        """
        self.items.refresh()

    def freeze(self) -> None:
        """Keep answering from the items as they are now, and let another process change them."""
        self.items.freeze()

    def close(self) -> None:
        """Let another process change the items."""
        self.items.close()

    def _content_if(self, by: str) -> ContentSearch | None:
        """Return the search by content if it is asked for; refuse another way than by model or content."""
        if by not in ("model", "content"):
            raise DataError(f"by: expected model or content, found {by}")
        return self.items.content() if by == "content" else None

    def _search(
        self,
        queries: Queries,
        options: SearchOptions,
        *,
        content: ContentSearch | None,
        by_cosine: bool = False,
        now_ms: int | None,
    ) -> Candidates:
        """Search the index, by inner product or by cosine, or the index of contents, for the lists of queries."""
        names, excluded = queries.names, excluded_by_position(options.exclude, queries.names, {})
        own = [queries.excluded]
        index: LivingIndex | None = None
        if content:
            index = content.index
            if deleted := self.items.deleted:  # the index of contents holds them still
                gone = list(deleted)
                own.append(dict.fromkeys(range(len(names)), gone))
        snapshot, facts = self.items.snapshot(index, with_facts=options.needs_facts)
        rows = excluded_rows(
            snapshot, seen=queries.seen, ids=excluded, more_ids=own, catalogue=self._catalogue, queries=len(names)
        )
        found = search_candidates(
            snapshot.by_cosine(snapshot.dim - 1) if by_cosine else snapshot,
            queries.vectors,
            options=options,
            excluded=rows,
            facts=facts,
            now_ms=self._now_ms if now_ms is None else now_ms,
            lacking=queries.lacking,
        )
        return found.candidates(names, titles=self.items.titles)
