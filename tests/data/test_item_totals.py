"""Totals per item and split: snapshots, parts of a log and the sampling counts of the softmax correction."""

from __future__ import annotations

import numpy as np

from recall.data.event_counts import BucketCounts
from recall.data.item_totals import ItemTotals, split_snapshots
from recall.data.posterior import Prior

HOUR = 3_600_000
PRIOR = Prior(ctr=0.25, strength=20.0)


def test_only_training_clicks_count() -> None:
    # Item 1: clicked twice in training (split 0), once in test (split 2); item 2: seen in training, never clicked.
    item, split = np.array([1, 1, 1, 2]), np.array([0, 0, 2, 0])
    click, time = np.array([1, 1, 1, 0]), np.array([1, 2, 3, 4])
    totals = ItemTotals.from_counts(BucketCounts(item, split, np.ones(4, np.int64), click, time), items=4)
    assert totals.sampling_counts().tolist() == [0, 2, 0, 0]
    assert totals.exposures.sum(axis=1).tolist() == [0, 3, 1, 0]


def test_snapshots_know_what_came_before_the_split() -> None:
    # Item 0: one event in each split, at hours 1, 5 and 8, clicked in the last two. Item 1: nothing.
    item, split = np.array([0, 0, 0]), np.array([0, 1, 2])
    counts = BucketCounts(item, split, np.ones(3, np.int64), np.array([0, 1, 1]), np.array([1, 5, 8]) * HOUR)
    totals = ItemTotals.from_counts(counts, items=2)
    moments = {"validation": 4 * HOUR, "test": 7 * HOUR, "serving": 8 * HOUR}
    found = split_snapshots(totals, moments_ms=moments, by_time=True, prior=PRIOR)
    assert {name: part.exposures.tolist() for name, part in found.items()} == {
        "validation": [1, 0],
        "test": [2, 0],
        "serving": [3, 0],
    }
    assert found["test"].clicks.tolist() == [1, 0]
    assert found["test"].age_hours.tolist() == [6, 0]
    assert found["serving"].smoothed_ctr.tolist() == [np.float32(7 / 23), 0.25]
    by_click = split_snapshots(totals, moments_ms=None, by_time=False, prior=PRIOR)
    assert by_click["test"].exposures.tolist() == [1, 0]
    assert by_click["serving"].age_hours.tolist() == [0, 0]


def test_totals_of_parts_are_the_totals_of_the_log() -> None:
    rng = np.random.default_rng(9)
    item, split, time = rng.integers(0, 6, 90), rng.integers(0, 3, 90), rng.integers(0, HOUR, 90)
    click = rng.integers(0, 2, 90)
    cuts = [slice(0, 20), slice(20, 21), slice(21, 90)]
    parts = [BucketCounts(item[cut], split[cut], np.ones_like(item[cut]), click[cut], time[cut]) for cut in cuts]
    totals = ItemTotals.of_parts(parts, items=7)
    for row, code in np.ndindex(7, 3):
        inside = (item == row) & (split == code)
        assert totals.exposures[row, code] == inside.sum()
        assert totals.clicks[row, code] == click[inside].sum()
        assert not inside.any() or totals.first_time_ms[row, code] == time[inside].min()
