"""Reads a posterior history in blocks of items, one in memory at a time: its entries grow with the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recall.core.arrays import AnyInts, Bools, Int64s
from recall.core.ordering import order_of
from recall.data.posterior import Posterior, PosteriorHistory


def block_starts(entries: Int64s, *, most: int) -> Int64s:
    """Cut a catalogue into blocks of whole items.

    Args:
      entries: int64 [items], entries of each item in the history.
      most: entries of a block, which its last item may exceed.

    Returns:
      int64 [blocks], the row that each block begins with, rising from 0; one block at least.
    """
    block = (np.cumsum(entries) - entries) // most  # [items]
    return np.append(0, np.flatnonzero(np.diff(block)) + 1)


@dataclass(frozen=True)
class PosteriorBlocks:
    """Look up the posterior of every item at every moment, block by block.

    Attributes:
      starts: int64 [blocks], the row of the catalogue that each block begins with, rising from 0.
      read: gives the history of a block by its number.
    """

    starts: Int64s
    read: Callable[[int], PosteriorHistory]

    def as_of(self, rows: AnyInts, times_ms: Int64s, *, own: Bools | None = None) -> Posterior:
        """Look up the posterior as `PosteriorHistory.as_of` does."""
        count = len(rows)
        found = Posterior(
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            np.zeros(count, np.float32),
            np.zeros(count, np.float32),
        )
        order = order_of(rows)
        bounds = np.append(np.searchsorted(rows[order], self.starts), count)
        for block in np.flatnonzero(np.diff(bounds)).tolist():
            chosen = order[bounds[block] : bounds[block + 1]]
            history = self.read(block)
            known = history.as_of(rows[chosen], times_ms[chosen], own=None if own is None else own[chosen])
            for name, part in known.columns().items():
                getattr(found, name)[chosen] = part
        return found
