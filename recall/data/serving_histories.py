"""Looks up what users had clicked when the log ended: `ServingHistories`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from recall.core.arrays import Int64s
from recall.core.ragged import Ragged
from recall.data.prepared_files import flat


class ServingHistories:
    """Hold users' clicks as of the end of the log, as item rows; empty for users without a click.

    Further histories likewise, as item rows or codes of their own vocabulary; they have no `seen`.
    """

    def __init__(self, table: pa.Table) -> None:
        self._position = {user: position for position, user in enumerate(table["user_id"].to_pylist())}
        # NumPy arrays, as Arrow takes 4 us for each list.
        lists = {name: flat(table[name]) for name in table.column_names if name != "user_id"}
        self._values = {name: own.values.to_numpy() for name, own in lists.items()}
        self._offsets = {name: own.offsets.to_numpy().astype(np.int64) for name, own in lists.items()}

    def recent(self, user: str) -> Int64s:
        """Return the last `data.history` clicked items, oldest first."""
        return self._of(user, "recent")

    def recent_times_ms(self, user: str) -> Int64s | None:
        """Return the Unix ms of each of `recent`; None if the data was prepared without times."""
        return self._of(user, "recent_time_ms") if "recent_time_ms" in self._values else None

    def seen(self, user: str) -> Int64s:
        """Return all clicked items, each once, sorted."""
        return self._of(user, "seen")

    def recent_of(self, users: Sequence[str]) -> Ragged:
        """Return `recent` of several users."""
        return self._of_many(users, "recent")

    def recent_times_ms_of(self, users: Sequence[str]) -> Ragged | None:
        """Return `recent_times_ms` of several users."""
        return self._of_many(users, "recent_time_ms") if "recent_time_ms" in self._values else None

    def seen_of(self, users: Sequence[str]) -> Ragged:
        """Return `seen` of several users."""
        return self._of_many(users, "seen")

    def _of(self, user: str, name: str) -> Int64s:
        position = self._position.get(user)
        if position is None:
            return np.zeros(0, np.int64)
        offsets = self._offsets[name]
        return self._values[name][offsets[position] : offsets[position + 1]]

    def _of_many(self, users: Sequence[str], name: str) -> Ragged:
        if len(users) == 1:  # the usual case, in which a slice will do
            values = self._of(users[0], name)
            return Ragged(values, np.array([0, len(values)]))
        offsets = self._offsets[name]
        positions = np.array([self._position.get(user, -1) for user in users], np.int64)
        starts = offsets[positions]
        lengths = np.where(positions < 0, 0, offsets[positions + 1] - starts)
        places = Ragged.from_spans(starts, lengths)
        return Ragged(self._values[name][places.values], places.offsets)
