"""Further histories of a user beside the clicks: long views, likes, or what he did in another domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, PositiveInt, model_validator

from recall.config.features import Strict
from recall.data.click_history import Int64s, Ranges, last_clicks

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


class HistoryConfig(Strict):
    """A further list of items per user, strictly before the example as the clicks are.

    Without `path` its entries are rows of the log for which `column` is at least `at_least`, clicked or not. With
    `path` they are rows of another file (of which `column`, too, may choose); what its columns are called is as in
    data.events where it is not said.
    """

    column: str | None = None
    at_least: float = 1.0
    length: PositiveInt | None = Field(default=None, description="entries that an example carries; as data.history")
    path: str | None = Field(default=None, description="file or glob of another log")
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet"] = "auto"
    user: str | None = None
    item: str | None = None
    time: str | None = None
    time_unit: Literal["s", "ms", "us", "ns", "iso"] | None = None
    domain: Literal["catalogue", "own"] = Field(
        default="catalogue", description="own: its items are no items of the catalogue and get embeddings of their own"
    )
    min_count: PositiveInt = Field(default=2, description="items of an own domain seen less often share one embedding")

    @model_validator(mode="after")
    def _has_a_source(self) -> HistoryConfig:
        if self.path is None:
            if self.column is None:
                raise ValueError("name a column of the log whose rows enter this history, or a path to another file")
            if self.domain == "own":
                raise ValueError("items of the log are items of the catalogue; domain: own needs a path")
            named = [name for name in ("user", "item", "time", "time_unit") if getattr(self, name) is not None]
            if named or self.format != "auto":
                raise ValueError(f"{', '.join(named) or 'format'} describes another file; add its path")
        return self

    def as_log(self, events: Mapping[str, Any]) -> dict[str, Any]:
        """The section data.events of a log whose clicks are the entries, from that of the real log."""
        names = ("path", "format", "user", "item", "time", "time_unit")
        own = {name: getattr(self, name) for name in names if self.path and getattr(self, name) is not None}
        click = {"column": self.column, "at_least": self.at_least} if self.column else None
        return {**events, **own, "click": click, "trigger": None, "weight": None}


def sort_entries(entries: pa.Table) -> pa.Table:
    """Entries (`ENTRY_SCHEMA`) by (user, time_ms, item), each once."""
    return (
        entries.group_by(ENTRY_SCHEMA.names)
        .aggregate([])
        .sort_by([("user", "ascending"), ("time_ms", "ascending"), ("item", "ascending")])
    )


@dataclass(frozen=True)
class FurtherHistory:
    """One further history of some users.

    Attributes:
      users: string [users], sorted; those with an entry.
      user: int64 [entries], positions in `users`, rising.
      codes: int64 [entries], item rows, or codes of the own vocabulary.
      time_ms: int64 [entries], rising within a user.
      length: how many entries an example carries.
    """

    users: pa.StringArray
    user: Int64s
    codes: Int64s
    time_ms: Int64s
    length: int

    @classmethod
    def of(cls, entries: pa.Table, codes: npt.NDArray[np.integer], *, length: int) -> FurtherHistory:
        """From `sort_entries` and the code of each entry's item; those below 0 are left out."""
        known = codes >= 0
        kept = entries.filter(pa.array(known))
        user = kept["user"].combine_chunks().dictionary_encode()  # sorted already: codes rise
        return cls(
            user.dictionary, user.indices.to_numpy().astype(np.int64), codes[known].astype(np.int64),
            kept["time_ms"].to_numpy(), length,
        )  # fmt: skip

    def before(self, users: pa.StringArray, user: npt.NDArray[np.integer], time_ms: Int64s) -> Ranges:
        """The last entries strictly before some moments of some users.

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
        """Per user the last entries of all: `RECENT_SCHEMA`."""
        starts = np.flatnonzero(np.diff(self.user, prepend=-1))
        stops = np.append(starts[1:], len(self.user)) if len(starts) else starts
        offsets, positions = last_clicks(Ranges(starts, stops), self.length).flatten()
        lists = [
            pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values[positions]))
            for values in (self.codes, self.time_ms)
        ]
        return pa.table([self.users, *lists], schema=RECENT_SCHEMA)
