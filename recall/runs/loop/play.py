"""Plays one arm with one seed: the feed of the community, filled by a policy, hour by hour."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from recall.core.arrays import Int64s
from recall.data.budget import within_budget
from recall.data.datasets.feed import Log
from recall.data.datasets.live_community import DAY_MS, LiveCommunity, Visits, joined_logs
from recall.runs.loop.arms import MODELS, Arm
from recall.runs.loop.knowledge import Knowledge
from recall.runs.loop.policies import Policy, rule
from recall.runs.loop.slates import fill_slates

OnDay = Callable[[int, Log], None]
"""Takes the number of a day that is over, and its events."""


def play(
    community: LiveCommunity, arm: Arm, policy: Policy, knowledge: Knowledge, *, on_day: OnDay | None = None
) -> Log:
    """Let a policy fill the feed to the end of the loop.

    Args:
      community: the users and items.
      arm: shares of exploration and of cold items.
      policy: scores.
      knowledge: what the policy knows; it begins with the log before the loop, and grows.
      on_day: is told of each day.

    Returns:
      The exposures of the loop in order of time, without the log before it.
    """
    allowed = np.ones((len(community.activity), len(community.published_ms)), bool)
    allowed[community.log.user, community.log.item] = False
    days: list[Log] = []
    hours: list[Log] = []
    for visits in community.visits():
        if visits.hour % 24 == 0:
            policy.begin_day(visits.hour // 24, visits.start_ms)
        policy.refresh(visits.start_ms)
        if len(visits.users):
            events = _shown(community, arm, policy, knowledge, visits, allowed[visits.users])
            allowed[events.user, events.item] = False
            knowledge.add(events)
            hours.append(events)
        if visits.hour % 24 == 23:
            days.append(joined_logs([_nothing(), *hours]))
            hours = []
            if on_day:
                on_day(len(days) - 1, days[-1])
    return joined_logs(days)


def _shown(
    community: LiveCommunity, arm: Arm, policy: Policy, knowledge: Knowledge, visits: Visits, allowed: np.ndarray
) -> Log:
    """Fill the slates of an hour, and decide what is clicked."""
    now_ms, published_ms = visits.start_ms, community.published_ms
    allowed &= published_ms <= now_ms
    exposures, clicks = knowledge.exposures(now_ms=now_ms), knowledge.clicks(now_ms=now_ms)
    cold = within_budget(exposures, clicks, steps=arm.budget or (1,))
    rows = fill_slates(
        policy.scores(visits), allowed, visits, arm=arm, seed=community.seed, young=published_ms > now_ms - DAY_MS,
        cold=cold,
    )  # fmt: skip
    there = rows >= 0
    users, items = np.repeat(visits.users, there.sum(axis=1)), rows[there].astype(np.int64)
    times_ms, click = visits.times_ms[there], community.clicks(visits.hour, users, items)
    order = np.argsort(times_ms, kind="stable")
    return Log(users[order], items[order], times_ms[order], click[order])


def _nothing() -> Log:
    none: Int64s = np.zeros(0, np.int64)
    return Log(none, none, none, np.zeros(0, bool))


def make_policy(
    arm: Arm, knowledge: Knowledge, *, config: Path | None, overrides: list[str], steps: int, folder: Path
) -> Policy:
    """Make the policy of an arm.

    Args:
      arm: the arm.
      knowledge: what it knows.
      config: an experiment file in place of the example's, or None.
      overrides: `dotted.key=value` pairs for all models.
      steps: of each training, about.
      folder: scratch for its trainings.

    Raises:
      ConfigError: a setting is wrong.
    """
    if arm.kind not in MODELS:
        return rule(arm.kind, knowledge)
    from recall.runs.loop.experiment import loop_experiment
    from recall.runs.loop.learner import RunLearner
    from recall.runs.loop.model_policy import ModelPolicy

    experiment = loop_experiment(arm.settings, config=config, overrides=overrides)
    experiment = experiment.replaced(seed=knowledge.community.seed)
    return ModelPolicy(arm, knowledge, RunLearner(experiment, folder, goes_on=arm.goes_on, steps=steps))
