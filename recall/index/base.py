"""Defines the contract of every index, and what the indexes that hold their vectors share.

`exact.py`, `scann.py` and `shards.py` implement it; `filtered.py` searches among some of the items.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from recall.core.arrays import Bools, Float32s, Int32s
from recall.core.errors import DataError
from recall.core.ragged import Ragged
from recall.core.whole_numbers import require_at_least
from recall.index.filtered import best_allowed, checked_allowed, checked_excluded
from recall.index.items import Ids, ItemIds, Items, float_matrix
from recall.index.results import Names, SearchResult


class Index(abc.ABC):
    """Search a fixed set of items for the largest inner products.

    An item has one entry (a vector) or several; its score is the score of its best entry. `search` always gives
    min(k, items) results per query, is deterministic, and answers a query alone as it does in a batch (an approximate
    index up to the rounding of the scores). Only `is_exact` indexes promise that these results are the best ones.

    `search`, `rows`, `vectors` and the properties check their arguments and are for everybody; `best_items`,
    `best_and_spare`, `best_allowed` and `vectors_at` expect checked arguments and are for other indexes.

    Attributes:
      kind: name of the implementation, as manifests note it.
      is_exact: whether `search` finds the best items for certain.
      items: the ids by row.
      report: JSON-serialisable account of how the index was chosen and measured; kept in its manifest.

    Example:
      >>> index = recall.build_index(["a", "b", "c"], np.eye(3))
      >>> len(index), index.dim
      (3, 3)
      >>> result = index.search(np.array([[0, 1, 0.5]]), k=2)
      >>> result.ids.tolist(), result.scores.tolist()
      ([['b', 'c']], [[1.0, 0.5]])
    """

    kind: ClassVar[str]
    is_exact: bool

    def __init__(self, items: ItemIds, *, report: Mapping[str, Any] | None = None):
        self.items = items
        self.report: Mapping[str, Any] = dict(report or {})

    def __len__(self) -> int:
        return len(self.items.ids)

    @property
    @abc.abstractmethod
    def entries(self) -> int:
        """Return the number of vectors of all items together."""

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Return the width of the vectors."""

    @property
    def row_count(self) -> int:
        """Return the number of rows: one per item, and one per deleted item. `allowed` and `excluded` count them."""
        return len(self)

    @property
    def ids(self) -> Ids:
        """Return the ids by row, object [row_count]; None where the item was deleted."""
        return self.items.names[:-1]

    @property
    def is_alive(self) -> Bools:
        """Mark the rows of items that were not deleted, bool [row_count]."""
        return np.ones(self.row_count, bool)

    @property
    def names(self) -> Names:
        """Return an object that maps rows to ids, as `names[rows]`; row -1 has the id None."""
        return self.items.names

    def snapshot(self) -> Index:
        """Return the items of this moment as an index that does not change, so that its rows fit a later search."""
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """Return the JSON-serialisable settings that are needed to open the index again."""
        return {}

    @abc.abstractmethod
    def exact(self) -> Index:
        """Return an exact index of the same vectors: the truth that an approximate index is measured against."""

    @abc.abstractmethod
    def by_cosine(self, width: int) -> Index:
        """Return an index of the same items, under the same rows, that compares them by cosine.

        Lengths of vectors are learned, too: by inner product a few long vectors are next to everything.

        Args:
          width: count of the numbers of a vector that are compared, from the first; the index has this `dim`.
        """

    def search(
        self, queries: Any, k: int, *, allowed: Any | None = None, excluded: Sequence[Any] | None = None
    ) -> SearchResult:
        """Find the k items with the highest inner products, among all items or the permitted ones.

        Args:
          queries: float [queries, dim], or [dim] for one query.
          k: candidates per query, at least 1; more than there are items is padded (see `SearchResult`).
          allowed: bool [row_count], the rows that may be found; None is all. Where k of them exist, k are found.
          excluded: per query a list of rows that it may not have, repeats allowed; None is none. A `Ragged` of
            `distinct` lists is read as it is.

        Raises:
          DataError: k below 1, another width than the index has, NaN in a query (says in which rows), or `allowed` or
            `excluded` do not fit the index or the queries.
        """
        queries = self._checked_queries(queries)
        k = require_at_least(1, k, what="k")
        found = min(k, len(self))
        if not len(queries) or not found:
            shape = (len(queries), found)
            rows, scores = np.empty(shape, np.int32), np.empty(shape, np.float32)
        elif allowed is None and excluded is None:
            rows, scores = self.best_items(queries, found)  # [queries, found]
        else:
            rows, scores = self.best_allowed(
                queries,
                found,
                allowed=None if allowed is None else checked_allowed(allowed, self.row_count),
                excluded=checked_excluded(
                    Ragged.empty(len(queries)) if excluded is None else excluded,
                    queries=len(queries),
                    items=self.row_count,
                ),
            )
        if found < k:
            padding = ((0, 0), (0, k - found))
            rows = np.pad(rows, padding, constant_values=-1)
            scores = np.pad(scores, padding, constant_values=-np.inf)
        return SearchResult(rows, scores, self.names)

    def rows(self, ids: Any) -> Int32s:
        """Return the rows of ids, int32 of the same length.

        Raises:
          DataError: an id is not in the index; names the first ones.
        """
        return self.items.rows(ids)

    def row(self, name: str) -> int:
        """Return the row of an id, -1 if the index lacks it."""
        return self.items.row(name)

    def rows_there(self, ids: Iterable[str]) -> Int32s:
        """Return the rows of ids, int32, without the ids that the index lacks."""
        found = np.asarray([self.row(name) for name in ids], np.int32)
        return found[found >= 0]

    def vectors(self, items: Any) -> Float32s:
        """Return the stored vectors of some items, float32 [items, dim], or [items, entries of each, dim].

        Args:
          items: ids (strings) or rows (integers).

        Raises:
          DataError: an id or row that the index does not hold.
        """
        chosen = np.asarray(items.to_pylist() if isinstance(items, pa.Array | pa.ChunkedArray) else items)
        if chosen.ndim != 1:
            raise DataError(f"items: expected a list of ids or of rows, found shape {chosen.shape}")
        if not chosen.size:
            return self.vectors_at(np.empty(0, np.int32))
        rows = chosen if np.issubdtype(chosen.dtype, np.integer) else self.rows(chosen)
        if rows.min() < 0 or rows.max() >= self.row_count:
            raise DataError(f"rows: expected 0 to {self.row_count - 1:,}, found {rows.min():,} to {rows.max():,}")
        return self.vectors_at(rows)

    @abc.abstractmethod
    def best_items(self, queries: Float32s, k: int) -> tuple[Int32s, Float32s]:
        """Find rows and scores [queries, k] of items, for at least one checked query; 1 <= k <= items."""

    def best_and_spare(self, queries: Float32s, k: int, *, spare: int) -> tuple[Int32s, Float32s]:
        """Find k + `spare` items as `best_items` does, where the last `spare` may be found with less effort."""
        return self.best_items(queries, k + spare)

    def best_allowed(
        self, queries: Float32s, k: int, *, allowed: Bools | None, excluded: Ragged
    ) -> tuple[Int32s, Float32s]:
        """Find the best items that each query may have: rows and scores [queries, k], padded with -1 and -inf."""
        return best_allowed(self, queries, k, allowed=allowed, excluded=excluded)

    @abc.abstractmethod
    def vectors_at(self, rows: Int32s) -> Float32s:
        """Copy the vectors of rows that the index holds; accepts an empty list of rows."""

    def _checked_queries(self, queries: Any) -> Float32s:
        """Return queries as float32 [queries, dim], or raise a DataError."""
        queries = np.asarray(queries)
        matrix = float_matrix(queries[np.newaxis] if queries.ndim == 1 else queries, "queries")  # [queries, dim]
        if matrix.shape[1] != self.dim:
            raise DataError(
                f"queries: expected {self.dim} dimensions, found {matrix.shape[1]}; "
                "queries and items must come from the same model"
            )
        return matrix


