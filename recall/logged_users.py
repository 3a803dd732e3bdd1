"""Users of the log: what they had clicked when it ended, or what the caller says that they clicked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from recall.errors import DataError
from recall.further_ids import FurtherIds
from recall.given import Asked, by_id, ids_of, require_times
from recall.prepared import ServingHistories

_T = TypeVar("_T")

Ids: TypeAlias = Iterable[str | int]
PerUser: TypeAlias = Mapping[str, _T] | Mapping[int, _T]


class LoggedUsers:
    """Turns ids of users into what a query model is asked with.

    Args:
      histories: of the log.
      item_ids: [items], by row.
      further: by name of a further history.
    """

    def __init__(self, histories: ServingHistories, item_ids: Sequence[str], further: Mapping[str, FurtherIds]) -> None:
        self._histories, self.further = histories, dict(further)
        self._item_ids, self._catalogue = np.asarray(item_ids, dtype=object), frozenset(item_ids)

    def asked(
        self,
        users: Ids | None,
        histories: PerUser[Ids] | None = None,
        times_ms: PerUser[Sequence[int]] | None = None,
        further: Mapping[str, PerUser[Ids]] | None = None,
    ) -> Asked:
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
        given, times = by_id(histories, "histories"), by_id(times_ms, "history_times_ms")
        fresh = {name: ids_of(given[name], f"histories[{name!r}]") for name in names if name in given}
        for name, own in times.items():
            require_times(own, fresh.get(name, ()), times_at=f"history_times_ms[{name!r}]", history_at="histories")
        history = [fresh[name] if name in fresh else self.clicked(name) for name in names]
        clicked_ms = [times.get(name) if name in fresh else self._histories.recent_times_ms(name) for name in names]
        return Asked(names, names, history, clicked_ms, self._further_of(names, further or {}))

    def clicked(self, user: str) -> list[str]:
        """The last `data.history` clicked items, oldest first."""
        return list(self._item_ids[self._histories.recent(user)])

    def seen(self, user: str) -> set[str]:
        """All clicked items."""
        return set(self._item_ids[self._histories.seen(user)])

    def without_clicks(self, asked: Asked) -> npt.NDArray[np.bool_]:
        """Bool [users], those of whom nothing is known but a profile: no item of the catalogue, no further history."""
        several = [
            sum(item in self._catalogue for item in items) + sum(len(lists[place]) for lists in asked.further.values())
            for place, items in enumerate(asked.history)
        ]
        return np.asarray(several, dtype=np.int64) == 0

    def _further_of(self, users: Sequence[str], given: Mapping[str, PerUser[Ids]]) -> dict[str, list[list[str]]]:
        """Further histories of users by name: those given, else those of the log."""
        if unknown := sorted(given.keys() - self.further.keys()):
            there = ", ".join(sorted(self.further)) or "none"
            raise DataError(f"further_histories: the model has no {', '.join(unknown)}; it has {there}")
        found = {}
        for name, known in self.further.items():
            what = f"further_histories[{name!r}]"
            own = by_id(given.get(name), what)
            found[name] = [ids_of(own[user], f"{what}[{user!r}]") if user in own else known.of(user) for user in users]
        return found
