"""What a living index holds at a moment: a built index, what came since, and what of the built one no longer counts."""

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
from recall.index.items import Ids, ItemIds, listed, require_known
from recall.index.living.recent import Recent
from recall.index.results import Names, best


@dataclasses.dataclass(frozen=True)
class LaterNames:
    """Ids by row: those of a built index, and after them those of items that came later.

    Attributes:
      base: of the built index.
      base_rows: how many rows it has.
      later: ids of the rows after those, in order. Only ever appended to, so that all snapshots share it.
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
    """An immutable index over a built one (the base) and what was upserted and deleted since.

    A row is an id's for as long as the base stays: an item that is replaced keeps its row, one that is deleted leaves
    it empty, and gets it back when it is upserted again. Items that the base lacks have the rows after its own.

    Args:
      base: a built index; None of its items is gone.
      recent: vectors that came later.
      alive: bool [entries of `recent`], which of them count.
      base_alive: bool [items of the base], those that were neither deleted nor replaced; None is all.
      names: ids by row.
      row_of: rows of the ids that the base lacks; shared with later snapshots, whose rows are beyond this one's.
    """

    kind: ClassVar[str] = "living"

    def __init__(
        self,
        base: Index,
        *,
        recent: Recent,
        alive: Bools,
        base_alive: Bools | None,
        names: LaterNames,
        row_of: dict[str, int],
    ) -> None:
        self.base, self.report, self.is_exact = base, base.report, base.is_exact
        self._recent, self._alive, self._base_alive = recent, alive, base_alive
        self._names, self._row_of = names, row_of
        self._row_count = len(base) + len(names.later)
        self._base_items = len(base) if base_alive is None else int(np.count_nonzero(base_alive))
        self._recent_items = int(np.count_nonzero(alive))

    @classmethod
    def over(cls, base: Index) -> LivingSnapshot:
        """A base to which nothing has happened yet."""
        entries = base.entries // len(base)
        recent = Recent(np.empty(0, np.int32), np.empty((0, entries, base.dim), np.float32))
        names = LaterNames(base.names, len(base))
        return cls(base, recent=recent, alive=np.empty(0, bool), base_alive=None, names=names, row_of={})

    def __len__(self) -> int:
        return self._base_items + self._recent_items

    @property
    def row_count(self) -> int:
        """Rows that were ever given to an id."""
        return self._row_count

    @property
    def entries(self) -> int:
        """Vectors of all items together."""
        return len(self) * self.entries_per_item

    @property
    def entries_per_item(self) -> int:
        """Vectors of each item."""
        return self.base.entries // len(self.base)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.base.dim

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the base."""
        return self.base.settings

    @property
    def names(self) -> Names:
        """The ids of rows."""
        return self._names

    @functools.cached_property
    def items(self) -> ItemIds:  # type: ignore[override]  # made when it is asked for: a copy of all ids
        """The ids by row, null where the item was deleted."""
        return ItemIds(pa.array(self.ids, pa.string()))

    @property
    def ids(self) -> Ids:
        """Object [row_count]: the ids by row, None where the item was deleted; a copy."""
        return self._names[np.where(self.is_alive, np.arange(self._row_count), -1)]

    @property
    def is_alive(self) -> Bools:
        """Bool [row_count], rows of items that were not deleted."""
        alive = np.zeros(self._row_count, bool)
        alive[: len(self.base)] = True if self._base_alive is None else self._base_alive
        alive[self._recent.rows(np.flatnonzero(self._alive))] = True
        return alive

    @property
    def recent_items(self) -> int:
        """Items whose vectors came after the base was built."""
        return self._recent_items

    @property
    def gone_items(self) -> int:
        """Items of the base that were deleted or replaced."""
        return len(self.base) - self._base_items

    @property
    def recent_rows(self) -> Int32s:
        """int32 [recent_items], rising."""
        return self._recent.rows(self._order)

    def exact(self) -> LivingSnapshot:
        """Exact search over the same items, under the same rows."""
        return LivingSnapshot(
            self.base.exact(),
            recent=self._recent,
            alive=self._alive,
            base_alive=self._base_alive,
            names=self._names,
            row_of=self._row_of,
        )

    def rows(self, ids: Any) -> Int32s:
        """Rows of ids, int32 of the same length; an id that the index lacks is a DataError."""
        return require_known(ids, [self.row(name) for name in ids])

    def row(self, name: str) -> int:
        """Row of an id, -1 if the index lacks it."""
        row = self._any_row(name)
        return row if 0 <= row < self._row_count and self._is_alive(row) else -1

    def row_ever(self, name: str) -> int:
        """The row that an id has or had since the base was built, or that a later snapshot gave it; -1 without."""
        return self._any_row(name)

    def later_ids(self, start: int) -> list[str]:
        """The ids that the rows from `start` on were given to, for a start that is not before the base's end."""
        return self._names.later[start - len(self.base) : self._row_count - len(self.base)]

    # Changes: by one writer at a time, on the newest snapshot.

    def upserted(self, ids: Sequence[str], vectors: Float32s) -> LivingSnapshot:
        """With some items added or replaced; ids are unique, vectors float32 [items, entries of each, dim]."""
        rows = np.asarray([self._row_for(name) for name in ids], np.int32)
        recent, alive = self._recent.extended(rows, vectors, alive=self._alive)
        return self._with(recent=recent, alive=alive, base_alive=self._base_without(rows))

    def deleted(self, rows: Int32s) -> LivingSnapshot:
        """Without some items that it holds."""
        alive = self._alive.copy()
        positions = [self._recent.position(row, alive=self._alive) for row in rows.tolist()]
        alive[[position for position in positions if position >= 0]] = False
        return self._with(recent=self._recent, alive=alive, base_alive=self._base_without(rows))

    def _with(self, *, recent: Recent, alive: Bools, base_alive: Bools | None) -> LivingSnapshot:
        return LivingSnapshot(
            self.base, recent=recent, alive=alive, base_alive=base_alive, names=self._names, row_of=self._row_of
        )

    def _row_for(self, name: str) -> int:
        row = self._any_row(name)
        if row < 0:
            row = len(self.base) + len(self._names.later)
            self._names.later.append(name)  # before its row can be found
            self._row_of[name] = row
        return row

    def _base_without(self, rows: Int32s) -> Bools | None:
        rows = rows[rows < len(self.base)]
        if not rows.size or (self._base_alive is not None and not self._base_alive[rows].any()):
            return self._base_alive
        alive = np.ones(len(self.base), bool) if self._base_alive is None else self._base_alive.copy()
        alive[rows] = False
        return alive

    def _any_row(self, name: str) -> int:
        row = self.base.items.row(name)
        return row if row >= 0 else self._row_of.get(name, -1)

    def _is_alive(self, row: int) -> bool:
        if row < len(self.base) and (self._base_alive is None or self._base_alive[row]):
            return True
        return self._recent.position(row, alive=self._alive) >= 0

    # Search

    def best_items(self, queries: Float32s, k: int) -> tuple[Int32s, Float32s]:
        return self.best_allowed(queries, k, allowed=None, excluded=None)

    def best_allowed(
        self, queries: Float32s, k: int, *, allowed: Bools | None, excluded: Ragged | None
    ) -> tuple[Int32s, Float32s]:
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
        return best(rows, scores, k)

    def _best_of_base(
        self, queries: Float32s, k: int, *, allowed: Bools | None, excluded: Ragged | None
    ) -> tuple[Int32s, Float32s]:
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
        return self._recent.in_order(self._alive)

    def _recent_among(self, allowed: Bools | None) -> Int64s:
        return self._order if allowed is None else self._order[allowed[self._recent.rows(self._order)]]

    def vectors_at(self, rows: Int32s) -> Float32s:
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
        if self._base_alive is None:
            return np.ones(len(rows), bool)
        return self._base_alive[np.minimum(rows, len(self.base) - 1)]
