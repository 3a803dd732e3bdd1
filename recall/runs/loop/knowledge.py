"""Holds what a service has seen of its feed so far: the log, the clicks of each user, and the counts of each item.

`recall.data.posterior` and `recall.data.audience` tell what of it is known at a moment, by the rules of the experiment.
"""

from __future__ import annotations

import numpy as np

from recall.core.arrays import Float64s, Int32s, Int64s
from recall.data.audience import AudienceHistory
from recall.data.datasets.feed import HOUR_MS, Log
from recall.data.datasets.live_community import LiveCommunity, joined_logs
from recall.data.event_counts import BucketCounts, count_buckets
from recall.data.posterior import PosteriorHistory, Prior

_NO_CLICK = -1


class Knowledge:
    """Hold the log of a feed that goes on.

    Args:
      community: the users and items, and the log so far.
      history: clicks that are kept of each user.
      bucket_ms: events are counted in buckets of this length.
      delay_ms: a bucket is known so long after its end.
    """

    def __init__(
        self, community: LiveCommunity, *, history: int = 30, bucket_ms: int = HOUR_MS, delay_ms: int = HOUR_MS
    ) -> None:
        users = len(community.activity)
        self.community, self.bucket_ms, self.delay_ms = community, bucket_ms, delay_ms
        self._parts: list[Log] = []
        self._counts: list[BucketCounts] = []
        self._recent = np.full((users, history), _NO_CLICK, np.int32)
        self._recent_ms = np.zeros((users, history), np.int64)
        self._clicked: list[Log] = []
        self._sources: list[Int64s] = []
        self.add(community.log)

    @property
    def log(self) -> Log:
        """Return all events in order of time."""
        if len(self._parts) > 1:
            self._parts = [joined_logs(self._parts)]
        return self._parts[0]

    def add(self, events: Log) -> None:
        """Take in events that are later than all before, in order of time."""
        self._parts.append(events)
        self._counts = [
            BucketCounts(*(np.concatenate(column) for column in zip(*self._counts, self._counted(events), strict=True)))
        ]
        chosen = events.click
        clicked = Log(events.user[chosen], events.item[chosen], events.time_ms[chosen], chosen[chosen])
        sources = np.empty(len(clicked.user), np.int64)
        for place, (user, item, time_ms) in enumerate(
            zip(clicked.user.tolist(), clicked.item.tolist(), clicked.time_ms.tolist(), strict=True)
        ):
            own, own_ms = self._recent[user], self._recent_ms[user]
            sources[place] = own[-1]
            own[:-1], own_ms[:-1] = own[1:], own_ms[1:]
            own[-1], own_ms[-1] = item, time_ms
        self._clicked.append(clicked)
        self._sources.append(sources)

    def _counted(self, events: Log) -> BucketCounts:
        return count_buckets(events.item, events.time_ms, events.click, bucket_ms=self.bucket_ms)

    def histories(self, users: Int64s, *, now_ms: int) -> tuple[Int32s, Int64s]:
        """Return the last clicks of users, up to this moment.

        Args:
          users: rows of users [n].
          now_ms: the moment.

        Returns:
          int32 [n, history] rows of items, oldest first, -1 after the end, and int64 [n, history], how long ago each
          click was, -1 likewise.
        """
        recent, recent_ms = self._recent[users], self._recent_ms[users]  # padded in front
        order = np.argsort(recent == _NO_CLICK, axis=1, kind="stable")
        rows = np.take_along_axis(recent, order, axis=1)
        return rows, np.where(rows == _NO_CLICK, -1, now_ms - np.take_along_axis(recent_ms, order, axis=1))

    def posteriors(self, prior: Prior, *, half_lives_ms: tuple[int, ...]) -> PosteriorHistory:
        """Return the posterior of every item at every moment so far."""
        self._counts = [self._counts[0].aggregated()]
        return PosteriorHistory.from_counts(
            self._counts[0], bucket_ms=self.bucket_ms, delay_ms=self.delay_ms, prior=prior, half_lives_ms=half_lives_ms
        )

    def audiences(self) -> AudienceHistory:
        """Return the audience of every item at every moment so far."""
        if len(self._clicked) > 1:
            self._clicked, self._sources = [joined_logs(self._clicked)], [np.concatenate(self._sources)]
        clicked = self._clicked[0]
        return AudienceHistory.of(
            clicked.item, clicked.time_ms, self._sources[0], bucket_ms=self.bucket_ms, delay_ms=self.delay_ms
        )

    def exposures(self, *, now_ms: int) -> Int64s:
        """Count the exposures of items that are known at a moment, int64 [items]."""
        return self._summed(self._counts[0].exposures, now_ms=now_ms).astype(np.int64)

    def clicks(self, *, now_ms: int, half_life_hours: float | None = None) -> Float64s:
        """Count the clicks of items that are known at a moment, float64 [items].

        Args:
          now_ms: the moment.
          half_life_hours: halves the weight of a click with every so many hours since its bucket closed; None: all
            count alike.
        """
        counts = self._counts[0]
        if half_life_hours is None:
            return self._summed(counts.clicks, now_ms=now_ms)
        age_hours = (now_ms - (counts.bucket + 1) * self.bucket_ms) / HOUR_MS
        return self._summed(counts.clicks * np.exp2(-np.maximum(age_hours, 0) / half_life_hours), now_ms=now_ms)

    def _summed(self, values: Int64s | Float64s, *, now_ms: int) -> Float64s:
        counts = self._counts[0]
        is_known = (counts.bucket + 1) * self.bucket_ms <= now_ms - self.delay_ms
        weights = np.where(is_known, values, 0).astype(np.float64)
        sums = np.bincount(counts.item, weights, minlength=len(self.community.published_ms))
        return sums.astype(np.float64)
