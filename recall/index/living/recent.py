"""Holds vectors that came after an index was built, in the order of their arrival, and compares them exactly."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from recall.core.arrays import Bools, Float32s, Int32s, Int64s
from recall.index.items import unit_vectors
from recall.index.results import best_k, top_rows

_FIRST_CAPACITY = 64
# Numbers held at a time: 16 MB of scores.
_BLOCK = 1 << 22


class RecentVectors:
    """Append vectors, and search the living ones among them.

    Entries are never moved or overwritten, so that readers of the first `count` are not disturbed by later ones. A
    writer holds a lock. Readers hold none: their `alive` mask tells how many entries they know.

    Args:
      rows: int32 [count], rows of the items.
      vectors: float32 [count, entries of each, dim].
      capacity: number of entries that fit before `extended` makes a longer one.
    """

    def __init__(self, rows: Int32s, vectors: Float32s, *, capacity: int = _FIRST_CAPACITY) -> None:
        self._count = len(rows)
        capacity = max(capacity, self._count)
        self._rows = np.empty(capacity, np.int32)
        self._vectors = np.empty((capacity, *vectors.shape[1:]), np.float32)
        self._rows[: self._count], self._vectors[: self._count] = rows, vectors
        self._latest = dict(zip(rows.tolist(), range(self._count), strict=True))
        self._unit: RecentVectors | None = None
        self._scaling = threading.Lock()

    def extended(self, rows: Int32s, vectors: Float32s, *, alive: Bools) -> tuple[RecentVectors, Bools]:
        """Append the vectors of rows, each row once; without room, copy the living entries to a longer object.

        Args:
          rows: int32 [new].
          vectors: float32 [new, entries of each, dim].
          alive: bool [count], the entries that count still.

        Returns:
          This object, or a longer one with the living entries; and a bool mask of its living entries, where the new
          entries replace the earlier ones of the same rows.
        """
        alive = alive.copy()
        before = [self._latest.get(row, -1) for row in rows.tolist()]
        alive[[position for position in before if position >= 0]] = False
        kept, end = self, self._count + len(rows)
        if end > len(self._rows):
            living = np.flatnonzero(alive)
            kept = RecentVectors(
                self._rows[living], self._vectors[living], capacity=max(_FIRST_CAPACITY, 2 * (living.size + len(rows)))
            )
            alive = np.ones(living.size, bool)
        kept._append(rows, vectors)
        return kept, np.concatenate([alive, np.ones(len(rows), bool)])

    def _append(self, rows: Int32s, vectors: Float32s) -> None:
        """Append vectors where there is room."""
        start, end = self._count, self._count + len(rows)
        self._rows[start:end], self._vectors[start:end] = rows, vectors
        self._latest.update(zip(rows.tolist(), range(start, end), strict=True))
        self._count = end

    def position(self, row: int, *, alive: Bools) -> int:
        """Return the position of the living vector of a row, -1 without one.

        Args:
          row: of an item.
          alive: bool [entries], the first entries that count.
        """
        position = self._latest.get(row, -1)
        if position >= len(alive):  # a later writer replaced it
            found = np.flatnonzero((self._rows[: len(alive)] == row) & alive)
            return int(found[0]) if found.size else -1
        return position if position >= 0 and alive[position] else -1

    def rows(self, positions: Int64s) -> Int32s:
        """Return the rows of entries."""
        return self._rows[positions]

    def vectors(self, positions: Int64s) -> Float32s:
        """Copy the vectors of entries, float32 [positions, entries of each, dim]."""
        return self._vectors[positions]

    def of_unit_length(self, width: int) -> RecentVectors:
        """Return the same entries with the first `width` numbers of their vectors, scaled by `unit_vectors`.

        What came since the last call is scaled and appended; readers of earlier entries are not disturbed.
        """
        with self._scaling:
            unit, count = self._unit, self._count
            if unit is None or unit._vectors.shape[2] != width:
                none = np.empty((0, self._vectors.shape[1], width), np.float32)
                unit = self._unit = RecentVectors(np.empty(0, np.int32), none, capacity=len(self._rows))
            if unit._count < count:
                new = slice(unit._count, count)
                unit._append(self._rows[new], unit_vectors(self._vectors[new, :, :width]))
            return unit

    def in_order(self, alive: Bools) -> Int64s:
        """Return the positions of the living among the first entries, by rising row."""
        living = np.flatnonzero(alive)
        return living[np.argsort(self._rows[living], kind="stable")]

    def search(
        self, queries: Float32s, k: int, positions: Int64s, *, excluded: Sequence[Int32s] | None = None
    ) -> tuple[Int32s, Float32s]:
        """Find the k best of some entries, exactly.

        Args:
          queries: float32 [queries, dim].
          k: at least 1.
          positions: int64 [n], the entries to compare, by rising row.
          excluded: per query rows that it may not have.

        Returns:
          rows and scores [queries, min(k, n)], padded with -1 and -inf.
        """
        k = min(k, positions.size)
        block = max(1, _BLOCK // max(1, positions.size, k * self._vectors.shape[2]))
        blocks = [slice(start, start + block) for start in range(0, len(queries), block)]
        parts = [
            self._search_block(queries[own], k, positions, None if excluded is None else excluded[own])
            for own in blocks
        ]
        return np.concatenate([rows for rows, _ in parts]), np.concatenate([scores for _, scores in parts])

    def _search_block(
        self, queries: Float32s, k: int, positions: Int64s, excluded: Sequence[Int32s] | None
    ) -> tuple[Int32s, Float32s]:
        """Find the k best of some entries for as many queries as one block holds."""
        if not k:
            return np.empty((len(queries), 0), np.int32), np.empty((len(queries), 0), np.float32)
        # All entries in place, then the wanted columns: copying the vectors of the living entries costs more than the
        # product with the others.
        end = int(positions.max()) + 1
        entries = [queries @ self._vectors[:end, entry].T for entry in range(self._vectors.shape[1])]
        scores = (entries[0] if len(entries) == 1 else np.max(entries, axis=0))[:, positions]  # [queries, n]
        rows = self._rows[positions]
        for line, own in enumerate(excluded or []):
            if own.size:
                scores[line, np.isin(rows, own)] = -np.inf
        columns = top_rows(scores, k)  # [queries, k]
        is_barred = np.isneginf(np.take_along_axis(scores, columns, axis=1))
        # Summed per pair, as exact search does, so that a query gets the same scores alone and in a batch.
        near = np.einsum("qd,qked->qke", queries, self._vectors[positions[columns]]).max(axis=2)
        return best_k(
            np.where(is_barred, -1, rows[columns]).astype(np.int32),
            np.where(is_barred, -np.inf, near).astype(np.float32),
            k,
        )
