"""Finds what was shown to a user beside a click, and was not clicked: `data.refused`.

`examples.py` puts the result into the training examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recall.core.arrays import AnyInts, Bools, Int64s
from recall.core.ragged import Ragged


@dataclass(frozen=True)
class Refusals:
    """Say which refused items an example carries.

    Attributes:
      count: items, at most.
      gap_ms: a longer time between two exposures of a user ends the session.
    """

    count: int
    gap_ms: int

    def beside_clicks(
        self, user: AnyInts, rows: Int64s, time_ms: Int64s, *, click: Bools, is_training: Bools
    ) -> Ragged:
        """List the refused items of the session of each click, the nearest exposure first, the earlier of two.

        An item is refused if it was shown to the user and never clicked by the user in the training period. Exposures
        after the click count as well: a model is trained when the session is over, and serving reads no refusals.
        Neither reads what is held out.

        Args:
          user: int [events], rising.
          rows: int64 [events], items.
          time_ms: int64 [events], rising within a user.
          click: bool [events].
          is_training: bool [events], False for what is held out.

        Returns:
          int64 items of each click, in the order of the clicks; none of a click that is held out.
        """
        events = np.flatnonzero(is_training)
        session = sessions(user[events], time_ms[events], self.gap_ms)
        items, is_click = rows[events], click[events]
        stride = int(items.max(initial=0)) + 1
        pair = user[events].astype(np.int64) * stride + items
        refused = np.flatnonzero(~is_click & ~np.isin(pair, np.unique(pair[is_click])))
        first = np.unique(session[refused] * stride + items[refused], return_index=True)[1]
        refused = refused[np.sort(first)]  # an item once in a session, in the order of the exposures

        clicked = np.flatnonzero(is_click)
        place = np.searchsorted(refused, clicked)[:, np.newaxis] + np.arange(-self.count, self.count)  # [clicks, 2n]
        is_there = (place >= 0) & (place < len(refused))
        found = np.append(refused, 0)[np.where(is_there, place, len(refused))]  # [clicks, 2n], places among the events
        is_there &= np.append(session, 0)[found] == session[clicked][:, np.newaxis]
        distance = 2 * np.abs(found - clicked[:, np.newaxis]) + (found > clicked[:, np.newaxis])
        order = np.argsort(np.where(is_there, distance, np.iinfo(np.int64).max), axis=1)[:, : self.count]
        nearest, is_kept = (np.take_along_axis(part, order, axis=1) for part in (found, is_there))  # [clicks, n]

        lengths = np.zeros(np.count_nonzero(click), np.int64)
        lengths[is_training[click]] = is_kept.sum(axis=1)
        return Ragged.from_lengths(np.append(items, 0)[nearest[is_kept]], lengths)


def sessions(user: AnyInts, time_ms: Int64s, gap_ms: int) -> Int64s:
    """Return the number of the session of each event, int64 [events], rising."""
    begins = np.ones(len(user), bool)
    begins[1:] = (user[1:] != user[:-1]) | (np.diff(time_ms) > gap_ms)
    return np.cumsum(begins)
