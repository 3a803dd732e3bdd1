"""Intervals of paired differences: against slow resampling, against the truth of simulated data, and where it ends."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from recall.evaluation.bootstrap import paired_bootstrap

Case = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]


def clicks(users: int, *, lift: float, seed: int) -> Case:
    """Hits of two models and the user of each click; users differ in taste, and so in how much the first is better."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rng.geometric(0.3, users))
    second = rng.random(len(user)) < rng.beta(1, 4, users)[user]
    gains = rng.random(len(user)) < rng.beta(1, 1 / lift - 1, users)[user]
    return (second | gains).astype(float), second.astype(float), user


def slow_interval(case: Case, *, resamples: int) -> tuple[float, float]:
    """Draws users one by one and strings their clicks together."""
    first, second, user = case
    of_user = {name: [float(value) for value in (first - second)[user == name]] for name in np.unique(user)}
    names, generator, means = sorted(of_user), random.Random(7), []
    for _ in range(resamples):
        drawn = [value for name in generator.choices(names, k=len(names)) for value in of_user[name]]
        means.append(sum(drawn) / len(drawn))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


# Few kinds of users (hits and misses) are drawn otherwise than many (reciprocal ranks): both have to agree with this.
@pytest.mark.parametrize("continuous", [False, True])
def test_interval_is_that_of_drawing_whole_users_one_by_one(continuous: bool) -> None:
    first, second, user = clicks(400, lift=0.1, seed=3)
    if continuous:
        first, second = (values / np.random.default_rng(4).integers(1, 50, len(user)) for values in (first, second))
    slow = slow_interval((first, second, user), resamples=2000)
    interval = paired_bootstrap(first, second, clusters=user, resamples=20_000)
    assert interval.difference == pytest.approx(np.mean(first) - np.mean(second))
    assert (interval.examples, interval.clusters, interval.confidence) == (len(user), 400, 0.95)
    width = interval.high - interval.low
    assert (interval.low, interval.high) == pytest.approx(slow, abs=0.07 * width)


def test_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    # In the model of `clicks` a click is gained with probability lift and only counts where the second missed:
    # 0.1 * (1 - 1 / 5) = 0.08, users weighing by their clicks, which do not depend on their taste.
    covered = 0
    for seed in range(300):
        first, second, user = clicks(150, lift=0.1, seed=seed)
        interval = paired_bootstrap(first, second, clusters=user, resamples=400)
        covered += interval.low <= 0.08 <= interval.high
    # Nominally 285 with a standard deviation of 4; a click-wise interval covers fewer, see the next test.
    assert 268 <= covered <= 297


def test_clicks_of_one_user_are_not_taken_for_evidence_of_their_own() -> None:
    rng = np.random.default_rng(1)
    gain = rng.choice([-1.0, 1.0], 60)  # each of 60 users consistently prefers one of the models, on 30 clicks
    first, users = np.repeat(np.maximum(gain, 0), 30), np.repeat(np.arange(60), 30)
    second = np.repeat(np.maximum(-gain, 0), 30)
    by_user = paired_bootstrap(first, second, clusters=users)
    by_click = paired_bootstrap(first, second, clusters=np.arange(len(users)))
    # The standard error falls with the root of what is drawn: 30 clicks a user make sqrt(30) = 5.5 times.
    ratio = (by_user.high - by_user.low) / (by_click.high - by_click.low)
    assert ratio == pytest.approx(30**0.5, rel=0.1)


def test_pairing_shows_a_difference_that_two_separate_intervals_would_hide() -> None:
    rng = np.random.default_rng(2)
    second = (rng.random(1000) < 0.5).astype(float)
    first = second.copy()
    first[np.flatnonzero(second == 0)[:20]] = 1.0  # two in a hundred more; one standard error of either is 1.6
    interval = paired_bootstrap(first, second, clusters=np.arange(1000))
    assert interval.difference == pytest.approx(0.02)
    assert interval.excludes_zero
    assert interval.verdict == "better"
    assert paired_bootstrap(second, first, clusters=np.arange(1000)).verdict == "worse"


def test_equal_models_differ_by_nothing() -> None:
    first, _, user = clicks(50, lift=0.1, seed=1)
    interval = paired_bootstrap(first, first, clusters=user)
    assert (interval.difference, interval.low, interval.high) == (0, 0, 0)
    assert not interval.excludes_zero
    assert interval.verdict == "no difference shown"


@pytest.mark.parametrize(("hits", "shown"), [(5, False), (6, True)])
def test_five_users_who_agree_are_no_evidence_at_95_percent_and_six_are(hits: int, shown: bool) -> None:
    # Heads five times in a row, or tails: 2 / 32 = 0.0625 > 0.05; six times 0.03125.
    first, second = np.r_[np.ones(hits), np.zeros(30 - hits)], np.zeros(30)
    assert paired_bootstrap(first, second, clusters=np.arange(30)).excludes_zero is shown
    # Ten clicks of each do not make more users of them.
    ten = paired_bootstrap(np.repeat(first, 10), np.repeat(second, 10), clusters=np.repeat(np.arange(30), 10))
    assert ten.excludes_zero is shown


def test_seeds_are_averaged_before_anything_is_drawn() -> None:
    first, second, user = clicks(80, lift=0.1, seed=6)
    other = clicks(80, lift=0.3, seed=6)[0]
    several = paired_bootstrap(np.stack([first, other]), second, clusters=user)
    assert several == paired_bootstrap((first + other) / 2, second, clusters=user)


def test_same_seed_gives_the_same_interval_and_names_of_users_do_not_matter() -> None:
    first, second, user = clicks(80, lift=0.1, seed=6)
    interval = paired_bootstrap(first, second, clusters=user)
    names = np.array([f"user {number}" for number in user], dtype=object)
    assert paired_bootstrap(first, second, clusters=names) == interval
    assert paired_bootstrap(first, second, clusters=user, seed=2) != interval


def test_more_confidence_is_a_wider_interval() -> None:
    first, second, user = clicks(80, lift=0.1, seed=6)
    narrow, wide = (paired_bootstrap(first, second, clusters=user, confidence=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first": []}, r"first: expected values \[examples\] or \[seeds, examples\], found shape \(0,\)"),
        ({"second": [1.0, np.nan, 0.0]}, "second: 1 values are not finite"),
        ({"second": [1.0, 0.0]}, "expected two models on the same examples, found 3 and 2"),
        ({"clusters": [1, 2]}, r"expected one cluster per example, found \(2,\) clusters for \(3,\)"),
        ({"confidence": 95}, "expected 0 < confidence < 1"),
        ({"resamples": 0}, "resamples >= 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"first": [1.0, 0.0, 1.0], "second": [0.0, 0.0, 1.0], "clusters": [1, 2, 2]} | changes
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(arguments.pop("first"), arguments.pop("second"), **arguments)
