"""What a search gives, and how the results of several shards become one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from recall.core.arrays import Float32s, Int32s
from recall.core.errors import DataError
from recall.index.items import Ids


class Names(Protocol):
    """The ids of rows: an array of them with a last None, or what is looked up likewise."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Object array of the shape of rows (integers); that of row -1 is None."""


def ids_at(names: Names, rows: Int32s) -> Ids:
    """Object array of the shape of rows: their ids, None for row -1."""
    # 100 of a million: 12 us, indexing 13.6 us. Most of it is waiting for ids that lie all over the memory.
    found: Ids = names.take(rows) if isinstance(names, np.ndarray) else names[rows]
    return found


@dataclasses.dataclass(frozen=True)
class SomeNames:
    """The ids of some rows of a catalogue, looked up as in an array of all of them: `names[rows]`.

    Attributes:
      rows: int32 [items], rising.
      ids: object [items + 1], their ids and a last None, which is that of row -1.
    """

    rows: Int32s
    ids: Ids

    @classmethod
    def listed(cls, rows: Int32s, ids: Ids) -> SomeNames:
        """The names in result lists: rows [queries, k], which may repeat and hold -1, and their ids."""
        every, first = np.unique(rows, return_index=True)
        is_item = every >= 0
        return cls(every[is_item], np.append(ids.reshape(-1)[first[is_item]], [None]))

    def __getitem__(self, rows: Int32s) -> Ids:
        found: Ids = self.ids[np.where(rows < 0, -1, np.searchsorted(self.rows, rows))]
        return found


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The best candidates of each query, by falling score; equal scores by rising row.

    Where the index holds fewer than k items the last columns are padding: row -1, id None, score -inf.

    Attributes:
      rows: int32 [queries, k], rows of the items.
      scores: float32 [queries, k], inner products.
      names: object [items + 1], ids by row and a last None; or what knows the ids of some rows, of all here at least.
    """

    rows: Int32s
    scores: Float32s
    names: Names = dataclasses.field(repr=False)

    @classmethod
    def of_ids(cls, rows: Int32s, scores: Float32s, ids: Ids) -> SearchResult:
        """A result of which another process sent the rows, scores and ids, each [queries, k]."""
        return cls(rows, scores, SomeNames.listed(rows, ids))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled it takes along the ids of its own rows, not those of the catalogue."""
        return SearchResult.of_ids, (self.rows, self.scores, self.ids)

    @property
    def ids(self) -> Ids:
        """Object [queries, k]: the items' ids as str. Looked up when first asked for: callers often want rows alone."""
        # Not a cached_property, whose lock (before Python 3.12) is a tenth of the time of a query of a small index.
        found: Ids | None = self.__dict__.get("_ids")
        if found is None:
            found = self.__dict__["_ids"] = ids_at(self.names, self.rows)
        return found

    def merged(self, queries: int) -> SearchResult:
        """Joins the lists of every `queries` consecutive queries into one: each item once, under its best score.

        The best k items of the lists together are in the first k columns: one of them that a list of k lacks is
        beaten by k items of that list.

        Args:
          queries: how many queries were one user's; divides the number of lists.

        Returns:
          rows and scores [queries / `queries`, k * `queries`], padded as a search result is.
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
    """The k best items of the lists of several shards: what one index over all of them answers.

    An item that is among the k best of all is among the k best of its shard, so that k of each are enough and nothing
    else of a shard is needed. Without the result of a shard that is down, the k best of the others.

    Args:
      results: of the same queries and k, one of each shard as `Shard.search` gives it, in any order.

    Returns:
      rows and scores [queries, k], ordered and padded as those of one index, equal scores included.

    Raises:
      DataError: there are no results, their shapes differ, or two hold the same item.
    """
    shapes = {result.rows.shape for result in results}
    if len(shapes) != 1:
        found = ", ".join(str(shape) for shape in sorted(shapes)) or "none"
        raise DataError(f"results: expected the same [queries, k] of every shard, found {found}")
    ((_, k),) = shapes
    listed = np.concatenate([result.rows for result in results], axis=1)  # [queries, shards * k]
    rows, scores = best(listed, np.concatenate([result.scores for result in results], axis=1), k)
    if ((np.diff(rows, axis=1) == 0) & (rows[:, 1:] >= 0)).any():
        raise DataError("results: two of them hold the same item; give one result of each shard")
    ids = np.concatenate([result.ids for result in results], axis=1)
    return SearchResult(rows, scores, SomeNames.listed(listed, ids))


def best(rows: Int32s, scores: Float32s, k: int) -> tuple[Int32s, Float32s]:
    """The first k columns of lists [queries, any] by falling score, equal scores by rising row, padding last."""
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def top_rows(scores: Float32s, k: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Columns of the k highest scores of each row, in any order; among equal scores the lowest columns.

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
