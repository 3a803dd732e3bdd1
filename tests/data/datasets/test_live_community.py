"""The community of a loop: the same sessions and luck at every call, and a log that ends where the loop starts."""

from __future__ import annotations

import numpy as np
import pytest

from recall.core.errors import ConfigError
from recall.data.datasets import simulate
from recall.data.datasets.live_community import DAY_MS, LiveCommunity, joined_logs

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def live() -> LiveCommunity:
    return LiveCommunity.make(users=200, items=300, days=3, warm_up_days=2, authors=40, seed=5)


def test_the_log_before_the_loop_is_the_simulated_feed(live: LiveCommunity) -> None:
    exposures = round(10.7 * 200 * 2)
    same = simulate(users=200, items=300, days=5, log_days=2, authors=40, exposures=exposures, seed=5)
    assert live.events(live.log).equals(same.events)
    assert live.log.time_ms.max() < live.start_ms
    assert live.start_ms - live.log.time_ms.min() <= 2 * DAY_MS
    assert live.published_ms[-1] > live.start_ms + 2 * DAY_MS  # items go on to be published
    assert (np.diff(live.published_ms) >= 0).all()


def test_sessions_are_the_same_at_every_call(live: LiveCommunity) -> None:
    first, second = list(live.visits()), list(live.visits())
    assert [visits.hour for visits in first] == list(range(72))
    for one, other in zip(first, second, strict=True):
        assert (one.users == other.users).all()
        assert (one.times_ms == other.times_ms).all()


def test_sessions_lie_in_their_hour_and_nobody_comes_twice(live: LiveCommunity) -> None:
    slots = 0
    for visits in live.visits():
        assert visits.start_ms == live.start_ms + visits.hour * HOUR_MS
        assert len(np.unique(visits.users)) == len(visits.users)
        assert (np.diff(visits.times_ms, axis=1) > 0).all()
        if len(visits.users):
            assert visits.times_ms.min() >= visits.start_ms
            assert visits.times_ms.max() < visits.start_ms + HOUR_MS
        slots += visits.times_ms.size
    assert slots == pytest.approx(10.7 * 200 * 3, rel=0.15)


def test_a_click_depends_on_session_user_and_item_alone(live: LiveCommunity) -> None:
    users, items = np.array([3, 4, 5]), np.array([7, 8, 9])
    alone = [live.clicks(4, users[[n]], items[[n]])[0] for n in range(3)]
    assert live.clicks(4, users, items).tolist() == alone
    many_users, many_items = np.repeat(np.arange(200), 300), np.tile(np.arange(300), 200)
    clicks = live.clicks(4, many_users, many_items)
    likely = live.probabilities(many_users, many_items)
    assert clicks.mean() == pytest.approx(likely.mean(), abs=0.005)
    assert likely[clicks].mean() > likely.mean() + 0.1
    assert (clicks != live.clicks(5, many_users, many_items)).any()


def test_another_seed_is_another_community(live: LiveCommunity) -> None:
    other = LiveCommunity.make(users=200, items=300, days=3, warm_up_days=2, authors=40, seed=6)
    assert not np.array_equal(other.truth.quality, live.truth.quality)
    assert [v.users.tolist() for v in other.visits()] != [v.users.tolist() for v in live.visits()]


def test_logs_are_joined_in_order(live: LiveCommunity) -> None:
    log = joined_logs([live.log, live.log])
    assert (log.item[: len(live.log.item)] == live.log.item).all()
    assert len(log.click) == 2 * len(live.log.click)


def test_a_log_longer_than_all_days_is_refused() -> None:
    with pytest.raises(ConfigError, match="log_days is 3; expected at most days"):
        simulate(users=5, items=5, days=2, log_days=3, exposures=100)