class VectorIndex(Index):
    """Hold the vectors of the items and search all their entries at once.

    Attributes:
      items: the ids and vectors by row.
      cosine: index of the vectors at unit length, built with this one or made when it was first asked for; else None.
    """

    items: Items
    cosine: VectorIndex | None

    def __init__(self, items: Items, *, report: Mapping[str, Any] | None = None):
        super().__init__(items, report=report)
        self.cosine = None
        # Every search asks for these, and what a call costs beside ScaNN's is a handful of such questions.
        self._count, self._several = len(items.ids), items.entries_per_item
        self._entries, self._dim = items.vectors.shape

    def __len__(self) -> int:
        return self._count

    @property
    def entries(self) -> int:
        """Return the number of vectors of all items together."""
        return self._entries

    @property
    def dim(self) -> int:
        """Return the width of the vectors."""
        return self._dim

    @staticmethod
    @abc.abstractmethod
    def exact_over(items: Items) -> VectorIndex:
        """Return an exact index of items."""

    def exact(self) -> VectorIndex:
        """Return an exact index of the same vectors: the truth that an approximate index is measured against."""
        return self.exact_over(self.items)

    def by_cosine(self, width: int) -> VectorIndex:
        """Return the index of unit vectors, exact where none was built with this one; see `Index.by_cosine`."""
        found = self.cosine
        if found is None or found.dim != width:
            found = self.cosine = self.exact_over(self.items.of_unit_length(width))
        return found

    def rows_there(self, ids: Iterable[str]) -> Int32s:
        """Return the rows of ids, int32, without the ids that the index lacks."""
        return self.items.rows_there(ids)

    def vectors_at(self, rows: Int32s) -> Float32s:
        """Copy the vectors of rows; see `Index.vectors_at`."""
        if not rows.size:
            return np.empty((0, *self.items.by_item.shape[1:]), np.float32)
        return np.asarray(self.items.by_item[rows])

    def best_items(self, queries: Float32s, k: int) -> tuple[Int32s, Float32s]:
        """Find rows and scores [queries, k] of items by their entries; 1 <= k <= items.

        The best entries that hold k items hold the best k: every entry of another item is behind them. The best
        entries of a query seldom belong to few items. So a first search is narrow, and only the queries with fewer
        than k items are searched again among enough entries to hold k for certain.
        """
        several = self._several
        if several == 1:
            return self.best_entries(queries, k)
        rows, scores = self._items_among(queries, k, entries=first_width(k, several))
        short = rows[:, -1] < 0
        if short.any():
            rows[short], scores[short] = self._items_among(queries[short], k, entries=k * several)
        return rows, scores

    def _items_among(self, queries: Float32s, k: int, *, entries: int) -> tuple[Int32s, Float32s]:
        """Find the first k items of the best entries, padded as a search result is; k <= entries."""
        rows, scores = self.best_entries(queries, entries)
        found = SearchResult(rows // self.items.entries_per_item, scores, self.items.names).merged(1)
        return found.rows[:, :k], found.scores[:, :k]

    @abc.abstractmethod
    def best_entries(self, queries: Float32s, k: int) -> tuple[Int32s, Float32s]:
        """Find places and scores [queries, k] of entries, for at least one checked query; 1 <= k <= entries."""

    @abc.abstractmethod
    def write(self, directory: Path) -> None:
        """Write the index, without ids and settings, into a directory that exists."""

    @classmethod
    @abc.abstractmethod
    def read(cls, directory: Path, ids: pa.StringArray, *, settings: Any, report: Mapping[str, Any]) -> VectorIndex:
        """Open the files that `write` wrote."""


def first_width(k: int, entries_per_item: int) -> int:
    """Return the number of entries among which a search for k items looks first."""
    return k * min(entries_per_item, 2)
