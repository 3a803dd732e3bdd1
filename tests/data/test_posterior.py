"""Posteriors at a moment against plain counting."""

from __future__ import annotations

import numpy as np
import pytest

from recall.data.event_counts import count_buckets, count_totals
from recall.data.posterior import PosteriorHistory, Prior, smoothed_ctr

HOUR = 3_600_000
PRIOR = Prior(ctr=0.25, strength=20.0)


def history_of(item: np.ndarray, time: np.ndarray, click: np.ndarray, *, bucket: int, delay: int) -> PosteriorHistory:
    counts = count_buckets(item, time, click, bucket_ms=bucket)
    return PosteriorHistory.from_counts(counts, bucket_ms=bucket, delay_ms=delay, prior=PRIOR)


@pytest.mark.parametrize(("bucket", "delay"), [(HOUR, HOUR), (HOUR, 0), (1, 0), (7_000, 123), (24 * HOUR, HOUR)])
def test_lookups_equal_counting_the_visible_events(bucket: int, delay: int) -> None:
    rng = np.random.default_rng(7)
    item, time = rng.integers(0, 9, 500), rng.integers(-5 * HOUR, 40 * HOUR, 500)
    click = rng.random(500) < 0.3
    rows, times = rng.integers(0, 12, 300), rng.integers(-9 * HOUR, 60 * HOUR, 300)
    found = history_of(item, time, click, bucket=bucket, delay=delay).as_of(rows, times)
    for lookup, (row, now) in enumerate(zip(rows, times, strict=True)):
        visible = (item == row) & ((time // bucket + 1) * bucket <= now - delay)
        exposures, clicks = int(visible.sum()), int(click[visible].sum())
        assert found.exposures[lookup] == exposures
        assert found.clicks[lookup] == clicks
        assert found.smoothed_ctr[lookup] == np.float32((clicks + 0.25 * 20) / (exposures + 20))
        age = (now - time[visible].min()) / HOUR if exposures else 0
        assert found.age_hours[lookup] == np.float32(age)


def test_an_event_becomes_visible_when_its_bucket_has_closed_and_the_delay_is_over() -> None:
    history = history_of(np.array([0]), np.array([30 * 60_000]), np.array([True]), bucket=HOUR, delay=HOUR)
    times = np.array([2 * HOUR - 1, 2 * HOUR])
    assert history.as_of(np.array([0, 0]), times).exposures.tolist() == [0, 1]


def test_later_events_never_change_an_earlier_lookup() -> None:
    item, time, click = np.array([0, 0, 0]), np.array([1, 5, 9]) * HOUR, np.array([True, False, True])
    before = history_of(item[:2], time[:2], click[:2], bucket=HOUR, delay=0)
    after = history_of(item, time, click, bucket=HOUR, delay=0)
    moments = np.arange(10) * HOUR
    rows = np.zeros(10, np.int64)
    assert before.as_of(rows, moments).stacked().tolist() == after.as_of(rows, moments).stacked().tolist()


def test_wild_times_do_not_overflow() -> None:
    time = np.array([-(2**62), 0, 2**62])
    history = history_of(np.array([4_000_000] * 3), time, np.array([True] * 3), bucket=1, delay=0)
    rows = np.array([4_000_000, 3_999_999])
    assert history.as_of(rows, np.array([2**62, 2**62])).exposures.tolist() == [2, 0]


def test_history_survives_its_table() -> None:
    history = history_of(np.array([1, 0, 1]), np.array([1, 2, 9]) * HOUR, np.array([True] * 3), bucket=HOUR, delay=0)
    again = PosteriorHistory.from_table(history.table(), bucket_ms=HOUR, delay_ms=0, prior=PRIOR)
    assert history.table().to_pylist()[-1] == {
        "item": 1,
        "bucket": 9,
        "exposures": 2,
        "clicks": 2,
        "first_time_ms": HOUR,
    }
    rows, times = np.array([0, 1]), np.array([20 * HOUR] * 2)
    assert again.as_of(rows, times).stacked().tolist() == history.as_of(rows, times).stacked().tolist()


def test_without_a_clock_an_example_sees_the_training_totals_but_not_itself() -> None:
    item = np.array([0, 0, 0, 1])
    split, click = np.array([0, 0, 2, 2], np.int8), np.array([True, False, True, True])
    history = PosteriorHistory.from_counts(
        count_totals(item, split, click), bucket_ms=HOUR, delay_ms=0, prior=PRIOR, clock=False
    )
    found = history.as_of(np.array([0, 0, 1]), np.array([0, 5, 0]), own=np.array([True, False, False]))
    assert found.exposures.tolist() == [1, 2, 0]
    assert found.clicks.tolist() == [0, 1, 0]
    assert found.age_hours.tolist() == [0, 0, 0]


def test_more_clicks_than_exposures_are_refused() -> None:
    with pytest.raises(ValueError, match="1 rows have more clicks than exposures, the first is row 1: 3 clicks of 2"):
        smoothed_ctr(np.array([1, 3]), np.array([1, 2]), PRIOR)


def test_prior_stays_off_zero_and_one() -> None:
    assert Prior.of_training(events=10, clicks=0, strength=1).ctr == 1e-6
    assert Prior.of_training(events=10, clicks=10, strength=1).ctr == 1 - 1e-6
    assert Prior.of_training(events=10, clicks=4, strength=1).ctr == 0.4
