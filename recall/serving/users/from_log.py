"""Reads users of the log: their logged clicks and further histories, or the histories that a caller gives instead."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recall.core.arrays import Bools, Float64s, Int64s
from recall.core.errors import DataError
from recall.core.ragged import Ragged
from recall.data.features.vocabulary import FIRST_CODE
from recall.data.prepared import PreparedData
from recall.data.serving_histories import ServingHistories
from recall.serving.users.asked import AskedOfLog, UserQuery


class LoggedItemIds(NamedTuple):
    r"""Hold one further history of every user of the log.

    Attributes:
      histories: codes of items by user.
      ids: object [codes], the item id of each code; "\0" for a code without one.
    """

    histories: ServingHistories
    ids: npt.NDArray[np.object_]

    @classmethod
    def all_of(cls, prepared: PreparedData) -> dict[str, LoggedItemIds]:
        """Read the further histories of prepared data, by name."""
        return {name: cls(found, _codes_to_ids(prepared, name)) for name, found in prepared.further_histories.items()}

    def of(self, user: str) -> list[str]:
        """Return the item ids of one user, oldest first."""
        return list(self.ids[self.histories.recent(user)])


class LoggedUsers:
    """Look up users by id, with their clicks.

    Attributes:
      item_ids: object [items], the catalogue by row.

    Args:
      histories: clicks of the log by user.
      item_ids: item ids by row of the catalogue.
      further: further histories by name.
      reads_times: whether the query model reads times of clicks; without, times of the log are not looked up.
    """

    def __init__(
        self,
        histories: ServingHistories,
        item_ids: Sequence[str],
        *,
        further: Mapping[str, LoggedItemIds] | None = None,
        reads_times: bool = True,
    ) -> None:
        self._histories, self._further, self._reads_times = histories, dict(further or {}), reads_times
        self.item_ids = np.asarray(item_ids, dtype=object)

    def asked(self, query: UserQuery) -> AskedOfLog:
        """Look up the clicks of users, in the log or in the caller's histories.

        Raises:
          DataError: the model has no further history of such a name.
        """
        names, own_ids = query.ids, query.histories
        further = self._further_ids(names, query.further_histories)
        if not own_ids:
            times = self._histories.recent_times_ms_of(names) if self._reads_times else None
            known = None if times is None else times.values.astype(np.float64)
            return AskedOfLog(names, self._histories.recent_of(names), known, {}, further, self.item_ids)
        rows = [self._rows(own_ids[name]) if name in own_ids else self._histories.recent(name) for name in names]
        clicked = [
            query.history_times_ms.get(name) if name in own_ids else self._histories.recent_times_ms(name)
            for name in names
        ]
        moments = [_moments(own, len(of_user)) for own, of_user in zip(clicked, rows, strict=True)]
        return AskedOfLog(
            names,
            Ragged.from_lists(rows, dtype=np.int64),
            np.concatenate([np.empty(0), *moments]),
            {position: own_ids[name] for position, name in enumerate(names) if name in own_ids},
            further,
            self.item_ids,
        )

    def seen(self, users: Sequence[str], *, but: Collection[str] = ()) -> Ragged:
        """Return all clicks of users in the log, but for some item ids, as rows of the catalogue.

        Per user they are unique and rising.
        """
        seen = self._histories.seen_of(users)
        return seen.where(~np.isin(seen.values, self._rows(list(but)))) if but else seen

    def clicked(self, user: str) -> list[str]:
        """Return the last `data.history` clicked item ids of a user, oldest first."""
        return list(self.item_ids[self._histories.recent(user)])

    def has_clicks(self, users: Sequence[str]) -> Bools:
        """Mark the users with clicks in the log; bool [users]."""
        return self._histories.seen_of(users).lengths > 0

    def knows_items(self, ids: Sequence[str], *, but: Collection[str] = ()) -> Bools:
        """Mark the item ids that the catalogue holds, but for some; bool [ids]."""
        return (self._rows(ids) >= 0) & np.array([name not in but for name in ids], bool)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        """Map item ids to rows of the catalogue."""
        return {item: row for row, item in enumerate(self.item_ids)}

    def _rows(self, items: Sequence[str]) -> Int64s:
        """Look up rows of the catalogue; -1 for an item that it lacks."""
        row_of = self._row_of
        return np.array([row_of.get(item, -1) for item in items], np.int64)

    def _further_ids(
        self, users: Sequence[str], from_caller: Mapping[str, Mapping[str, list[str]]]
    ) -> dict[str, list[list[str]]]:
        """Collect the further histories of users by name, from the caller or else from the log."""
        if unknown := sorted(from_caller.keys() - self._further.keys()):
            there = ", ".join(sorted(self._further)) or "none"
            raise DataError(f"further_histories: the model has no {', '.join(unknown)}; it has {there}")
        return {
            name: [own[user] if user in own else logged.of(user) for user in users]
            for name, logged in self._further.items()
            for own in [from_caller.get(name, {})]
        }


def _codes_to_ids(prepared: PreparedData, name: str) -> npt.NDArray[np.object_]:
    """List the item id of each code of a further history."""
    if name not in prepared.history_vocabularies:
        return np.asarray(prepared.item_ids.to_pylist(), dtype=object)
    # No id holds NUL, so that these are out of vocabulary again when they are looked up.
    return np.array(["\0"] * FIRST_CODE + prepared.history_vocabularies[name].values.to_pylist(), dtype=object)


def _moments(times_ms: Sequence[int] | Int64s | None, clicks: int) -> Float64s:
    """Convert the times of a user's clicks to float64 [clicks]; NaN for an unknown time."""
    if times_ms is None:
        return np.full(clicks, np.nan)
    return np.array([int(time) for time in times_ms], np.float64)
