"""Holds a simulated community whose feed is filled by somebody else: `recall loop`.

`simulation.py` draws the community and a log that starts it. Then users come in sessions, hour by hour, and items are
published all the time. Who comes when, and whether a user clicks an item in a session, is drawn from the seed alone:
every policy that fills the feed meets the same users with the same luck.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import Bools, Float32s, Float64s, Int64s
from recall.data.datasets.chance import chance
from recall.data.datasets.community import Community
from recall.data.datasets.feed import HOUR_MS, SLATE, START_MS, Log, busyness, session_times
from recall.data.datasets.simulation import simulate

DAY_MS = 24 * HOUR_MS
_EXPOSURES_PER_DAY = 10.7  # of a user: about one slate, as in `simulate` by default
_OUTCOMES, _VISITS = 1, 2  # what numbers are drawn for


class Visits(NamedTuple):
    """Hold the sessions that begin in one hour, at most one of each user.

    Attributes:
      hour: of the loop, from 0.
      start_ms: Unix milliseconds of the hour.
      users: int64 [sessions], rows of users, rising.
      times_ms: int64 [sessions, SLATE], when each slot of the slate is seen; within the hour.
    """

    hour: int
    start_ms: int
    users: Int64s
    times_ms: Int64s


@dataclass(frozen=True, kw_only=True)
class LiveCommunity:
    """Hold the users and items of a loop, and the log that it starts from.

    Attributes:
      truth: the community as it truly is.
      users: table of users, as of `simulate`.
      items: table of items, in order of publication, to the end of the loop.
      published_ms: int64 [items], rising.
      activity: float64 [users].
      log: exposures before the loop, which no arm decided.
      start_ms: Unix milliseconds at which the loop begins, a midnight.
      days: length of the loop.
      seed: of everything that is drawn.
    """

    truth: Community
    users: pa.Table
    items: pa.Table
    published_ms: Int64s
    activity: Float64s
    log: Log
    start_ms: int
    days: int
    seed: int

    @classmethod
    def make(
        cls, *, users: int, items: int, days: int, warm_up_days: int = 4, authors: int = 300, seed: int = 1
    ) -> LiveCommunity:
        """Draw a community, and run the feed of `simulate` for the days before the loop.

        Args:
          users: number of users.
          items: number of items; two fifths are there when the log begins, the others appear evenly to the end.
          days: length of the loop.
          warm_up_days: length of the log before it.
          authors: number of authors.
          seed: of everything that is drawn.

        Raises:
          ConfigError: a number is out of range.
        """
        data = simulate(
            users=users, items=items, days=warm_up_days + days, log_days=warm_up_days, authors=authors,
            exposures=round(_EXPOSURES_PER_DAY * users * warm_up_days), seed=seed,
        )  # fmt: skip
        assert data.users is not None
        return cls(
            truth=data.truth,
            users=data.users,
            items=data.items,
            published_ms=data.items["published_ms"].to_numpy(),
            activity=data.activity,
            log=_rows(data.events, data.users["user_id"], data.items["item_id"]),
            start_ms=START_MS + warm_up_days * DAY_MS,
            days=days,
            seed=seed,
        )

    @property
    def end_ms(self) -> int:
        """Return the Unix milliseconds at which the loop ends."""
        return self.start_ms + self.days * DAY_MS

    def visits(self) -> Iterator[Visits]:
        """Draw the sessions of the loop, hour by hour, hours without any included; the same at every call."""
        rng = np.random.default_rng([self.seed, _VISITS])
        rates = self.activity / self.activity.mean() * _EXPOSURES_PER_DAY / (24 * SLATE)  # [users], sessions per hour
        for hour, busy in enumerate(busyness(np.arange(24 * self.days)).tolist()):
            active = np.flatnonzero(rng.random(len(rates)) < rates * busy)
            start_ms = self.start_ms + hour * HOUR_MS
            yield Visits(hour, start_ms, active, session_times(rng, start_ms, (len(active), SLATE)))

    def probabilities(self, users: Int64s, items: Int64s) -> Float32s:
        """Compute how likely each user clicks the item at the same place, float32 [pairs]."""
        return self.truth.true_click_probability(users, items)

    def clicks(self, hour: int, users: Int64s, items: Int64s) -> Bools:
        """Decide which exposures of an hour's sessions are clicked.

        Args:
          hour: of the loop.
          users: rows of users [exposures].
          items: rows of the items that they are shown [exposures].

        Returns:
          bool [exposures]. The click of a user on an item in an hour is the same at every call.
        """
        return chance(self.seed, _OUTCOMES, hour, users, items) < self.probabilities(users, items)

    def published(self, moment_ms: int) -> int:
        """Count the items that are there at a moment; they are the first so many rows."""
        return int(np.searchsorted(self.published_ms, moment_ms, side="right"))

    def events(self, log: Log) -> pa.Table:
        """Make the table of a log, with the columns of `simulate`'s events."""
        return pa.table(
            {
                "user_id": self.users["user_id"].combine_chunks().take(pa.array(log.user)),
                "item_id": self.items["item_id"].combine_chunks().take(pa.array(log.item)),
                "time_ms": pa.array(log.time_ms),
                "is_click": pa.array(log.click.astype(np.int8)),
            }
        )


def _rows(events: pa.Table, user_ids: pa.ChunkedArray, item_ids: pa.ChunkedArray) -> Log:
    """Read a table of events back into rows of users and items."""
    user, item = (
        pc.index_in(events[name], value_set=ids.combine_chunks()).to_numpy().astype(np.int64)
        for name, ids in (("user_id", user_ids), ("item_id", item_ids))
    )
    return Log(user, item, events["time_ms"].to_numpy(), events["is_click"].to_numpy() == 1)


def joined_logs(parts: list[Log]) -> Log:
    """Join logs that follow each other."""
    names = ("user", "item", "time_ms", "click")
    return Log(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
