"""Holds lists of different lengths in one array, so that many of them are read, cut and compared without a loop."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from recall.core.arrays import AnyInts, Bools, Int32s, Int64s

Values = npt.NDArray[Any]

_SALT = np.int32(40_503)
_SLOTS_PER_VALUE = 16
_SHIFT = 32  # a value is an int32: the number of a list and a value are one int64


class Ragged(Sequence[Values]):
    """Hold many lists in one array: list i is `values[offsets[i]:offsets[i + 1]]`. Reads as a sequence of arrays.

    Nothing is checked or copied here, since requests build several of these in a few microseconds.

    Args:
      values: [sum of lengths], any type.
      offsets: int64 [lists + 1], from 0 to len(values), never falling.
    """

    def __init__(self, values: Values, offsets: Int64s) -> None:
        self.values, self.offsets = values, offsets

    # Building

    @classmethod
    def from_lists(cls, lists: Iterable[Sequence[int] | Values], *, dtype: npt.DTypeLike = np.int32) -> Ragged:
        """Pack lists one behind the other."""
        arrays = [np.asarray(values, dtype) for values in lists]
        lengths = np.array([values.size for values in arrays], np.int64)
        return cls.from_lengths(np.concatenate([np.empty(0, dtype), *arrays]), lengths)

    @classmethod
    def from_lengths(cls, values: Values, lengths: AnyInts) -> Ragged:
        """Cut an array into consecutive lists of the given lengths, int [lists]."""
        return cls(values, _offsets(lengths))

    @classmethod
    def from_spans(cls, starts: AnyInts, lengths: AnyInts) -> Ragged:
        """List consecutive numbers: for each start, int [lists], as many as its length says. Values are int64."""
        offsets = _offsets(lengths)
        return cls(np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths), offsets)

    @classmethod
    def empty(cls, lists: int) -> Ragged:
        """Make so many int32 lists without values."""
        return cls(np.empty(0, np.int32), np.zeros(lists + 1, np.int64))

    # Reading

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[Values]:
        return (self.values[start:stop] for start, stop in itertools.pairwise(self.offsets.tolist()))

    @overload
    def __getitem__(self, place: int) -> Values: ...
    @overload
    def __getitem__(self, place: slice) -> Ragged: ...
    def __getitem__(self, place: int | slice) -> Values | Ragged:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            if step != 1:
                return self.take(np.arange(start, stop, step))
            offsets = self.offsets[start : max(start, stop) + 1]
            return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        return self.values[self.offsets[place] : self.offsets[place + 1]]

    @functools.cached_property
    def lengths(self) -> Int64s:
        """Count the values of each list, int64 [lists]."""
        return self.offsets[1:] - self.offsets[:-1]

    @functools.cached_property
    def owners(self) -> Int64s:
        """Give for each value the number of its list, int64 [values]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @functools.cached_property
    def longest(self) -> int:
        """Return the length of the longest list; 0 without lists."""
        return len(self.values) if len(self) == 1 else int(self.lengths.max(initial=0))

    @functools.cached_property
    def largest(self) -> int:
        """Return the largest value; -1 without values."""
        return int(self.values.max(initial=-1))

    @functools.cached_property
    def empty_lists(self) -> int:
        """Count the lists without values."""
        return int(np.count_nonzero(self.lengths == 0))

    def take(self, chosen: AnyInts) -> Ragged:
        """Copy the lists of some numbers, in the given order."""
        places = Ragged.from_spans(self.offsets[:-1][chosen], self.lengths[chosen])
        return Ragged(self.values[places.values], places.offsets)

    def where(self, is_kept: Bools) -> Ragged:
        """Keep some of the values, bool [values]; a list may become empty."""
        if is_kept.all():
            return self
        kept_before = np.zeros(len(is_kept) + 1, np.int64)
        np.cumsum(is_kept, out=kept_before[1:])
        return Ragged(self.values[is_kept], kept_before[self.offsets])

    def replaced(self, is_replaced: Bools, others: Ragged) -> Ragged:
        """Put other lists, in their order, in the places of the lists marked in bool [lists]."""
        places = np.arange(len(self))
        places[is_replaced] = len(self) + np.arange(len(others))
        values = np.concatenate([self.values, others.values])
        return Ragged.from_lengths(values, np.concatenate([self.lengths, others.lengths])).take(places)

    def any_where(self, is_marked: Bools) -> Bools:
        """Mark the lists that hold at least one of the values marked in bool [values]; bool [lists]."""
        hits_before = np.concatenate([[0], np.cumsum(is_marked)])
        return np.asarray(hits_before[self.offsets[1:]] != hits_before[self.offsets[:-1]])

    def lists(self) -> list[list[Any]]:
        """Copy the values to Python lists."""
        values = self.values.tolist()
        return [values[start:stop] for start, stop in itertools.pairwise(self.offsets.tolist())]

    # Lists as sets; values of the int32 range

    def distinct(self) -> Ragged:
        """Sort each list and drop repeats."""
        if len(self) == 1:
            # This takes a third of the time of np.unique for lists as long as users have them.
            values = self.values
            if (values[1:] > values[:-1]).all():
                return self
            values = np.sort(values)
            values = values[np.append(True, values[1:] != values[:-1])]
            return Ragged(values, np.array([0, len(values)]))
        keys = _keys(self.values, self.owners)
        if (keys[1:] > keys[:-1]).all():
            return self
        return self._of_keys(np.unique(keys))

    def union(self, other: Ragged) -> Ragged:
        """Merge lists of the same number pairwise; all have to be `distinct`, as the result is."""
        if not other.values.size:
            return self
        keys = np.concatenate([_keys(lists.values, lists.owners) for lists in (self, other)])
        return self._of_keys(np.unique(keys))

    def contains(self, found: Int32s) -> Bools:
        """Mark the entries of each row that are in the list of this row; the lists have to be `distinct`.

        Args:
          found: int32 [lists, width].

        Returns:
          bool [lists, width].
        """
        if not self.values.size:
            return np.zeros(found.shape, bool)
        if len(self) == 1:
            return self.values.take(self.values.searchsorted(found), mode="clip") == found
        # Most are not. A table of bits, in which lists share slots, leaves few for the exact comparison: comparing all
        # takes 10 us for a list of 125 entries, comparing these 1 us.
        size = 1 << (_SLOTS_PER_VALUE * self.values.size).bit_length()
        salts = np.arange(len(self), dtype=np.int32) * _SALT
        slots = np.zeros(size, bool)
        slots[(self.values + np.repeat(salts, self.lengths)) & (size - 1)] = True
        maybe = np.flatnonzero(slots[(found + salts[:, np.newaxis]) & (size - 1)])
        wanted = _keys(found.reshape(-1)[maybe], maybe // found.shape[1])
        keys = _keys(self.values, self.owners)
        held = np.zeros(found.shape, bool)
        held.reshape(-1)[maybe] = keys.take(keys.searchsorted(wanted), mode="clip") == wanted
        return held

    def _of_keys(self, keys: Int64s) -> Ragged:
        """Turn sorted keys back into as many lists as there are here."""
        owners = (keys + (1 << _SHIFT - 1)) >> _SHIFT  # the half makes room for negative values
        values = (keys - (owners << _SHIFT)).astype(self.values.dtype)
        return Ragged.from_lengths(values, np.bincount(owners, minlength=len(self)))


def _keys(values: AnyInts, owners: AnyInts) -> Int64s:
    """Join the number of a list and a value into one int64 that sorts as the pair does."""
    return (owners << _SHIFT) + values


def _offsets(lengths: AnyInts) -> Int64s:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
