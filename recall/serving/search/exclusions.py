"""What queries may not have, as rows of the index that is searched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from weakref import WeakKeyDictionary, ref

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import Int32s
from recall.core.ragged import Ragged
from recall.index import Index, LivingSnapshot
from recall.serving.search.search import Exclude, excluded_ids


class CatalogueRows:
    """Finds rows of a run's catalogue in its indexes.

    Each index is looked through once, and remembered while it lives; of a living one its base, where ids keep rows.

    Args:
      item_ids: object [items], by row of the catalogue.
    """

    def __init__(self, item_ids: npt.NDArray[np.object_]) -> None:
        self._item_ids = item_ids
        self._rows_in: WeakKeyDictionary[Index, Int32s | None] = WeakKeyDictionary()
        self._latest: tuple[Callable[[], Index | None], Int32s | None] = (lambda: None, None)

    def rows_in(self, index: Index, lists: Ragged) -> Ragged:
        """Rows of an index; items that it lacks are passed over.

        Args:
          index: does not change while this looks.
          lists: rows of the catalogue, of each query; each once and rising.
        """
        rows_in_base = self._of_base(index.base if isinstance(index, LivingSnapshot) else index)
        if rows_in_base is None:
            return Ragged(lists.values.astype(np.int32), lists.offsets)
        rows = rows_in_base[lists.values]
        lacking = np.flatnonzero(rows < 0)
        if not lacking.size:
            return Ragged(rows, lists.offsets).distinct()
        if isinstance(index, LivingSnapshot):  # gone when the base was built, and perhaps back since
            rows[lacking] = [index.row(self._item_ids[row]) for row in lists.values[lacking].tolist()]
        return Ragged(rows, lists.offsets).where(rows >= 0).distinct()

    def _of_base(self, base: Index) -> Int32s | None:
        """Rows of the catalogue's items in a built index, int32 [items], -1 for what it lacks; None: the same ones."""
        latest, rows = self._latest
        if latest() is base:  # of the usual case, one index: the dictionary takes 4 us
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
    ids: Mapping[int, Iterable[str]],
    catalogue: CatalogueRows,
    queries: int,
) -> Ragged:
    """What each query may not have.

    Args:
      index: does not change while it is searched.
      seen: rows of the catalogue.
      ids: by position of a query; those that the index lacks are passed over.
      catalogue: whose rows `seen` are.
      queries: how many there are.
    """
    excluded = Ragged.empty(queries) if seen is None else catalogue.rows_in(index, seen)
    if ids:
        further = Ragged.from_lists(index.rows_there(ids.get(query, ())) for query in range(queries))
        excluded = excluded.union(further.distinct())
    return excluded


def excluded_by_position(
    exclude: Exclude | None, names: Sequence[str], *further: Mapping[int, Sequence[str]]
) -> dict[int, list[str]]:
    """Ids that queries may not have, by position of those that have any.

    Args:
      exclude: what a caller excludes, for all queries or by their names.
      names: of the queries.
      further: what else they may not have, by position.

    Raises:
      DataError: as `excluded_ids`.
    """
    lists = () if exclude is None else excluded_ids(exclude, names)
    joined = {query: list(ids) for query, ids in enumerate(lists) if ids}
    for own in further:
        for query, ids in own.items():
            if len(ids):
                joined[query] = [*joined.get(query, ()), *ids]
    return joined
