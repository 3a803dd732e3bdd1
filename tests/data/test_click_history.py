"""Histories, triggers and seen items, with expectations worked out by hand or by plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from recall.data.click_history import Ranges, earlier_clicks, first_clicks, last_clicks, previous_triggers, seen_items

# Two users; user 0 clicks three items at one moment (5).
USER = np.array([0, 0, 0, 0, 0, 1, 1])
ROWS = np.array([7, 8, 9, 7, 6, 7, 8])
TIME = np.array([1, 5, 5, 5, 9, 2, 3])


def lists(ranges: Ranges) -> list[list[int]]:
    return [ROWS[positions].tolist() for positions in ranges.positions()]


def test_history_is_strictly_before_and_oldest_first() -> None:
    assert lists(earlier_clicks(USER, TIME)) == [[], [7], [7], [7], [7, 8, 9, 7], [], [7]]


def test_history_keeps_the_last_clicks() -> None:
    assert lists(last_clicks(earlier_clicks(USER, TIME), 2)) == [[], [7], [7], [7], [9, 7], [], [7]]


@pytest.mark.parametrize(
    ("window_ms", "expected"),
    [(4, [-1, 7, 7, 7, 7, -1, 7]), (3, [-1, -1, -1, -1, -1, -1, 7]), (0, [-1] * 7)],
)
def test_trigger_is_the_click_before_within_the_window(window_ms: int, expected: list[int]) -> None:
    triggers = previous_triggers(ROWS, TIME, earlier_clicks(USER, TIME), window_ms=window_ms)
    assert triggers.tolist() == expected


def test_seen_items_are_all_distinct_items_before_and_not_only_the_last_ones() -> None:
    rng = np.random.default_rng(3)
    user = np.sort(rng.integers(0, 20, 600))
    time = np.concatenate([np.sort(rng.integers(0, 40, (user == one).sum())) for one in range(20)])
    rows = rng.integers(0, 15, 600)
    chosen = np.sort(rng.choice(600, 200, replace=False))
    seen = seen_items(rows, first_clicks(user, rows), earlier_clicks(user, time).take(chosen))
    for items, click in zip(seen, chosen, strict=True):
        expected = {rows[other] for other in range(600) if user[other] == user[click] and time[other] < time[click]}
        assert items.tolist() == sorted(expected)


def test_no_clicks_have_no_histories() -> None:
    nothing = np.zeros(0, np.int64)
    earlier = earlier_clicks(nothing, nothing)
    assert previous_triggers(nothing, nothing, earlier, window_ms=1).tolist() == []
    assert list(seen_items(nothing, first_clicks(nothing, nothing), earlier)) == []
