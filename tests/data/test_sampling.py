"""Sampling counts of the softmax correction."""

from __future__ import annotations

import numpy as np

from recall.data.posterior import BucketCounts, ItemTotals
from recall.data.sampling import sampling_counts


def test_only_training_clicks_count() -> None:
    # Item 1: clicked twice in training (split 0), once in test (split 2); item 2: seen in training, never clicked.
    item, split = np.array([1, 1, 1, 2]), np.array([0, 0, 2, 0])
    click, time = np.array([1, 1, 1, 0]), np.array([1, 2, 3, 4])
    totals = ItemTotals.from_counts(BucketCounts(item, split, np.ones(4, np.int64), click, time), items=4)
    assert sampling_counts(totals).tolist() == [0, 2, 0, 0]
    assert totals.exposures.sum(axis=1).tolist() == [0, 3, 1, 0]
