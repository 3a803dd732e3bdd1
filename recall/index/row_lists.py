"""A list of rows for each query, in one array: what millions of exclusions are compared with without a loop."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from recall.core.arrays import Bools, Int32s, Int64s, Intps
from recall.core.ragged import flat_places

_SALT = np.int32(40_503)
_SLOTS_PER_ROW = 16
_SHIFT = 32  # a row is an int32: a query and a row are one int64


class RowLists(Sequence[Int32s]):
    """For each query rows, unique and rising; reads as a sequence of int32 arrays.

    Args:
      rows: int32 [all], those of one query behind those of the one before.
      lengths: int64 [queries], how many each has.
    """

    def __init__(self, rows: Int32s, lengths: Int64s) -> None:
        self.rows, self.lengths = rows, lengths

    @classmethod
    def of(cls, rows: npt.NDArray[Any], lengths: Int64s) -> RowLists:
        """Of rows in any order, repeats welcome."""
        rows = rows.astype(np.int32, copy=False)
        if len(lengths) == 1:
            # A third of the time of np.unique, of the lists that users have.
            is_rising = rows[1:] > rows[:-1]
            if is_rising.all():
                return cls(rows, lengths)
            rows = np.sort(rows)
            rows = rows[np.append(True, rows[1:] != rows[:-1])]
            return cls(rows, np.array([len(rows)]))
        keys = _keys(rows, np.repeat(np.arange(len(lengths)), lengths))
        if (keys[1:] > keys[:-1]).all():
            return cls(rows, lengths)
        return cls._of_keys(np.unique(keys), queries=len(lengths))

    @classmethod
    def none(cls, queries: int) -> RowLists:
        """Empty ones."""
        return cls(np.empty(0, np.int32), np.zeros(queries, np.int64))

    @classmethod
    def listed(cls, lists: Sequence[Any]) -> RowLists:
        """Of a list of rows for each query."""
        arrays = [np.asarray(rows, np.int32) for rows in lists]
        lengths = np.array([rows.size for rows in arrays], np.int64)
        return cls.of(np.concatenate(arrays) if arrays else np.empty(0, np.int32), lengths)

    @classmethod
    def _of_keys(cls, keys: Int64s, *, queries: int) -> RowLists:
        owners = keys >> _SHIFT
        return cls((keys - (owners << _SHIFT)).astype(np.int32), np.bincount(owners, minlength=queries))

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, query: int) -> Int32s: ...
    @overload
    def __getitem__(self, query: slice) -> Sequence[Int32s]: ...
    def __getitem__(self, query: int | slice) -> Int32s | Sequence[Int32s]:
        if isinstance(query, slice):
            return [self[each] for each in range(*query.indices(len(self)))]
        if not -len(self) <= query < len(self):
            raise IndexError(query)
        end = int(self._ends[query])
        return self.rows[end - int(self.lengths[query]) : end]

    @property
    def longest(self) -> int:
        """Rows of the query that has most."""
        return len(self.rows) if len(self.lengths) == 1 else int(self.lengths.max(initial=0))

    def joined(self, other: RowLists) -> RowLists:
        """The rows of both."""
        if not other.rows.size:
            return self
        keys = np.concatenate([_keys(lists.rows, lists._owners) for lists in (self, other)])
        return self._of_keys(np.unique(keys), queries=len(self))

    def where(self, is_kept: Bools) -> RowLists:
        """Some of the rows, bool [all]."""
        if is_kept.all():
            return self
        return RowLists(self.rows[is_kept], np.bincount(self._owners[is_kept], minlength=len(self)))

    def take(self, queries: Intps) -> RowLists:
        """The lists of some queries, in their order."""
        lengths = self.lengths[queries]
        return RowLists(self.rows[flat_places(self._ends[queries] - lengths, lengths)], lengths)

    def hold(self, found: Int32s) -> Bools:
        """Which rows of result lists are among those of their queries: int32 [queries, width] -> bool."""
        if not self.rows.size:
            return np.zeros(found.shape, bool)
        if len(self) == 1:
            return self.rows.take(self.rows.searchsorted(found), mode="clip") == found
        # Most are not: a table of bits, in which queries share slots, leaves few for the exact comparison. All of them
        # cost 10 us a query of 125 candidates, these 1 us.
        size = 1 << (_SLOTS_PER_ROW * self.rows.size).bit_length()
        salts = np.arange(len(self), dtype=np.int32) * _SALT
        slots = np.zeros(size, bool)
        slots[(self.rows + np.repeat(salts, self.lengths)) & (size - 1)] = True
        maybe = np.flatnonzero(slots[(found + salts[:, np.newaxis]) & (size - 1)])
        wanted = _keys(found.reshape(-1)[maybe], maybe // found.shape[1])
        keys = _keys(self.rows, self._owners)
        held = np.zeros(found.shape, bool)
        held.reshape(-1)[maybe] = keys.take(keys.searchsorted(wanted), mode="clip") == wanted
        return held

    @functools.cached_property
    def _ends(self) -> Int64s:
        return np.cumsum(self.lengths)

    @functools.cached_property
    def _owners(self) -> Int64s:
        return np.repeat(np.arange(len(self)), self.lengths)


def _keys(rows: Int32s, owners: Int64s) -> Int64s:
    return (owners << _SHIFT) + rows
