"""Decayed clicks against a recount of the log, and the half-life that validation chooses."""

from __future__ import annotations

import numpy as np
import pytest

from recall.core.ragged import Ragged
from recall.data.event_counts import count_buckets
from recall.data.posterior import PosteriorHistory, Prior
from recall.evaluation.ranking import EvaluationSet
from recall.evaluation.rolling import windows
from recall.evaluation.trending import DecayedClicks, choose_half_life

HOUR = 3_600_000


def decayed_clicks(history: PosteriorHistory, *, items: int) -> DecayedClicks:
    settings = {"bucket_ms": history.bucket_ms, "delay_ms": history.delay_ms}
    entries = history.entries()
    return DecayedClicks(entries.item, entries.bucket, entries.clicks, item_count=items, **settings)


@pytest.mark.parametrize("delay_ms", [0, 1_800_000, 3 * HOUR])
@pytest.mark.parametrize("half_life", [0.5, 24.0, 336.0])
def test_decayed_clicks_equal_a_recount_of_the_log(delay_ms: int, half_life: float) -> None:
    rng = np.random.default_rng(2)
    item, clicked = rng.integers(0, 9, 400), rng.random(400) < 0.3
    time_ms = rng.integers(-20 * HOUR, 80 * HOUR, 400)  # before 1970, too
    counts = count_buckets(item, time_ms, clicked, bucket_ms=HOUR)
    history = PosteriorHistory.from_counts(counts, bucket_ms=HOUR, delay_ms=delay_ms, prior=Prior(0.3, 1.0))
    # A bucket closes at the last two, which are equal.
    moments_ms = np.sort(np.append(rng.integers(-30 * HOUR, 90 * HOUR, 25), [12 * HOUR, 12 * HOUR]))
    found = decayed_clicks(history, items=11).at(moments_ms.tolist(), half_life_hours=half_life)
    for moment_ms, counted in zip(moments_ms.tolist(), found, strict=True):
        expected = np.zeros(11)
        for row, time, is_click in zip(item.tolist(), time_ms.tolist(), clicked.tolist(), strict=True):
            age_ms = moment_ms - delay_ms - (time // HOUR + 1) * HOUR
            if is_click and age_ms >= 0:
                expected[row] += 0.5 ** (age_ms / HOUR / half_life)
        np.testing.assert_allclose(counted, expected, rtol=1e-9, atol=1e-12)


def test_the_half_life_that_recalls_most_on_validation_is_chosen() -> None:
    # 40 old items with 30 clicks each on the first day; two days later one wave of 40 items an hour, two clicks each.
    # Who forgets quickly recalls the wave of the hour before; who hardly forgets recalls the old.
    rng = np.random.default_rng(4)
    hours = np.arange(48, 72)
    item = np.concatenate(
        [np.repeat(np.arange(40), 30), *(40 + 40 * (hour % 4) + np.arange(40).repeat(2) for hour in hours)]
    )
    time_ms = np.concatenate([rng.integers(0, 24 * HOUR, 1200), np.repeat(hours, 80) * HOUR + 60_000])
    everything = np.ones(len(item), bool)
    counts = count_buckets(item, time_ms, everything, bucket_ms=HOUR)
    history = PosteriorHistory.from_counts(counts, bucket_ms=HOUR, delay_ms=0, prior=Prior(0.3, 1.0))
    clicks = decayed_clicks(history, items=200)

    def chosen_for(targets: np.ndarray, times_ms: np.ndarray) -> float:
        nothing = Ragged.empty(len(targets))
        examples = EvaluationSet(targets.astype(str), targets.astype(np.int32), nothing, nothing)
        return choose_half_life(clicks, examples, windows(times_ms, refresh_ms=HOUR))

    late_ms = np.sort(rng.integers(60 * HOUR, 72 * HOUR, 200))
    of_last_wave = 40 + 40 * ((late_ms // HOUR - 1) % 4) + rng.integers(0, 40, 200)
    of_the_old = rng.integers(0, 40, 200)
    # By hand, at hour 60: with 12 h an old item counts 30 * 0.07 = 2, and one of the last wave, which came three times,
    # 2 * (1 + 0.79 + 0.63) = 4.8; with 24 h 30 * 0.26 = 7.7 and 5.4. What forgets faster than 12 h recalls the same.
    assert chosen_for(of_last_wave, late_ms) == 12.0
    assert chosen_for(of_the_old, late_ms) == 336.0
