"""Fresh evidence against a plain recount of the events of a log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.exchange import Scratch
from pipelines.posterior_blocks import fresh_snapshots, write_history
from recall.config.data import DataConfig
from recall.data.event_counts import count_buckets
from recall.data.fresh_evidence import decayed
from recall.data.posterior import PosteriorHistory, Prior

HOUR = 3_600_000
PRIOR = Prior(ctr=0.25, strength=20.0)
HALF_LIVES = (2 * HOUR, 24 * HOUR)
Events = tuple[np.ndarray, np.ndarray, np.ndarray]  # items, times, clicks


@pytest.fixture
def events() -> Events:
    rng = np.random.default_rng(5)
    return rng.integers(0, 9, 600), rng.integers(-5 * HOUR, 90 * HOUR, 600), rng.random(600) < 0.3


def history_of(events: Events, *, bucket: int = HOUR, delay: int = HOUR) -> PosteriorHistory:
    item, time, click = events
    counts = count_buckets(item, time, click, bucket_ms=bucket)
    return PosteriorHistory.from_counts(counts, bucket_ms=bucket, delay_ms=delay, prior=PRIOR, half_lives_ms=HALF_LIVES)


def recount(events: Events, row: int, now: int, *, bucket: int, delay: int) -> list[float]:
    """Count each event that is visible at a moment by its age, which runs from the end of its bucket."""
    item, time, click = events
    ends = (time // bucket + 1) * bucket
    visible = ends <= now - delay
    found = []
    for half_life in HALF_LIVES:
        weights = np.where(visible, 0.5 ** ((now - ends) / half_life), 0)
        own, of_feed = weights[item == row], weights[click].sum() / len(np.unique(item))
        clicks = weights[(item == row) & click].sum()
        found += [own.sum(), clicks, clicks / max(of_feed, 1 / len(np.unique(item)))]
    return found


@pytest.mark.parametrize(("bucket", "delay"), [(HOUR, HOUR), (HOUR, 0), (7_000, 123), (24 * HOUR, HOUR)])
def test_lookups_equal_counting_each_visible_event_by_its_age(bucket: int, delay: int, events: Events) -> None:
    rng = np.random.default_rng(6)
    rows, times = rng.integers(0, 12, 200), rng.integers(-9 * HOUR, 200 * HOUR, 200)
    found = history_of(events, bucket=bucket, delay=delay).as_of(rows, times).fresh
    expected = [
        recount(events, row, now, bucket=bucket, delay=delay) for row, now in zip(rows, times.tolist(), strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_a_sum_is_that_of_the_entry_before_carried_forward() -> None:
    # Group 1: 4, then a half-life later 4 / 2 + 1, then two half-lives later 3 / 4 + 2; group 5 starts anew.
    times, groups = np.array([10, 20, 40, 0, 10]), np.array([1, 1, 1, 5, 5])
    found = decayed(np.array([4, 1, 2, 8, 0]), times, groups, half_life_ms=10)
    assert found.tolist() == [4, 3, 2.75, 8, 4]
    assert decayed(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64), half_life_ms=10).tolist() == []


def test_ages_of_thousands_of_half_lives_neither_overflow_nor_leave_anything(events: Events) -> None:
    item, time, click = events
    far = history_of((np.append(item, 3), np.append(time, 10**6 * HOUR), np.append(click, True)))
    found = far.as_of(np.array([3, 4]), np.array([10**6 * HOUR + 2 * HOUR] * 2)).fresh
    np.testing.assert_allclose(found[0, :2], 0.5**0.5, rtol=1e-6)  # one exposure and click, an hour after its bucket
    assert found[1].tolist() == [0] * 6


def test_a_feed_that_doubles_leaves_the_lift_as_it_is(events: Events) -> None:
    item, time, click = events
    doubled = tuple(np.concatenate([column, column]) for column in (item, time, click))
    rows, times = np.arange(9), np.full(9, 95 * HOUR)
    once, twice = (history_of(log).as_of(rows, times).fresh.reshape(9, 2, 3) for log in (events, doubled))
    np.testing.assert_allclose(twice[:, :, :2], 2 * once[:, :, :2], rtol=1e-6)
    np.testing.assert_allclose(twice[:, :, 2], once[:, :, 2], rtol=1e-6)


def test_without_half_lives_there_is_no_evidence(events: Events) -> None:
    counts = count_buckets(*events, bucket_ms=HOUR)
    history = PosteriorHistory.from_counts(counts, bucket_ms=HOUR, delay_ms=HOUR, prior=PRIOR)
    found = history.as_of(np.arange(9), np.full(9, 50 * HOUR))
    assert found.fresh is None
    assert found.stacked().shape == (9, 4)


@pytest.mark.parametrize("entries_per_block", [1, 50, 10_000])
def test_snapshots_by_blocks_are_lookups_one_delay_later(
    entries_per_block: int, events: Events, tmp_path: Path
) -> None:
    item, time, click = events
    data = DataConfig.model_validate(
        {
            "events": {"path": "log.csv"},
            "items": {"path": "items.csv"},
            "posterior": {"half_lives": ["2h", "1d"]},
        }
    )
    ids, scratch, between = pa.array([f"i{row}" for row in range(12)]), Scratch(str(tmp_path / "s")), tmp_path / "b"
    scratch.storage.make()
    between.mkdir()
    buckets = [count_buckets(item, time, click, bucket_ms=HOUR).table(ids)]
    write_history(
        scratch, buckets, item_ids=ids, data=data, prior=PRIOR, folder=between, entries_per_block=entries_per_block
    )
    moments = {"test": 60 * HOUR + 5, "serving": int(time.max())}
    found = fresh_snapshots(scratch, data=data, moments_ms=moments, prior=PRIOR, items=12)
    # At the end of the log its last bucket is over; before, a bucket that the test period shares is not.
    seen_at = {"test": 61 * HOUR, "serving": (moments["serving"] // HOUR + 2) * HOUR}
    for name, now in seen_at.items():
        expected = history_of(events).as_of(np.arange(12), np.full(12, now)).fresh
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)
    clicks = found["serving"][:, 1]
    assert clicks.argmax() in item[click & (time > time.max() - 5 * HOUR)], "the last hours count most"
