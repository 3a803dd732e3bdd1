"""Stores prior CTRs of single items, as they were known at each moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recall.core.arrays import AnyFloats, AnyInts, Float32s, Float64s, Int64s

_COLUMNS = ("from_ms", "ctr")
_ALWAYS = np.iinfo(np.int64).min


@dataclass(frozen=True)
class ItemPriors:
    """Hold prior CTRs, each of which is valid from one moment to the next.

    Attributes:
      from_ms: int64 [moments], rising; the first is the smallest int64, so that every moment has a prior.
      ctr: float32 [moments, items], in (0, 1).
    """

    from_ms: Int64s
    ctr: Float32s

    @classmethod
    def since(cls, moments_ms: Int64s, ctr: AnyFloats, *, before: float) -> ItemPriors:
        """Put one prior for all items, `before`, in front of the first moment; `ctr` is [moments, items]."""
        first = np.full((1, ctr.shape[1]), before)
        return cls(np.r_[_ALWAYS, moments_ms].astype(np.int64), np.concatenate([first, ctr]).astype(np.float32))

    @classmethod
    def from_table(cls, table: pa.Table) -> ItemPriors:
        """Read the result of `table`."""
        from_ms, lists = (table[name].combine_chunks() for name in _COLUMNS)
        return cls(from_ms.to_numpy(), lists.flatten().to_numpy().reshape(len(from_ms), -1))

    def table(self) -> pa.Table:
        """Make a table with one row per moment: from_ms, and ctr as a list with an entry per item."""
        flat = pa.array(np.ascontiguousarray(self.ctr).reshape(-1))
        offsets = pa.array(np.arange(len(self.from_ms) + 1, dtype=np.int64) * self.ctr.shape[1])
        return pa.table([pa.array(self.from_ms), pa.LargeListArray.from_arrays(offsets, flat)], names=list(_COLUMNS))

    def of(self, rows: AnyInts, times_ms: Int64s) -> Float64s:
        """Look up priors of items (catalogue rows, [n]) at moments, int64 [n] -> float64 [n]."""
        moment = np.searchsorted(self.from_ms, times_ms, side="right") - 1
        return self.ctr[moment, rows].astype(np.float64)
