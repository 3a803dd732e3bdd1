"""Handles further histories of a user beside the clicks: long views, likes, or activity in another domain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import AnyInts, Int64s
from recall.data.click_history import Ranges, last_clicks

PREFIX = "history."
"""In front of the names of further histories, wherever they stand beside other names."""

ENTRY_SCHEMA = pa.schema([("user", pa.string()), ("item", pa.string()), ("time_ms", pa.int64())])
RECENT_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("recent", pa.list_(pa.int64())),
        ("recent_time_ms", pa.list_(pa.int64())),
    ]
)


def sort_entries(entries: pa.Table) -> pa.Table:
    """Sort entries (`ENTRY_SCHEMA`) by (user, time_ms, item), and keep each once."""
    return (
        entries.group_by(ENTRY_SCHEMA.names)
        .aggregate([])
        .sort_by([("user", "ascending"), ("time_ms", "ascending"), ("item", "ascending")])
    )


@dataclass(frozen=True)
class FurtherHistory:
    """Hold one further history of some users.

    Attributes:
      users: string [users], users with an entry, sorted.
      user: int64 [entries], positions in `users`, rising.
      codes: int64 [entries], item rows, or codes of the own vocabulary.
      time_ms: int64 [entries], rising within a user.
      length: number of entries that an example carries.
    """

    users: pa.StringArray
    user: Int64s
    codes: Int64s
    time_ms: Int64s
    length: int

    @classmethod
    def of(cls, entries: pa.Table, codes: AnyInts, *, length: int) -> FurtherHistory:
        """Build from the result of `sort_entries` and the code of each entry's item; codes below 0 are left out."""
        known = codes >= 0
        kept = entries.filter(pa.array(known))
        user = kept["user"].combine_chunks().dictionary_encode()  # sorted already: codes rise
        return cls(
            user.dictionary, user.indices.to_numpy().astype(np.int64), codes[known].astype(np.int64),
            kept["time_ms"].to_numpy(), length,
        )  # fmt: skip

    def before(self, users: pa.StringArray, user: AnyInts, time_ms: Int64s) -> Ranges:
        """Find the last entries strictly before some moments of some users.

        Args:
          users: string [n].
          user: int [moments], positions in `users`.
          time_ms: int64 [moments].
        """
        place = pc.index_in(users, value_set=self.users).fill_null(-1).to_numpy().astype(np.int64)[user]
        # Ranks of times, not times: user * (largest time) may not fit into int64.
        times = np.unique(self.time_ms)
        stride = len(times) + 1
        keys = self.user * stride + np.searchsorted(times, self.time_ms)
        starts = np.searchsorted(keys, place * stride)
        stops = np.searchsorted(keys, place * stride + np.searchsorted(times, time_ms))
        return last_clicks(Ranges(starts, np.maximum(starts, stops)), self.length)

    def recent(self) -> pa.Table:
        """List the last entries of each user: `RECENT_SCHEMA`."""
        starts = np.flatnonzero(np.diff(self.user, prepend=-1))
        stops = np.append(starts[1:], len(self.user)) if len(starts) else starts
        recent = last_clicks(Ranges(starts, stops), self.length).positions()
        lists = [
            pa.ListArray.from_arrays(pa.array(recent.offsets.astype(np.int32)), pa.array(values[recent.values]))
            for values in (self.codes, self.time_ms)
        ]
        return pa.table([self.users, *lists], schema=RECENT_SCHEMA)
