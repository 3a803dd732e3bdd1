"""Orders rows by several integer keys, by counting digits instead of comparing numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recall.core.arrays import AnyInts, Bools, Intps

_DIGIT = 16  # bits; NumPy counts 16-bit numbers instead of comparing them
_MOST_DIGITS = 3  # more take as long as comparing
_RUN = 64  # rows; where ordered runs are this long, merging them takes less than counting

Key = AnyInts | Bools


def order_of(*keys: Key, ties: Sequence[Key] = ()) -> Intps:
    """Return the positions of rows in rising order of the first key, then the second, and so on.

    Gives the order of np.lexsort, which compares. A radix sort from the last key to the first takes a third of the time
    where keys span up to 2^32, and a tenth where a key comes in long ordered runs, as the times of a log do.

    Args:
      *keys: each [rows], at least one.
      ties: further keys, each [rows], for which only rows that agree in all `keys` are looked at: cheaper while these
        are few.

    Returns:
      intp [rows]. Rows that agree in all keys stay in the order in which they are.
    """
    order = None
    for key in reversed(keys):
        order = _ordered(key, order)
    if order is None:
        order = np.arange(len(keys[0]))
    if not ties or len(order) < 2:
        return order
    same = np.ones(len(order) - 1, bool)
    for key in keys:
        ordered = key[order]
        same &= ordered[1:] == ordered[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    if len(tied):
        group = np.cumsum(np.append(True, ~same))[tied]
        rows = order[tied]
        order[tied] = rows[order_of(group, *(key[rows] for key in ties))]
    return order


def _ordered(key: Key, order: Intps | None) -> Intps | None:
    """Sort an order by one more key that comes first. Equal rows keep their places; None is the given order."""
    if not len(key):
        return order
    low = int(key.min())
    digits = -(-(int(key.max()) - low).bit_length() // _DIGIT)
    if digits > 1:
        ordered = _taken(key, order)
        runs = np.count_nonzero(ordered[1:] < ordered[:-1])
        if digits > _MOST_DIGITS or runs * _RUN < len(key):
            return _taken_after(order, np.argsort(ordered, kind="stable"))
    # Of a single digit the lowest 16 bits tell all, wherever they begin: differences wrap around.
    kind = np.uint16 if digits == 1 else np.int64
    offset = key.astype(kind) - np.array(low).astype(kind)
    for digit in range(digits):
        part = (offset >> (_DIGIT * digit)).astype(np.uint16)
        order = _taken_after(order, np.argsort(_taken(part, order), kind="stable"))
    return order


def _taken(values: Key, order: Intps | None) -> Key:
    return values if order is None else values[order]


def _taken_after(order: Intps | None, later: Intps) -> Intps:
    return later if order is None else order[later]
