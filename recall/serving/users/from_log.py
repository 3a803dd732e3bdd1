"""Users of the log: what they had clicked when it ended, or what the caller says that they clicked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TypeAlias, TypeVar

import numpy as np

from recall.core.arrays import Bools, Float64s, Int64s
from recall.core.errors import DataError
from recall.core.ragged import Ragged
from recall.data.serving_histories import ServingHistories
from recall.serving.users.asked import by_id, ids_of, require_times
from recall.serving.users.clicks import AskedOfLog
from recall.serving.users.further_ids import FurtherIds

_T = TypeVar("_T")

Ids: TypeAlias = Iterable[str | int]
PerUser: TypeAlias = Mapping[str, _T] | Mapping[int, _T]


class LoggedUsers:
    """Turns ids of users into what a query model is asked with.

    Args:
      histories: of the log.
      item_ids: [items], by row.
      further: by name of a further history.
      reads_times: whether anybody reads when items were clicked; those of the log are not looked up if not.
    """

    def __init__(
        self,
        histories: ServingHistories,
        item_ids: Sequence[str],
        further: Mapping[str, FurtherIds],
        *,
        reads_times: bool = True,
    ) -> None:
        self._histories, self.further, self._reads_times = histories, dict(further), reads_times
        self.item_ids = np.asarray(item_ids, dtype=object)

    def asked(
        self,
        users: Ids | None,
        histories: PerUser[Ids] | None = None,
        times_ms: PerUser[Sequence[int]] | None = None,
        further: Mapping[str, PerUser[Ids]] | None = None,
    ) -> AskedOfLog:
        """Who is asked for, with what the log holds of them, or what the caller gives in its place.

        Args:
          users: ids.
          histories: clicked item ids per user, oldest first.
          times_ms: per user of `histories`, when each was clicked (Unix milliseconds); unknown without.
          further: by name of a further history, item ids per user.

        Raises:
          DataError: there are no users, an id is missing, times do not belong to a history given here, or there is no
            further history of such a name.
        """
        if users is None:
            raise DataError("users: expected ids of users, or features of users that no file knows; found neither")
        names = ids_of(users, "users")
        if not histories and not times_ms:
            times = self._histories.recent_times_ms_of(names) if self._reads_times else None
            known = None if times is None else times.values.astype(np.float64)
            return self._asked(names, self._histories.recent_of(names), known, further)
        given, times_of = by_id(histories, "histories"), by_id(times_ms, "history_times_ms")
        fresh = {name: ids_of(given[name], f"histories[{name!r}]") for name in names if name in given}
        for name, own in times_of.items():
            require_times(own, fresh.get(name, ()), times_at=f"history_times_ms[{name!r}]", history_at="histories")
        rows = [self._rows(fresh[name]) if name in fresh else self._histories.recent(name) for name in names]
        clicked = [times_of.get(name) if name in fresh else self._histories.recent_times_ms(name) for name in names]
        moments = [_moments(own, len(of_user)) for own, of_user in zip(clicked, rows, strict=True)]
        lists = Ragged.from_lists(rows, dtype=np.int64)
        by_position = {position: fresh[name] for position, name in enumerate(names) if name in fresh}
        return self._asked(names, lists, np.concatenate([np.empty(0), *moments]), further, given=by_position)

    def seen(self, users: Sequence[str]) -> Ragged:
        """All that they clicked in the log, as rows of the catalogue, those of a user each once and rising."""
        return self._histories.seen_of(users)

    def clicked(self, user: str) -> list[str]:
        """The last `data.history` clicked items, oldest first."""
        return list(self.item_ids[self._histories.recent(user)])

    def without_clicks(self, asked: AskedOfLog) -> Bools:
        """Bool [users], those of whom nothing is known but a profile: no item of the catalogue, no further history."""
        several = asked.rows.where(asked.rows.values >= 0).lengths
        for lists in asked.further.values():
            several = several + np.array([len(own) for own in lists], np.int64)
        return several == 0

    def _asked(
        self,
        users: list[str],
        rows: Ragged,
        times_ms: Float64s | None,
        further: Mapping[str, PerUser[Ids]] | None,
        *,
        given: Mapping[int, list[str]] | None = None,
    ) -> AskedOfLog:
        return AskedOfLog(users, rows, times_ms, given or {}, self._further_of(users, further or {}), self.item_ids)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self.item_ids)}

    def _rows(self, items: Sequence[str]) -> Int64s:
        row_of = self._row_of
        return np.array([row_of.get(item, -1) for item in items], np.int64)

    def _further_of(self, users: Sequence[str], given: Mapping[str, PerUser[Ids]]) -> dict[str, list[list[str]]]:
        """Further histories of users by name: those given, else those of the log."""
        if not given and not self.further:
            return {}
        if unknown := sorted(given.keys() - self.further.keys()):
            there = ", ".join(sorted(self.further)) or "none"
            raise DataError(f"further_histories: the model has no {', '.join(unknown)}; it has {there}")
        found = {}
        for name, known in self.further.items():
            what = f"further_histories[{name!r}]"
            own = by_id(given.get(name), what)
            found[name] = [ids_of(own[user], f"{what}[{user!r}]") if user in own else known.of(user) for user in users]
        return found


def _moments(times_ms: Sequence[int] | Int64s | None, clicks: int) -> Float64s:
    """Times of a user's clicks as numbers that can say that they are unknown."""
    if times_ms is None:
        return np.full(clicks, np.nan)
    return np.array([int(time) for time in times_ms], np.float64)
