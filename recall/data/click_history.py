"""Finds what a user had clicked before an example: the last N items, all items, and the item that led there.

`examples.py` puts the result into tables. `further_histories.py` does the same for lists beside the clicks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recall.core.arrays import AnyInts, Bools, Int64s
from recall.core.ordering import order_of
from recall.core.ragged import Ragged


class Ranges(NamedTuple):
    """Hold ranges of positions in one array of clicks; they may overlap.

    Attributes:
      starts: int64 [n].
      stops: int64 [n]; slice i is starts[i]:stops[i].
    """

    starts: Int64s
    stops: Int64s

    def part(self, chosen: slice) -> Ranges:
        """Select consecutive ranges."""
        return Ranges(self.starts[chosen], self.stops[chosen])

    def take(self, positions: Int64s) -> Ranges:
        """Select the ranges at `positions`."""
        return Ranges(self.starts[positions], self.stops[positions])

    def lengths(self) -> Int64s:
        """Count the clicks of each range, int64 [n]."""
        return self.stops - self.starts

    def positions(self) -> Ragged:
        """List the positions of each range."""
        return Ragged.from_spans(self.starts, self.lengths())


def earlier_clicks(user: AnyInts, time_ms: Int64s) -> Ranges:
    """Find the clicks of the same user strictly before each click; clicks of the same moment are excluded.

    Args:
      user: int [clicks], rising.
      time_ms: int64 [clicks], rising within a user.
    """
    index = np.arange(len(user))
    new_user = np.ones(len(user), bool)
    new_user[1:] = user[1:] != user[:-1]
    new_moment = new_user.copy()
    new_moment[1:] |= time_ms[1:] != time_ms[:-1]
    return Ranges(
        np.maximum.accumulate(np.where(new_user, index, 0)), np.maximum.accumulate(np.where(new_moment, index, 0))
    )


def last_clicks(earlier: Ranges, length: int) -> Ranges:
    """Keep the last `length` of the earlier clicks."""
    return Ranges(np.maximum(earlier.starts, earlier.stops - length), earlier.stops)


def previous_triggers(rows: Int64s, time_ms: Int64s, earlier: Ranges, *, window_ms: int) -> Int64s:
    """Find the item of the user's last earlier click if it is at most `window_ms` old, else -1; int64 [clicks].

    Args:
      rows: int64 [clicks], item rows.
      time_ms: int64 [clicks].
      earlier: the result of `earlier_clicks`.
      window_ms: the largest age of the click.
    """
    previous = earlier.stops - 1
    recent = (earlier.lengths() > 0) & (time_ms - time_ms[previous] <= window_ms)
    return np.where(recent, rows[previous], -1)


def first_clicks(user: AnyInts, rows: Int64s) -> Bools:
    """Mark where a user clicks an item for the first time; bool [clicks], in the order of the clicks."""
    order = order_of(user, rows)
    first = np.ones(len(rows), bool)
    first[1:] = (user[order][1:] != user[order][:-1]) | (rows[order][1:] != rows[order][:-1])
    result = np.empty(len(rows), bool)
    result[order] = first
    return result


def seen_items(rows: Int64s, first: Bools, earlier: Ranges) -> Ragged:
    """List the distinct items among the earlier clicks, sorted.

    Args:
      rows: int64 [clicks], item rows of all clicks.
      first: bool [clicks], as `first_clicks`; only these can add an item.
      earlier: ranges of the clicks, one per example.

    Returns:
      The items of each example, int64.
    """
    before = np.concatenate([[0], np.cumsum(first)])  # first clicks before a position
    positions = Ranges(before[earlier.starts], before[earlier.stops]).positions()
    items = rows[first][positions.values]
    # Example and item are sorted as one number, so that the item is read off the sorted number.
    example = positions.owners * (int(rows.max(initial=0)) + 1)
    return Ragged(np.sort(example + items) - example, positions.offsets)
