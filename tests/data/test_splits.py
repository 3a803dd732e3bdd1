"""Splits by time and by last click."""

from __future__ import annotations

import numpy as np
import pytest

from recall.core.errors import DataError
from recall.data.splits import TimeHistogram, split_by_last_click, split_by_time


def test_boundaries_are_order_statistics_of_the_times() -> None:
    # Ten events; 0.3 + 0.3 held out as decimals leaves exactly 4, where 10 * (1 - 0.3 - 0.3) in floats is 3.99...
    time = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])  # sorted: 1 1 2 3 3 4 5 5 6 9
    boundaries = TimeHistogram.of(time, np.ones(10, bool)).boundaries(validation=0.3, test=0.3)
    assert boundaries == (3, 5)
    assert split_by_time(time, boundaries).tolist() == [1, 0, 1, 0, 2, 2, 0, 2, 2, 1]


@pytest.mark.parametrize("cells", [1 << 20, 100])
def test_durations_count_back_from_the_end_of_the_log(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    monkeypatch.setattr("recall.data.splits._MAX_CELLS", cells)
    day = 86_400_000
    time = np.arange(10 * day, 20 * day, 1_000_000)  # ten days; the last event is 400 s before midnight
    histogram = TimeHistogram.of(time, np.ones(len(time), bool))
    found = histogram.boundaries(validation=day, test=2 * day, end_ms=20 * day - 1)
    grid = 1 << histogram.shift  # on a coarser grid the periods begin up to a cell later
    assert [0 <= start - expected < grid for start, expected in zip(found, (17 * day, 18 * day), strict=True)] == [
        True
    ] * 2
    last = TimeHistogram.of(time[:500], np.ones(500, bool)).boundaries(validation=day, test=day)
    if cells > 500:
        assert last == (int(time[499]) + 1 - 2 * day, int(time[499]) + 1 - day)


def test_a_period_longer_than_the_log_is_an_error() -> None:
    with pytest.raises(DataError, match=r"train has no event.* change validation and test in data\.split"):
        TimeHistogram.of(np.arange(0, 10 * 60_000, 60_000), np.ones(10, bool)).boundaries(
            validation=300_000, test=600_000
        )


def test_histogram_of_parts_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recall.data.splits._MAX_CELLS", 1000)
    rng = np.random.default_rng(1)
    time = rng.integers(-5_000_000, 5_000_000, 20_000)
    click = rng.random(20_000) < 0.3
    whole = TimeHistogram.of(time, click)
    assert whole.shift > 0
    assert 500 < len(whole.cells) <= 1000
    for parts in (2, 7):
        pieces = np.array_split(rng.permutation(20_000), parts)
        merged = TimeHistogram.merge(TimeHistogram.of(time[piece], click[piece]) for piece in pieces)
        assert merged.table().equals(whole.table())
        assert merged.shift == whole.shift
    read = TimeHistogram.from_table(whole.table())
    assert read.boundaries(validation=0.1, test=0.1) == whole.boundaries(validation=0.1, test=0.1)


def test_training_counts_are_those_before_validation() -> None:
    time, click = np.arange(10), np.arange(10) % 2 == 1
    histogram = TimeHistogram.of(time, click)
    assert histogram.training_counts(histogram.boundaries(validation=0.2, test=0.2)) == (6, 3)


@pytest.mark.parametrize(
    ("time", "message"),
    [([5] * 10, "in one moment"), ([1] * 9 + [2], "train has no event, as .* too many share one time")],
)
def test_times_that_cannot_be_split_are_an_error(time: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TimeHistogram.of(np.array(time), np.ones(10, bool)).boundaries(validation=0.1, test=0.1)


def test_last_click_holds_out_two_clicks_of_users_with_three() -> None:
    #             user 0: four clicks with impressions around        user 1: two clicks  user 2: no click
    user = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 2])
    click = np.array([1, 1, 0, 1, 0, 1, 0, 1, 1, 0], bool)
    assert split_by_last_click(user, click).tolist() == [0, 0, 0, 1, 1, 2, 2, 0, 0, 0]
    assert split_by_last_click(user[:0], click[:0]).tolist() == []
