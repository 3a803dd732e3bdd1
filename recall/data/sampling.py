"""How often an item is drawn as a target, which the logQ correction of the softmax needs."""

from __future__ import annotations

from recall.core.arrays import Int64s
from recall.data.posterior import ItemTotals
from recall.data.splits import TRAIN


def sampling_counts(totals: ItemTotals) -> Int64s:
    """Training examples per target item, int64 [items]: every training click is one example."""
    return totals.clicks[:, TRAIN].copy()
