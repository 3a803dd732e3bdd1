"""Order of rows by several integer keys, faster than np.lexsort: keys that fit are packed into one int64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_LARGEST = 1 << 62

Key = npt.NDArray[np.integer] | npt.NDArray[np.bool_]


def order_of(*keys: Key) -> npt.NDArray[np.intp]:
    """Positions of rows in rising order of the first key, then the second, and so on.

    np.lexsort goes through the rows once per key, with a sort that takes three times as long as that of one int64.

    Args:
      *keys: each [rows], at least one.

    Returns:
      intp [rows]. Rows that agree in all keys may come in any order, unlike from np.lexsort.
    """
    if not len(keys[0]):
        return np.zeros(0, np.intp)
    packed, rest = _packed(keys)
    order = np.argsort(packed)
    if rest:
        same = np.diff(packed[order]) == 0
        tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
        rows = order[tied]
        order[tied] = rows[np.lexsort([key[rows] for key in (packed, *rest)][::-1])]
    return order


def _packed(keys: Sequence[Key]) -> tuple[npt.NDArray[np.int64], Sequence[Key]]:
    """One number per row that rises with the first keys, and the keys that found no room in it."""
    packed, size = np.zeros(len(keys[0]), np.int64), 1
    for place, key in enumerate(keys):
        low = int(key.min())
        span = int(key.max()) - low + 1
        if size * span > _LARGEST:
            return packed, keys[place:]
        packed = packed * span + (key.astype(np.int64) - low)
        size *= span
    return packed, ()
