"""What holds of every loop: no item twice, nothing before its time, the same luck for all; and what the rules do."""

from __future__ import annotations

import numpy as np
import pytest

from recall.core.arrays import Float32s
from recall.data.datasets.feed import Log
from recall.data.datasets.live_community import DAY_MS, LiveCommunity, Visits, joined_logs
from recall.runs.loop.arms import RULES, Arm
from recall.runs.loop.knowledge import Knowledge
from recall.runs.loop.play import play
from recall.runs.loop.policies import rule

HOUR_MS = 3_600_000


def played(live: LiveCommunity, text: str) -> Log:
    arm, knowledge = Arm.parse(text), Knowledge(live)
    return play(live, arm, rule(arm.kind, knowledge), knowledge)


@pytest.fixture(scope="module")
def logs(live: LiveCommunity) -> dict[str, Log]:
    return {text: played(live, text) for text in (*RULES, "trending+explore=0.2")}


def hours(live: LiveCommunity, log: Log) -> np.ndarray:
    return (log.time_ms - live.start_ms) // HOUR_MS


def test_nobody_is_shown_an_item_twice_or_before_it_is_there(live: LiveCommunity, logs: dict[str, Log]) -> None:
    for log in logs.values():
        whole = joined_logs([live.log, log])
        assert len(np.unique(whole.user * len(live.published_ms) + whole.item)) == len(whole.user)
        starts_ms = live.start_ms + hours(live, log) * HOUR_MS
        assert (live.published_ms[log.item] <= starts_ms).all()
        assert (np.diff(log.time_ms) >= 0).all()


def test_all_arms_meet_the_same_users_at_the_same_moments(live: LiveCommunity, logs: dict[str, Log]) -> None:
    expected = sorted(
        (int(user), int(time))
        for visits in live.visits()
        for user, times in zip(visits.users, visits.times_ms, strict=True)
        for time in times
    )
    for log in logs.values():
        assert sorted(zip(log.user.tolist(), log.time_ms.tolist(), strict=True)) == expected


def test_the_same_policy_gives_the_same_log(live: LiveCommunity, logs: dict[str, Log]) -> None:
    again = played(live, "trending")
    assert all((one == other).all() for one, other in zip(
        (again.user, again.item, again.time_ms, again.click),
        (logs["trending"].user, logs["trending"].item, logs["trending"].time_ms, logs["trending"].click), strict=True,
    ))  # fmt: skip


def test_the_same_item_in_the_same_session_is_clicked_by_all_or_none(live: LiveCommunity, logs: dict[str, Log]) -> None:
    outcomes: dict[tuple[int, int, int], set[bool]] = {}
    for log in logs.values():
        rows = zip(hours(live, log).tolist(), log.user.tolist(), log.item.tolist(), log.click.tolist(), strict=True)
        for hour, user, item, click in rows:
            outcomes.setdefault((hour, user, item), set()).add(click)
    assert all(len(found) == 1 for found in outcomes.values())
    assert len(outcomes) < sum(len(log.user) for log in logs.values())  # some were shown by several


def test_random_slates_are_clicked_as_the_community_clicks(live: LiveCommunity, logs: dict[str, Log]) -> None:
    # Every user against every item that was there in the middle of the loop and had not been seen before it.
    there = np.arange(live.published(live.start_ms + live.days * DAY_MS // 2))
    users = np.repeat(np.arange(150), len(there))
    weights = np.bincount(logs["random"].user, minlength=150)[users].astype(float)
    unseen = np.ones((150, len(live.published_ms)), bool)
    unseen[live.log.user, live.log.item] = False
    items = np.tile(there, 150)
    weights *= unseen[users, items]
    expected = np.average(live.probabilities(users, items), weights=weights)
    found = live.probabilities(logs["random"].user, logs["random"].item).mean()
    assert found == pytest.approx(expected, rel=0.08)


def test_no_arm_is_clicked_more_than_the_oracle(live: LiveCommunity, logs: dict[str, Log]) -> None:
    means = {text: live.probabilities(log.user, log.item).mean() for text, log in logs.items()}
    assert max(means, key=lambda text: means[text]) == "oracle"
    assert means["oracle"] > 1.5 * means["trending"]
    assert means["trending"] > 1.2 * means["random"]
    assert means["trending"] > means["trending+explore=0.2"]


class Watching:
    """Scores nothing, and writes down what was known at each hour."""

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge
        self.days: list[tuple[int, int, int]] = []
        self.known: list[tuple[int, float]] = []

    def begin_day(self, day: int, now_ms: int) -> None:
        self.days.append((day, now_ms, len(self.knowledge.log.user)))

    def refresh(self, now_ms: int) -> None:
        self.known.append((now_ms, float(self.knowledge.exposures(now_ms=now_ms).sum())))

    def scores(self, visits: Visits) -> Float32s:
        return np.zeros((len(visits.users), len(self.knowledge.community.published_ms)), np.float32)


def test_a_policy_knows_what_happened_an_hour_before_and_no_more(live: LiveCommunity) -> None:
    knowledge = Knowledge(live)
    policy = Watching(knowledge)
    log = joined_logs([live.log, play(live, Arm.parse("random"), policy, knowledge)])
    assert len(policy.known) == 72
    for now_ms, exposures in policy.known:
        assert exposures == (log.time_ms < now_ms - HOUR_MS).sum()
    assert [day for day, _, _ in policy.days] == [0, 1, 2]
    for _, now_ms, events in policy.days:
        assert events == (log.time_ms < now_ms).sum()  # a training has the whole log
