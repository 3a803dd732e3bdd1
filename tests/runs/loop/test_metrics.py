"""Measures of a loop against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recall.data.datasets.feed import Log
from recall.data.datasets.live_community import DAY_MS, LiveCommunity
from recall.runs.loop.arms import Arm
from recall.runs.loop.knowledge import Knowledge
from recall.runs.loop.measures import MEASURES, OF_DAYS
from recall.runs.loop.metrics import Measured, mean_probabilities, median_time, nth_exposure_ms
from recall.runs.loop.play import play
from recall.runs.loop.policies import rule

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def log(live: LiveCommunity) -> Log:
    knowledge = Knowledge(live)
    return play(live, Arm.parse("trending+explore_new=0.5"), rule("trending", knowledge), knowledge)


def gini(counts: np.ndarray) -> float:
    """Mean absolute difference between two values over twice the mean."""
    return float(np.abs(counts[:, None] - counts[None, :]).mean() / (2 * counts.mean()))


def test_measures_are_what_counting_gives(live: LiveCommunity, log: Log) -> None:
    found = Measured(live, log).result()
    total = found["total"]
    truth = live.probabilities(log.user, log.item).astype(float)
    assert total["probability"] == pytest.approx(truth.mean())
    assert total["ctr"] == pytest.approx(log.click.sum() / len(log.click))
    assert total["clicks_per_user"] == pytest.approx(log.click.sum() / 150)
    ages = [int(time - live.published_ms[item]) for item, time in zip(log.item, log.time_ms, strict=True)]
    assert total["young_share"] == pytest.approx(np.mean([age < DAY_MS for age in ages]))
    counts = np.array([(log.item == item).sum() for item in range(live.published(live.end_ms))])
    assert total["gini_items"] == pytest.approx(gini(counts))
    assert total["coverage"] == pytest.approx((counts > 0).mean())
    author_of = live.truth.author
    authors = sorted(set(author_of.tolist()))
    assert total["gini_authors"] == pytest.approx(gini(np.array([counts[author_of == one].sum() for one in authors])))
    clicked = {int(author_of[item]) for item in log.item[log.click]}
    assert total["authors_clicked"] == pytest.approx(len(clicked) / len(authors))


def test_good_new_items_and_their_way_up(live: LiveCommunity, log: Log) -> None:
    found = Measured(live, log).result()
    total = found["total"]
    new = [
        item
        for item, published_ms in enumerate(live.published_ms)
        if live.start_ms <= published_ms < live.start_ms + 2 * DAY_MS
    ]
    everybody = np.arange(150)
    liked = {item: live.probabilities(everybody, np.full(150, item)).mean(dtype=float) for item in new}
    good = sorted(new, key=lambda item: -liked[item])[: round(len(new) / 5)]
    shown = {item: int((log.item == item).sum()) for item in new}
    assert (total["new_items"], total["good_new_items"]) == (len(new), len(good))
    assert total["good_new_found"] == pytest.approx(np.mean([shown[item] >= 20 for item in good]))
    assert total["new_with_10"] == pytest.approx(np.mean([shown[item] >= 10 for item in new]))
    second_day = [item for item in good if live.published_ms[item] <= live.start_ms + DAY_MS]
    by_then = log.item[log.time_ms < live.start_ms + 2 * DAY_MS]
    expected = np.mean([(by_then == item).sum() >= 20 for item in second_day])
    assert found["days"]["good_new_found"] == [None, pytest.approx(expected), total["good_new_found"]]


def test_days_add_up_to_the_whole(live: LiveCommunity, log: Log) -> None:
    found = Measured(live, log).result()
    days, total = found["days"], found["total"]
    assert {len(numbers) for numbers in days.values()} == {3}
    assert sum(days["clicks"]) == total["clicks"] == log.click.sum()
    assert np.average(days["probability"], weights=days["exposures"]) == pytest.approx(total["probability"])
    assert days["probability"][-1] == total["last_day_probability"]
    assert set(OF_DAYS) <= days.keys()
    assert MEASURES.keys() <= {*total, "regret", "share_of_oracle"}


def test_an_empty_day_has_no_numbers_but_counts(live: LiveCommunity, log: Log) -> None:
    first = log.time_ms < live.start_ms + DAY_MS
    part = Log(log.user[first], log.item[first], log.time_ms[first], log.click[first])
    found = Measured(live, part).result()
    assert found["days"]["exposures"][1:] == [0, 0]
    assert found["days"]["probability"][1:] == [None, None]
    assert found["days"]["gini_items"][2] is None


def test_mean_probabilities_are_of_all_users(live: LiveCommunity) -> None:
    found = mean_probabilities(live)
    everybody = np.arange(150)
    for item in (0, 17, 699):
        assert found[item] == pytest.approx(live.probabilities(everybody, np.full(150, item)).mean(), rel=1e-5)


def test_the_nth_exposure_is_found() -> None:
    item, time_ms = np.array([2, 0, 2, 2, 0, 1]), np.array([10, 20, 30, 40, 50, 60])
    log = Log(np.zeros(6, np.int64), item, time_ms, np.zeros(6, bool))
    assert nth_exposure_ms(log, 1, items=4).tolist() == [20, 60, 10, -1]
    assert nth_exposure_ms(log, 2, items=4).tolist() == [50, -1, 30, -1]
    assert nth_exposure_ms(log, 3, items=4).tolist() == [-1, -1, 40, -1]


@pytest.mark.parametrize(
    ("times", "happened", "median"),
    [
        ([1.0, 2.0, 3.0, 4.0], [True] * 4, 2.0),  # half is still waiting after 2
        ([1.0, 2.0, 3.0], [True] * 3, 2.0),
        ([1.0, 2.0, 9.0, 9.0, 9.0], [True, True, False, False, False], None),
        # One leaves at 1; then 2 of 3 wait after 2, and 1 of 3 after 3.
        ([1.0, 2.0, 3.0, 4.0], [False, True, True, True], 3.0),
        # At the same moment what happens comes before what ends the watch: 3/4, then 3/4 * 1/2.
        ([5.0, 5.0, 6.0, 7.0], [True, False, True, True], 6.0),
        ([], [], None),
    ],
)
def test_the_median_time_counts_items_that_still_wait(
    times: list[float], happened: list[bool], median: float | None
) -> None:
    assert median_time(np.array(times), np.array(happened, bool)) == median
