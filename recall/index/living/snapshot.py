"""Searches a built index together with later vectors, without the items that were deleted or replaced since.

`recent.py` holds the later vectors; `index.py` replaces one snapshot by the next.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from recall.core.arrays import Bools, Float32s, Int32s, Int64s
from recall.core.errors import DataError
from recall.core.ragged import Ragged
from recall.index.base import Index
from recall.index.items import Ids, ItemIds, Items, listed, require_known
from recall.index.living.recent import RecentVectors
from recall.index.results import Names, best_k


@dataclasses.dataclass(frozen=True)
class LaterNames:
    """Map rows to ids: first the rows of a built index, then the rows of later items.

    Attributes:
      base: names of the built index.
      base_rows: number of its rows.
      later: ids of the rows after them, in order. Only ever appended to, so that all snapshots share it.
    """

    base: Names
    base_rows: int
    later: list[str] = dataclasses.field(default_factory=list)

    def __getitem__(self, rows: Any) -> Ids:
        rows = np.asarray(rows)
        found: Ids = np.asarray(self.base[np.where(rows < self.base_rows, rows, -1)], dtype=object)
        for place in np.argwhere(rows >= self.base_rows):
            found[tuple(place)] = self.later[rows[tuple(place)] - self.base_rows]
        return found


class LivingSnapshot(Index):
    """Search a built index (the base) and the upserts and deletes since; never changes.

    A row belongs to one id for as long as the base stays: a replaced item keeps its row, a deleted item leaves it
    empty and gets it back when it is upserted again. Items that the base lacks have the rows after its own.

    Args:
      base: a built index, as it was built.
      recent: later vectors.
      alive: bool [entries of `recent`], the entries that count.
      base_alive: bool [items of the base], the items that were neither deleted nor replaced; None is all.
      names: ids by row.
      row_of: rows of the ids that the base lacks; shared with later snapshots, whose rows are beyond this one's.
      row_count: number of rows; default: all that `names` has.
    """

    kind: ClassVar[str] = "living"

    def __init__(
        self,
        base: Index,
        *,
        recent: RecentVectors,
        alive: Bools,
        base_alive: Bools | None,
        names: LaterNames,
        row_of: dict[str, int],
        row_count: int | None = None,
    ) -> None:
        self.base, self.report, self.is_exact = base, base.report, base.is_exact
        self._recent, self._alive, self._base_alive = recent, alive, base_alive
        self._names, self._row_of = names, row_of
        self._row_count = len(base) + len(names.later) if row_count is None else row_count
        self._cosine: LivingSnapshot | None = None
        self._base_items = len(base) if base_alive is None else int(np.count_nonzero(base_alive))
        self._recent_items = int(np.count_nonzero(alive))

    @classmethod
    def over(cls, base: Index) -> LivingSnapshot:
        """Make a snapshot of a base without any change."""
        entries = base.entries // len(base)
        recent = RecentVectors(np.empty(0, np.int32), np.empty((0, entries, base.dim), np.float32))
        names = LaterNames(base.names, len(base))
        return cls(base, recent=recent, alive=np.empty(0, bool), base_alive=None, names=names, row_of={})

    def __len__(self) -> int:
        return self._base_items + self._recent_items

    @property
    def row_count(self) -> int:
        """Return the number of rows that ids ever had."""
        return self._row_count

    @property
    def entries(self) -> int:
        """Return the number of vectors of all items together."""
        return len(self) * self.entries_per_item

    @property
    def entries_per_item(self) -> int:
        """Return the number of vectors of each item."""
        return self.base.entries // len(self.base)

    @property
    def dim(self) -> int:
        """Return the width of the vectors."""
        return self.base.dim

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of the base."""
        return self.base.settings

    @property
    def names(self) -> Names:
        """Return an object that maps rows to ids."""
        return self._names

    @functools.cached_property
    def items(self) -> ItemIds:  # type: ignore[override]  # made when it is asked for: a copy of all ids
        """Return the ids by row, null where the item was deleted."""
        return ItemIds(pa.array(self.ids, pa.string()))

    @property
    def ids(self) -> Ids:
        """Copy the ids by row, object [row_count]; None where the item was deleted."""
        return self._names[np.where(self.is_alive, np.arange(self._row_count), -1)]

    @property
    def is_alive(self) -> Bools:
        """Mark the rows of items that were not deleted, bool [row_count]."""
        alive = np.zeros(self._row_count, bool)
        alive[: len(self.base)] = True if self._base_alive is None else self._base_alive
        alive[self._recent.rows(np.flatnonzero(self._alive))] = True
        return alive

    @property
    def recent_items(self) -> int:
        """Return the number of items whose vectors came after the base was built."""
        return self._recent_items

    @property
    def gone_items(self) -> int:
        """Return the number of items of the base that were deleted or replaced."""
        return len(self.base) - self._base_items

    @property
    def recent_rows(self) -> Int32s:
        """Return the rows of the items that came after the base was built, int32 [recent_items], rising."""
        return self._recent.rows(self._order)

    def exact(self) -> LivingSnapshot:
        """Return an exact index of the same items, under the same rows."""
        return self._over(self.base.exact(), recent=self._recent)

    def by_cosine(self, width: int) -> LivingSnapshot:
        """Return an index that compares by cosine the items of the base and the later ones; see `Index.by_cosine`."""
        if self._cosine is None or self._cosine.dim != width:
            self._cosine = self._over(self.base.by_cosine(width), recent=self._recent.of_unit_length(width))
        return self._cosine

    def _over(self, base: Index, *, recent: RecentVectors) -> LivingSnapshot:
        """Return a snapshot of the same items with other vectors, of the base and later ones."""
        return LivingSnapshot(
            base, recent=recent, alive=self._alive, base_alive=self._base_alive, names=self._names,
            row_of=self._row_of, row_count=self._row_count,
        )  # fmt: skip

    def rows(self, ids: Any) -> Int32s:
        """Return the rows of ids, int32 of the same length.

        Raises:
          DataError: an id is not in the index; names the first ones.
        """
        return require_known(ids, [self.row(name) for name in ids])

    def row(self, name: str) -> int:
        """Return the row of an id, -1 if the index lacks it."""
        row = self._any_row(name)
        return row if 0 <= row < self._row_count and self._is_alive(row) else -1

    def row_ever(self, name: str) -> int:
        """Return the row that an id has, had since the base was built, or got in a later snapshot; -1 without one."""
        return self._any_row(name)

    def later_ids(self, start: int) -> list[str]:
        """Return the ids of the rows from `start` on, which is not before the end of the base's rows."""
        return self._names.later[start - len(self.base) : self._row_count - len(self.base)]

    def require_like(self, items: Items) -> None:
        """Raise a DataError if the vectors of items are not as many per item, or not as wide, as here."""
        if (items.entries_per_item, items.vectors.shape[1]) != (self.entries_per_item, self.dim):
            raise DataError(
                f"vectors: expected {self.entries_per_item} of {self.dim} dimensions per item, found "
                f"{items.entries_per_item} of {items.vectors.shape[1]}; they must come from the model of the index"
            )

    # Changes: by one writer at a time, on the newest snapshot.

    def upserted(self, ids: Sequence[str], vectors: Float32s) -> LivingSnapshot:
        """Return a snapshot with some items added or replaced.

        Args:
          ids: unique.
          vectors: float32 [items, entries of each, dim].
        """
        rows = np.asarray([self._row_for(name) for name in ids], np.int32)
        recent, alive = self._recent.extended(rows, vectors, alive=self._alive)
        return self._with(recent=recent, alive=alive, base_alive=self._base_without(rows))

    def deleted(self, rows: Int32s) -> LivingSnapshot:
        """Return a snapshot without the items of some rows."""
        alive = self._alive.copy()
        positions = [self._recent.position(row, alive=self._alive) for row in rows.tolist()]
        alive[[position for position in positions if position >= 0]] = False
        return self._with(recent=self._recent, alive=alive, base_alive=self._base_without(rows))

    def _with(self, *, recent: RecentVectors, alive: Bools, base_alive: Bools | None) -> LivingSnapshot:
        """Return a snapshot over the same base with other marks."""
        return LivingSnapshot(
            self.base, recent=recent, alive=alive, base_alive=base_alive, names=self._names, row_of=self._row_of
        )

    def _row_for(self, name: str) -> int:
        """Return the row of an id, a new one for a new id."""
        row = self._any_row(name)
        if row < 0:
            row = len(self.base) + len(self._names.later)
            self._names.later.append(name)  # before its row can be found
            self._row_of[name] = row
        return row

    def _base_without(self, rows: Int32s) -> Bools | None:
        """Return the living items of the base without some rows; None is all."""
        rows = rows[rows < len(self.base)]
        if not rows.size or (self._base_alive is not None and not self._base_alive[rows].any()):
            return self._base_alive
        alive = np.ones(len(self.base), bool) if self._base_alive is None else self._base_alive.copy()
        alive[rows] = False
        return alive

    def _any_row(self, name: str) -> int:
        """Return the row of an id, alive or not; -1 without one."""
        row = self.base.items.row(name)
        return row if row >= 0 else self._row_of.get(name, -1)

    def _is_alive(self, row: int) -> bool:
        """Tell whether the item of a row is there."""
        if row < len(self.base) and (self._base_alive is None or self._base_alive[row]):
            return True
        return self._recent.position(row, alive=self._alive) >= 0

    # Search

    def best_items(self, queries: Float32s, k: int) -> tuple[Int32s, Float32s]:
        """Find the best items; see `Index.best_items`."""
        return self.best_allowed(queries, k, allowed=None, excluded=None)

    def best_allowed(
        self, queries: Float32s, k: int, *, allowed: Bools | None, excluded: Ragged | None
    ) -> tuple[Int32s, Float32s]:
        """Find the best of the base and of the later vectors, and merge them; see `Index.best_allowed`."""
        of_recent = self._recent.search(queries, k, self._recent_among(allowed), excluded=excluded)
        if not self._base_items:
            found = [of_recent]
        elif not self._recent_items:
            found = [self._best_of_base(queries, k, allowed=allowed, excluded=excluded)]
        else:
            found = [self._best_of_base(queries, k, allowed=allowed, excluded=excluded), of_recent]
        rows = np.concatenate([rows for rows, _ in found], axis=1)
        scores = np.concatenate([scores for _, scores in found], axis=1)
        if missing := max(0, k - rows.shape[1]):
            rows = np.pad(rows, ((0, 0), (0, missing)), constant_values=-1)
            scores = np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf)
        return best_k(rows, scores, k)

    def _best_of_base(
        self, queries: Float32s, k: int, *, allowed: Bools | None, excluded: Ragged | None
    ) -> tuple[Int32s, Float32s]:
        """Find the best items of the base that are alive."""
        items = len(self.base)
        may = self._base_alive
        if allowed is not None:
            may = allowed[:items] if may is None else allowed[:items] & may
        if may is None and excluded is None:
            return self.base.best_items(queries, min(k, items))
        barred = Ragged.empty(len(queries)) if excluded is None else excluded.where(excluded.values < items)
        return self.base.best_allowed(queries, min(k, items), allowed=may, excluded=barred)

    @functools.cached_property
    def _order(self) -> Int64s:
        """Return the positions of the living later vectors, by rising row."""
        return self._recent.in_order(self._alive)

    def _recent_among(self, allowed: Bools | None) -> Int64s:
        """Return the positions of the allowed later vectors, by rising row."""
        return self._order if allowed is None else self._order[allowed[self._recent.rows(self._order)]]

    def vectors_at(self, rows: Int32s) -> Float32s:
        """Copy the vectors of rows; see `Index.vectors_at`.

        Raises:
          DataError: the item of a row was deleted; names the first ones.
        """
        rows = np.asarray(rows)
        positions = np.asarray([self._recent.position(row, alive=self._alive) for row in rows.tolist()], np.int64)
        of_base = positions < 0
        gone = rows[of_base & ((rows >= len(self.base)) | ~self._base_mask(rows))]
        if gone.size:
            raise DataError(f"rows: {gone.size:,} of {rows.size:,} are of deleted items: {listed(gone)}")
        vectors = np.empty((len(rows), self.entries_per_item, self.dim), np.float32)
        if of_base.any():
            vectors[of_base] = self.base.vectors_at(rows[of_base]).reshape(-1, *vectors.shape[1:])
        vectors[~of_base] = self._recent.vectors(positions[~of_base])
        return vectors[:, 0] if self.entries_per_item == 1 else vectors

    def _base_mask(self, rows: Int32s) -> Bools:
        """Mark the rows whose items are alive in the base; rows beyond it get any mark."""
        if self._base_alive is None:
            return np.ones(len(rows), bool)
        return self._base_alive[np.minimum(rows, len(self.base) - 1)]
