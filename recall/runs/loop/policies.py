"""Scores items for the users of an hour: the arms without a model, and what all arms have in common.

`model_policy.py` has the arms with a model; `slates.py` fills the feed from scores.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from recall.core.arrays import Float32s
from recall.data.datasets.chance import chance
from recall.data.datasets.live_community import LiveCommunity, Visits
from recall.runs.loop.knowledge import Knowledge

TREND_HALF_LIFE_HOURS = 24.0
_RANDOM_SCORES = 3  # what numbers are drawn for


class Policy(Protocol):
    """Decide who is shown what. The loop calls `begin_day`, then of each hour `refresh` and `scores`."""

    def begin_day(self, day: int, now_ms: int) -> None:
        """Learn from the log so far; days count from 0."""

    def refresh(self, now_ms: int) -> None:
        """Take in what is known at the beginning of an hour."""

    def scores(self, visits: Visits) -> Float32s:
        """Score all items for the users of an hour, float32 [users, items]; items that are not there yet count not."""


class _WithoutLearning:
    """Do nothing when a day begins."""

    def begin_day(self, day: int, now_ms: int) -> None:
        """Leave things as they are."""

    def refresh(self, now_ms: int) -> None:
        """Leave things as they are."""


class Oracle(_WithoutLearning):
    """Know the truth: the items that each user clicks most likely. It looks no further than the slate."""

    def __init__(self, community: LiveCommunity) -> None:
        self._community = community

    def scores(self, visits: Visits) -> Float32s:
        """Return the true logits of a click."""
        return self._community.truth.click_logits(visits.users)


class Random(_WithoutLearning):
    """Draw items at random."""

    def __init__(self, community: LiveCommunity) -> None:
        self._seed, self._items = community.seed, np.arange(len(community.published_ms))

    def scores(self, visits: Visits) -> Float32s:
        """Draw scores that depend on seed, hour, user and item alone."""
        drawn = chance(self._seed, _RANDOM_SCORES, visits.hour, visits.users[:, np.newaxis], self._items)
        return drawn.astype(np.float32)


class MostClicked(_WithoutLearning):
    """Give everybody the most clicked items.

    Args:
      knowledge: the log so far.
      half_life_hours: how fast clicks are forgotten; None: never.
    """

    def __init__(self, knowledge: Knowledge, *, half_life_hours: float | None) -> None:
        self._knowledge, self._half_life_hours = knowledge, half_life_hours
        self._counts = np.zeros(0, np.float32)

    def refresh(self, now_ms: int) -> None:
        """Count clicks anew."""
        self._counts = self._knowledge.clicks(now_ms=now_ms, half_life_hours=self._half_life_hours).astype(np.float32)

    def scores(self, visits: Visits) -> Float32s:
        """Return the counts, the same for all users."""
        return np.broadcast_to(self._counts, (len(visits.users), len(self._counts)))


def rule(kind: str, knowledge: Knowledge) -> Policy:
    """Make the policy of an arm without a model, by its kind."""
    community = knowledge.community
    match kind:
        case "oracle":
            return Oracle(community)
        case "random":
            return Random(community)
        case "trending":
            return MostClicked(knowledge, half_life_hours=TREND_HALF_LIFE_HOURS)
    return MostClicked(knowledge, half_life_hours=None)
