"""The contract that every index keeps, whatever searches inside."""

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
from recall.index.filtered import best_allowed, checked_allowed, checked_excluded
from recall.index.items import Ids, ItemIds, Items, float_matrix
from recall.index.results import Names, SearchResult


class Index(abc.ABC):
    """Maximum inner product search over a fixed set of items.

    An item has an entry, its vector, or several: its score is then that of its best entry. `search` always gives
    min(k, items) results per query, is deterministic, and answers a query alone as it does in a batch (an approximate
    index up to the rounding of the scores). Only `is_exact` indexes promise that these are the best ones.

    Attributes:
      items: the ids by row.
      report: JSON-serialisable account of how the index was chosen and measured; kept in its manifest.
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
        """Vectors of all items together."""

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Width of the vectors."""

    @property
    def row_count(self) -> int:
        """Rows that results, `allowed` and `excluded` speak of: one per item, and those that deleted items leave."""
        return len(self)

    @property
    def ids(self) -> Ids:
        """Object [rows]: the ids by row, None where the item was deleted."""
        return self.items.names[:-1]

    @property
    def is_alive(self) -> Bools:
        """Bool [row_count], rows of items that were not deleted."""
        return np.ones(self.row_count, bool)

    @property
    def names(self) -> Names:
        """The ids of rows, looked up as `names[rows]`; that of row -1 is None."""
        return self.items.names

    def snapshot(self) -> Index:
        """What the index holds now: does not change, so that rows that were asked for fit the search that follows."""
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """JSON-serialisable settings that are needed to open the index again."""
        return {}

    @abc.abstractmethod
    def exact(self) -> Index:
        """Exact search over the same vectors: what an approximate index is measured against."""

    def search(
        self, queries: Any, k: int, *, allowed: Any | None = None, excluded: Sequence[Any] | None = None
    ) -> SearchResult:
        """The k items with the highest inner products, of all or of those that a query may have.

        Args:
          queries: float [queries, dim], or [dim] for one query.
          k: candidates per query, at least 1; more than there are items is padded (see `SearchResult`).
          allowed: bool [row_count], the rows that may be found; None is all. Where k of them exist, k are found.
          excluded: per query a list of rows that it may not have, repeats welcome; None is none. A `Ragged` of
            `distinct` lists is read as it is.

        Raises:
          DataError: k below 1, another width than the index has, NaN in a query (says in which rows), or `allowed` or
            `excluded` do not fit the index or the queries.
        """
        queries = self._checked_queries(queries)
        if k < 1:
            raise DataError(f"k: expected at least 1, found {k}")
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
        """Rows of ids, int32 of the same length; an id that the index lacks is a DataError."""
        return self.items.rows(ids)

    def row(self, name: str) -> int:
        """Row of an id, -1 if the index lacks it."""
        return self.items.row(name)

    def rows_there(self, ids: Iterable[str]) -> Int32s:
        """Rows of those ids that the index holds, int32."""
        found = np.asarray([self.row(name) for name in ids], np.int32)
        return found[found >= 0]

    def vectors(self, items: Any) -> Float32s:
        """The stored vectors of some items, float32 [items, dim], or [items, entries of each, dim].

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
        """Rows and scores [queries, k] of items, for at least one checked query; 1 <= k <= items."""

    def best_and_spare(self, queries: Float32s, k: int, *, spare: int) -> tuple[Int32s, Float32s]:
        """As `best_items` for k + `spare`, of which those after the first k may be found with less effort."""
        return self.best_items(queries, k + spare)

    def best_allowed(
        self, queries: Float32s, k: int, *, allowed: Bools | None, excluded: Ragged
    ) -> tuple[Int32s, Float32s]:
        """As `best_items` of the items that each query may have, padded with -1 and -inf."""
        return best_allowed(self, queries, k, allowed=allowed, excluded=excluded)

    @abc.abstractmethod
    def vectors_at(self, rows: Int32s) -> Float32s:
        """A copy of the vectors of rows that the index holds; of none is fine."""

    def _checked_queries(self, queries: Any) -> Float32s:
        queries = np.asarray(queries)
        matrix = float_matrix(queries[np.newaxis] if queries.ndim == 1 else queries, "queries")  # [queries, dim]
        if matrix.shape[1] != self.dim:
            raise DataError(
                f"queries: expected {self.dim} dimensions, found {matrix.shape[1]}; "
                "queries and items must come from the same model"
            )
        return matrix


class VectorIndex(Index):
    """An index that holds its vectors itself and searches all entries at once.

    Attributes:
      items: the ids and vectors by row.
    """

    items: Items

    def __init__(self, items: Items, *, report: Mapping[str, Any] | None = None):
        super().__init__(items, report=report)
        # Every search asks for these, and what a call costs beside ScaNN's is a handful of such questions.
        self._count, self._several = len(items.ids), items.entries_per_item
        self._entries, self._dim = items.vectors.shape

    def __len__(self) -> int:
        return self._count

    @property
    def entries(self) -> int:
        """Vectors of all items together."""
        return self._entries

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._dim

    @abc.abstractmethod
    def exact(self) -> VectorIndex:
        """Exact search over the same vectors: what an approximate index is measured against."""

    def rows_there(self, ids: Iterable[str]) -> Int32s:
        """Rows of those ids that the index holds, int32."""
        return self.items.rows_there(ids)

    def vectors_at(self, rows: Int32s) -> Float32s:
        if not rows.size:
            return np.empty((0, *self.items.by_item.shape[1:]), np.float32)
        return np.asarray(self.items.by_item[rows])

    def best_items(self, queries: Float32s, k: int) -> tuple[Int32s, Float32s]:
        """Rows and scores [queries, k] of items, from their entries; 1 <= k <= items.

        The best entries that hold k items hold the best k: every entry of another item is behind them. Those of a
        query are seldom of few items, so that the search which holds k for certain is a second one, for some.
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
        """The first k items of the best entries, padded as a search result is; k <= entries."""
        rows, scores = self.best_entries(queries, entries)
        found = SearchResult(rows // self.items.entries_per_item, scores, self.items.names).merged(1)
        return found.rows[:, :k], found.scores[:, :k]

    @abc.abstractmethod
    def best_entries(self, queries: Float32s, k: int) -> tuple[Int32s, Float32s]:
        """Places and scores [queries, k] of entries, for at least one checked query; 1 <= k <= entries."""

    @abc.abstractmethod
    def write(self, directory: Path) -> None:
        """Writes all but ids and settings into a directory that exists."""

    @classmethod
    @abc.abstractmethod
    def read(cls, directory: Path, ids: pa.StringArray, *, settings: Any, report: Mapping[str, Any]) -> VectorIndex:
        """Opens what `write` wrote."""


def first_width(k: int, entries_per_item: int) -> int:
    """Entries among which a search for k items looks first."""
    return k * min(entries_per_item, 2)
