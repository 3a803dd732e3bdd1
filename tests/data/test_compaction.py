"""Tests that compacted counts say at every later moment what all counts say."""

from __future__ import annotations

import numpy as np
import pytest

from recall.data.compaction import Base, joined_half_lives
from recall.data.event_counts import BucketCounts, count_buckets
from recall.data.posterior import PosteriorHistory, Prior

HOUR = 3_600_000
ITEMS, HOURS = 30, 400
LIVES = (2 * HOUR, 24 * HOUR)


def counts_of_log(*, seed: int) -> BucketCounts:
    random = np.random.default_rng(seed)
    time_ms = np.sort(random.integers(0, HOURS * HOUR, 3_000))
    # Items appear one after the other, so that some have no old entry at all.
    item = random.integers(0, ITEMS, 3_000) * time_ms // (HOURS * HOUR)
    return count_buckets(item, time_ms, random.random(3_000) < 0.3, bucket_ms=HOUR)


def history_of(counts: BucketCounts) -> PosteriorHistory:
    return PosteriorHistory.from_counts(
        counts, bucket_ms=HOUR, delay_ms=HOUR, prior=Prior(0.3, 20.0), half_lives_ms=LIVES
    )


def compacted(history: PosteriorHistory, before: int) -> PosteriorHistory:
    """Compact a history, write it down and read it again."""
    counts, base = history.compacted(before=before, until=HOURS, half_lives_ms=LIVES)
    table = history_of(counts).table()
    return PosteriorHistory.from_table(
        table,
        bucket_ms=HOUR,
        delay_ms=HOUR,
        prior=history.prior,
        half_lives_ms=LIVES,
        base=Base.from_table(base.table()),
    )


def known(history: PosteriorHistory, hour: float) -> np.ndarray:
    return history.as_of(np.arange(ITEMS), np.full(ITEMS, int(hour * HOUR))).stacked()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_later_moments_read_the_same_however_often_it_was_compacted(seed: int) -> None:
    whole = history_of(counts_of_log(seed=seed))
    once = compacted(whole, 150)
    twice = compacted(compacted(once, 151), 290)
    assert len(twice.item) < len(once.item) < len(whole.item)
    for history, first in ((once, 151), (twice, 291)):
        for hour in (first, first + 0.5, 300, 333, HOURS + 50):
            np.testing.assert_allclose(known(history, hour), known(whole, hour), rtol=1e-6, atol=1e-30)


def test_nothing_old_is_nothing_compacted() -> None:
    whole = history_of(counts_of_log(seed=1))
    counts, base = whole.compacted(before=-5, until=HOURS, half_lives_ms=LIVES)
    assert not len(base.item)
    assert history_of(counts).table().equals(whole.table())
    assert len(Base.from_table(base.table()).item) == 0


def test_items_of_another_catalogue_keep_their_counts() -> None:
    base = Base(7, (HOUR,), np.array([0, 2, 3]), np.array([[1.0], [2.0], [3.0]]), np.array([[0.1], [0.2], [0.3]]))
    moved = base.remapped(np.array([4, 9, -1, 1]))
    assert moved.item.tolist() == [1, 4]
    assert moved.of_items("exposures", HOUR).tolist() == [3.0, 1.0]
    assert moved.of_items("clicks", HOUR).tolist() == [0.3, 0.1]


def test_half_lives_are_joined() -> None:
    assert joined_half_lives((3, 1), (2, 3)) == (1, 2, 3)
