"""What was shown beside a click and not clicked, against a search exposure by exposure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from recall.data.refusals import Refusals

MINUTE = 60_000
Array = npt.NDArray[np.int64]


def exposure_by_exposure(
    user: Array, rows: Array, time_ms: Array, click: Array, is_training: Array, *, count: int, gap_ms: int
) -> list[list[int]]:
    """Walk away from each click, one exposure at a time, backwards and forwards by turns."""
    trained = [event for event in range(len(user)) if is_training[event]]
    clicked = {(user[event], rows[event]) for event in trained if click[event]}
    found = []
    for event in np.flatnonzero(click):
        if not is_training[event]:
            found.append([])
            continue
        session = [event]
        for step in (-1, 1):  # a session is what no long gap separates from the click
            now = trained.index(event)
            while 0 <= now + step < len(trained):
                here, there = trained[now], trained[now + step]
                if user[here] != user[there] or abs(time_ms[here] - time_ms[there]) > gap_ms:
                    break
                session.append(there)
                now += step
        first = {}
        for other in sorted(session):
            if not click[other] and (user[other], rows[other]) not in clicked:
                first.setdefault(rows[other], other)
        near = sorted(first.values(), key=lambda other: (abs(other - event), other))
        found.append([int(rows[other]) for other in near[:count]])
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [1, 3])
def test_equals_a_search_exposure_by_exposure(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    user = np.sort(random.integers(4, size=120))
    gaps = random.choice([0, MINUTE, 30 * MINUTE, 31 * MINUTE], size=120, p=[0.1, 0.6, 0.1, 0.2])
    time_ms, rows = np.cumsum(gaps), random.integers(25, size=120)
    click, is_training = random.random(120) < 0.3, np.ones(120, bool)
    for one in range(4):  # the last events of each user are held out
        is_training[np.flatnonzero(user == one)[-8:]] = False
    found = Refusals(count, 30 * MINUTE).beside_clicks(user, rows, time_ms, click=click, is_training=is_training)
    expected = exposure_by_exposure(user, rows, time_ms, click, is_training, count=count, gap_ms=30 * MINUTE)
    assert found.lists() == expected
    assert sum(map(len, expected)) > 10


def test_worked_out_by_hand() -> None:
    # One user: 7 refused, 5 clicked, 7 again, 8, 9 (clicked much later, so it was not refused), 6 after a pause.
    rows = np.array([7, 5, 7, 8, 9, 6, 9])
    time_ms = np.array([0, 1, 2, 3, 4, 40, 90]) * MINUTE
    click = np.array([0, 1, 0, 0, 0, 0, 1], bool)
    found = Refusals(4, 30 * MINUTE).beside_clicks(
        np.zeros(7, np.int64), rows, time_ms, click=click, is_training=np.ones(7, bool)
    )
    assert found.lists() == [[7, 8], []]


@pytest.mark.parametrize("click", [np.zeros(0, bool), np.zeros(3, bool), np.ones(3, bool)])
def test_logs_without_clicks_or_refusals_have_none(click: npt.NDArray[np.bool_]) -> None:
    events = len(click)
    numbers = np.arange(events)
    found = Refusals(2, MINUTE).beside_clicks(
        np.zeros(events, np.int64), numbers, numbers, click=click, is_training=np.ones(events, bool)
    )
    assert found.lists() == [[]] * int(click.sum())
