"""Holds the result of a search, merges the results of several shards, and orders candidates.

`top_rows` selects the candidates of one matrix of scores; `best_k` orders lists that are already short.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from recall.core.arrays import Float32s, Int32s
from recall.core.errors import DataError
from recall.index.items import Ids


class Names(Protocol):
    """Map rows to ids: an array of all ids with a last None, or an object that is indexed in the same way."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Return the ids of rows (integers) as an object array of the same shape; row -1 has the id None."""


def ids_at(names: Names, rows: Int32s) -> Ids:
    """Return the ids of rows as an object array of the same shape, None for row -1."""
    # 100 of a million: 12 us, indexing 13.6 us. Most of it is waiting for ids that lie all over the memory.
    found: Ids = names.take(rows) if isinstance(names, np.ndarray) else names[rows]
    return found


@dataclasses.dataclass(frozen=True)
class SomeNames:
    """Hold the ids of some rows of a catalogue, indexed as an array of all ids is: `names[rows]`.

    Attributes:
      rows: int32 [items], rising.
      ids: object [items + 1], their ids and a last None, the id of row -1.
    """

    rows: Int32s
    ids: Ids

    @classmethod
    def listed(cls, rows: Int32s, ids: Ids) -> SomeNames:
        """Collect the ids of result lists: rows [queries, k], which may repeat and hold -1, and ids likewise."""
        every, first = np.unique(rows, return_index=True)
        is_item = every >= 0
        return cls(every[is_item], np.append(ids.reshape(-1)[first[is_item]], [None]))

    def __getitem__(self, rows: Int32s) -> Ids:
        found: Ids = self.ids[np.where(rows < 0, -1, np.searchsorted(self.rows, rows))]
        return found


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """Hold the best candidates of each query, by falling score; equal scores by rising row.

    Where the index holds fewer than k items the last columns are padding: row -1, id None, score -inf.

    Attributes:
      rows: int32 [queries, k], rows of the items.
      scores: float32 [queries, k], inner products.
      names: object [items + 1], ids by row and a last None; or a mapping that knows at least the rows of this result.
    """

    rows: Int32s
    scores: Float32s
    names: Names = dataclasses.field(repr=False)

    @classmethod
    def of_ids(cls, rows: Int32s, scores: Float32s, ids: Ids) -> SearchResult:
        """Make a result from the rows, scores and ids that another process sent, each [queries, k]."""
        return cls(rows, scores, SomeNames.listed(rows, ids))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the ids of its own rows alone, not the ids of the catalogue."""
        return SearchResult.of_ids, (self.rows, self.scores, self.ids)

    @property
    def ids(self) -> Ids:
        """Return the ids of the items as str, object [queries, k]; looked up at the first call."""
        # Late, as callers often need rows alone. Not a cached_property, whose lock (before Python 3.12) is a tenth of
        # the time of a query of a small index.
        found: Ids | None = self.__dict__.get("_ids")
        if found is None:
            found = self.__dict__["_ids"] = ids_at(self.names, self.rows)
        return found

    def merged(self, queries: int) -> SearchResult:
        """Join the lists of every `queries` consecutive queries into one: each item once, under its best score.

        The first k columns hold the best k items of the lists together: an item that a list of k lacks is beaten by k
        items of that list.

        Args:
          queries: how many queries were one user's; divides the number of lists.

        Returns:
          The joined lists: rows and scores [queries / `queries`, k * `queries`], padded as a search result is.
        """
        width = queries * self.rows.shape[1]
        rows, scores = self.rows.reshape(-1, width), self.scores.reshape(-1, width)
        # By row, of one row's scores the best first: what follows its like is a repeat.
        order = np.lexsort((-scores, rows), axis=1)
        rows, scores = np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
        is_repeat = np.diff(rows, axis=1, prepend=-2) == 0
        rows, scores = np.where(is_repeat, -1, rows), np.where(is_repeat, -np.inf, scores)
        order = np.lexsort((rows, -scores), axis=1)
        rows, scores = np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
        return SearchResult(rows.astype(np.int32), scores.astype(np.float32), self.names)


def merge_results(results: Sequence[SearchResult]) -> SearchResult:
    """Merge the lists of several shards into the k best items, the answer of one index over all of them.

    An item among the k best of all is among the k best of its shard, so that k of each are enough and nothing else of
    a shard is needed. Without the result of a shard that is down, the merged lists hold the k best of the others.

    Args:
      results: of the same queries and k, one of each shard as `Shard.search` gives it, in any order.

    Returns:
      rows and scores [queries, k], ordered and padded as one index does, equal scores included.

    Raises:
      DataError: there are no results, their shapes differ, or two hold the same item.
    """
    shapes = {result.rows.shape for result in results}
    if len(shapes) != 1:
        found = ", ".join(str(shape) for shape in sorted(shapes)) or "none"
        raise DataError(f"results: expected the same [queries, k] of every shard, found {found}")
    ((_, k),) = shapes
    listed = np.concatenate([result.rows for result in results], axis=1)  # [queries, shards * k]
    rows, scores = best_k(listed, np.concatenate([result.scores for result in results], axis=1), k)
    if ((np.diff(rows, axis=1) == 0) & (rows[:, 1:] >= 0)).any():
        raise DataError("results: two of them hold the same item; give one result of each shard")
    ids = np.concatenate([result.ids for result in results], axis=1)
    return SearchResult(rows, scores, SomeNames.listed(listed, ids))


def best_k(rows: Int32s, scores: Float32s, k: int) -> tuple[Int32s, Float32s]:
    """Return the first k columns of lists [queries, any] by falling score; equal scores by rising row, padding last."""
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def top_rows(scores: Float32s, k: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Find the columns of the k highest scores of each row, in any order; among equal scores the lowest columns.

    Args:
      scores: float [queries, items].
      k: at most the number of items.
    """
    items = scores.shape[1]
    if k == items:
        return np.tile(np.arange(items), (len(scores), 1))
    columns = np.argpartition(scores, items - k, axis=1)[:, items - k :]  # [queries, k]
    chosen = np.take_along_axis(scores, columns, axis=1)
    cut = chosen.min(axis=1, keepdims=True)  # [queries, 1]
    # argpartition takes any of the items that tie at the cut; only there is more work needed.
    undecided = (scores == cut).sum(axis=1) > (chosen == cut).sum(axis=1)
    for query in np.flatnonzero(undecided):
        above = np.flatnonzero(scores[query] > cut[query])
        tied = np.flatnonzero(scores[query] == cut[query])
        columns[query] = np.concatenate([above, tied[: k - above.size]])
    return columns
