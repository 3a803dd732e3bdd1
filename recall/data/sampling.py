"""How often an item is drawn as a target, which the logQ correction of the softmax needs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recall.data.posterior import ItemTotals
from recall.data.splits import TRAIN


def sampling_counts(totals: ItemTotals) -> npt.NDArray[np.int64]:
    """Training examples per target item, int64 [items]: every training click is one example."""
    return totals.clicks[:, TRAIN].copy()
