"""Collects the items that queries may not get, as rows of the index that is searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from weakref import WeakKeyDictionary, ref

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import Int32s
from recall.core.ragged import Ragged
from recall.index import Index, LivingSnapshot
from recall.serving.ids import by_id, ids_of
from recall.serving.search.options import Exclude


class CatalogueRows:
    """Map rows of a run's catalogue to rows of its indexes.

    Each index is read once, and the map is kept while the index lives; for a living index it is the map of its base,
    where ids keep their rows.

    Args:
      item_ids: object [items], item ids by row of the catalogue.
    """

    def __init__(self, item_ids: npt.NDArray[np.object_]) -> None:
        self._item_ids = item_ids
        self._rows_in: WeakKeyDictionary[Index, Int32s | None] = WeakKeyDictionary()
        self._latest: tuple[Callable[[], Index | None], Int32s | None] = (lambda: None, None)

    def rows_in(self, index: Index, lists: Ragged) -> Ragged:
        """Map lists of catalogue rows to lists of index rows; items that the index lacks are left out.

        Args:
          index: an index that does not change meanwhile.
          lists: per query rows of the catalogue, unique and rising.
        """
        rows_in_base = self._of_base(index.base if isinstance(index, LivingSnapshot) else index)
        if rows_in_base is None:
            return Ragged(lists.values.astype(np.int32), lists.offsets)
        rows = rows_in_base[lists.values]
        lacking = np.flatnonzero(rows < 0)
        if not lacking.size:
            return Ragged(rows, lists.offsets).distinct()
        if isinstance(index, LivingSnapshot):  # deleted when the base was built, and perhaps added since
            rows[lacking] = [index.row(self._item_ids[row]) for row in lists.values[lacking].tolist()]
        return Ragged(rows, lists.offsets).where(rows >= 0).distinct()

    def _of_base(self, base: Index) -> Int32s | None:
        """Return the row of each catalogue item in a base, int32 [items], -1 without one; None if rows are the same."""
        latest, rows = self._latest
        if latest() is base:  # the usual case, one index: the dictionary takes 4 us
            return rows
        try:
            rows = self._rows_in[base]
        except KeyError:
            ids = pa.array(self._item_ids, pa.string())
            rows = None
            if not base.items.ids.equals(ids):
                rows = pc.index_in(ids, value_set=base.items.ids).fill_null(-1).to_numpy().astype(np.int32)
            self._rows_in[base] = rows
        self._latest = (ref(base), rows)
        return rows


def excluded_rows(
    index: Index,
    *,
    seen: Ragged | None,
    ids: Mapping[int, Sequence[str]],
    more_ids: Sequence[Mapping[int, Sequence[str]]] = (),
    catalogue: CatalogueRows,
    queries: int,
) -> Ragged:
    """Join the rows that each query may not get.

    Args:
      index: an index that does not change meanwhile.
      seen: per query rows of the catalogue, unique and rising; None: no rows.
      ids: by position of a query, item ids. Ids that the index lacks are left out. A list that is of several queries
        (the object) is looked up once: ten thousand ids for each of 256 users take seconds otherwise.
      more_ids: further ids in the same form.
      catalogue: the map of the rows of `seen`.
      queries: number of queries.
    """
    excluded = Ragged.empty(queries) if seen is None else catalogue.rows_in(index, seen)
    for by_position in filter(None, [ids, *more_ids]):
        rows_of = {
            id(names): index.rows_there(names) for names in {id(own): own for own in by_position.values()}.values()
        }
        nothing = np.empty(0, np.int32)
        lists = [rows_of[id(by_position[query])] if query in by_position else nothing for query in range(queries)]
        excluded = excluded.union(Ragged.from_lists(lists).distinct())
    return excluded


def excluded_by_position(
    exclude: Exclude | None, names: Sequence[str], others: Mapping[int, Sequence[str]] | None = None
) -> dict[int, list[str]]:
    """Join the item ids that queries may not get, by position of the queries that have any.

    Args:
      exclude: the caller's exclusions.
      names: names of the queries.
      others: by position of a query, more item ids; default: none.

    Raises:
      DataError: as `excluded_ids`.
    """
    lists = () if exclude is None else excluded_ids(exclude, names)
    joined: dict[int, list[str]] = {query: ids for query, ids in enumerate(lists) if ids}
    for query, ids in (others or {}).items():
        if len(ids):
            joined[query] = [*joined.get(query, ()), *ids]
    return joined


def excluded_ids(exclude: Exclude, names: Sequence[str]) -> list[list[str]]:
    """List the item ids that a caller excludes, per query.

    Args:
      exclude: item ids for all queries, or by name of a query. Names without a query are ignored.
      names: names of the queries.

    Raises:
      DataError: an entry is no list of ids, or an id is missing.
    """
    if isinstance(exclude, Mapping):
        own = by_id(exclude, "exclude")
        read = dict[int, list[str]]()  # by object: callers share one list among many queries
        for name in names:
            if name in own and id(own[name]) not in read:
                read[id(own[name])] = ids_of(own[name], f"exclude[{name!r}]")
        return [read[id(own[name])] if name in own else [] for name in names]
    return [ids_of(exclude, "exclude")] * len(names)
