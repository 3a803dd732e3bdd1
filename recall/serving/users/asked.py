"""Holds the users of a request: as a caller asks for them (`UserQuery`), and with clicks (`Asked`, `AskedOfLog`).

`from_log.py` and `from_features.py` look up the clicks -> `vectors.py` computes query vectors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeAlias, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from recall.core.arrays import Bools, Float64s
from recall.core.errors import DataError, shown
from recall.core.ragged import Ragged
from recall.core.times import MS_PER_HOUR
from recall.serving.ids import Ids, by_id, ids_of

UNKNOWN = "\0"
"""Names an unknown item: no id holds NUL."""

_T = TypeVar("_T")
# The last bucket of ages begins after 34 years (`history_time.py`); larger ones overflow int64 milliseconds.
_OLDEST_HOURS = 1e6
_END_MS = 1 << 63

PerUser: TypeAlias = Mapping[str, _T] | Mapping[int, _T]
UserFeatures: TypeAlias = Sequence[Mapping[str, Any]] | pd.DataFrame
"""Rows of users: values under the column names of the users file, and beside them

    history: clicked item ids, oldest first; default: none,
    history_times_ms: time of each click (Unix milliseconds); default: unknown,
    history_NAME: item ids of the further history NAME of `data.histories`; default: none.

An absent column is a missing value. A row with the user id column gets that id's embedding, if the model has one; other
rows are unknown users. Columns that the model does not read are ignored.
"""


@dataclass(frozen=True, init=False)
class UserQuery:
    """Ask for users by id, or by the features of users that no file knows.

    Example:
      >>> query = recall.UserQuery(["new user"], histories={"new user": ["i003", "i007"]})
      >>> recall.Recaller.load("runs/mine").recall(query, k=5).queries
      ['new user']

    Attributes:
      ids: user ids. A user that the log does not hold is served by profile, if the users file has one, and by the
        learned answer to an empty history.
      features: in place of `ids`, raw features and clicks of users: see `UserFeatures`. The queries of the result are
        named by their positions, from "0".
      histories: clicked item ids per user, oldest first, in place of the logged ones. Items that the catalogue lacks
        are ignored.
      history_times_ms: per user of `histories`, the time of each click (Unix milliseconds); default: unknown. Only a
        model with `model.history_time` reads times.
      further_histories: by name of `data.histories`, item ids per user in place of the logged ones.

    Raises:
      DataError: neither or both of ids and features, histories beside features, an id is missing, or times do not
        belong to a history given here.
    """

    ids: list[str]
    features: UserFeatures | None
    histories: Mapping[str, list[str]]
    history_times_ms: Mapping[str, Sequence[int]]
    further_histories: Mapping[str, Mapping[str, list[str]]]

    def __init__(
        self,
        ids: Ids | None = None,
        *,
        features: UserFeatures | None = None,
        histories: PerUser[Ids] | None = None,
        history_times_ms: PerUser[Sequence[int]] | None = None,
        further_histories: Mapping[str, PerUser[Ids]] | None = None,
    ) -> None:
        if features is None and ids is None:
            raise DataError("users: expected ids of users, or features of users that no file knows; found neither")
        if features is not None and (ids is not None or histories or history_times_ms or further_histories):
            raise DataError("features: their rows bring their own clicks; remove users, histories and times")
        users = ids_of(() if ids is None else ids, "users")
        own = _lists_of(histories, users, what="histories")
        times = by_id(history_times_ms, "history_times_ms") if history_times_ms else {}
        for user, moments in times.items():
            at = f"history_times_ms[{user!r}]"
            require_times(moments, own.get(user, ()), times_at=at, history_at="histories")
        further = {
            name: _lists_of(lists, users, what=f"further_histories[{name!r}]")
            for name, lists in (further_histories or {}).items()
        }
        self.__dict__.update(  # around `frozen`: object.__setattr__ takes longer
            ids=users, features=features, histories=own, history_times_ms=times, further_histories=further
        )

    @classmethod
    def read(cls, users: Ids | UserQuery | None, keywords: Mapping[str, Any]) -> UserQuery:
        """Take a query, or build it from the short form: ids, and the other attributes as keywords.

        Raises:
          DataError: keywords beside a `UserQuery`; or as the class.
        """
        if not isinstance(users, UserQuery):
            return UserQuery(users, **keywords)
        if twice := [name for name, value in keywords.items() if value is not None]:
            raise DataError(f"users: a UserQuery and {', '.join(twice)} beside it; set these in the UserQuery")
        return users


class UserKeywords(TypedDict, total=False):
    """Name the attributes of `UserQuery` that calls may give as keywords."""

    features: UserFeatures | None
    histories: PerUser[Ids] | None
    history_times_ms: PerUser[Sequence[int]] | None
    further_histories: Mapping[str, PerUser[Ids]] | None


USER_KEYWORDS = frozenset(field.name for field in fields(UserQuery)) - {"ids"}


class Asked(NamedTuple):
    r"""Hold the users of a request with clicks as item ids.

    Attributes:
      names: names of the queries.
      users: user ids; "\0", which is no id, for an unknown user.
      history: clicked item ids of each user, oldest first.
      clicked_ms: per user the time of each click (Unix milliseconds); None where no time is known.
      further: by name of a further history, item ids of each user, oldest first.
    """

    names: list[str]
    users: list[str]
    history: list[list[str]]
    clicked_ms: Sequence[Iterable[int] | None]
    further: dict[str, list[list[str]]]

    @property
    def caller_histories(self) -> dict[int, list[str]]:
        """Return the histories that the caller gave, by position of the user: here all."""
        return dict(enumerate(self.history))

    def without_given(self, ids: Collection[str]) -> Asked:
        """Pass over some item ids in the histories of callers: here all."""
        return self._replace(history=[_passing_over(own, ids) for own in self.history])

    def ages_hours(self, now_ms: int) -> list[list[float]]:
        """Count the hours from each click to the query; -1 for an unknown time."""
        return [
            [-1.0] * len(history) if times is None else [min(_age_hours(time, now_ms), _OLDEST_HOURS) for time in times]
            for history, times in zip(self.history, self.clicked_ms, strict=True)
        ]


@dataclass(frozen=True)
class AskedOfLog:
    """Hold the users of a request with clicks as catalogue rows; item ids are looked up only when they are read.

    Attributes:
      users: user ids, which are the names of the queries too.
      rows: clicked items as rows of the catalogue, oldest first; -1 for an item that it lacks.
      times_ms: float64 [clicks], times of the clicks (Unix milliseconds), NaN for an unknown one; None: all unknown.
      caller_histories: clicked item ids that the caller gave, by position of the user; others are from the log.
      further: by name of a further history, item ids of each user, oldest first.
      item_ids: object [items], the catalogue by row.
    """

    users: list[str]
    rows: Ragged
    times_ms: Float64s | None
    caller_histories: Mapping[int, list[str]]
    further: dict[str, list[list[str]]]
    item_ids: npt.NDArray[np.object_]

    def without_given(self, ids: Collection[str]) -> AskedOfLog:
        """Pass over some item ids in the histories of callers."""
        is_given = np.isin(self.rows.owners, list(self.caller_histories))
        given = {position: _passing_over(own, ids) for position, own in self.caller_histories.items()}
        return replace(self, rows=self._rows_without(ids, is_given), caller_histories=given)

    def without_logged(self, ids: Collection[str]) -> AskedOfLog:
        """Pass over some item ids in the histories of the log."""
        is_given = np.isin(self.rows.owners, list(self.caller_histories))
        return replace(self, rows=self._rows_without(ids, ~is_given))

    def _rows_without(self, ids: Collection[str], among: Bools) -> Ragged:
        """Return the rows with -1 in the place of some items, among some clicks."""
        is_one = among & (self.rows.values >= 0) & np.isin(self.item_ids[self.rows.values].astype(str), list(ids))
        return Ragged(np.where(is_one, -1, self.rows.values), self.rows.offsets)

    @property
    def names(self) -> list[str]:
        """Return the names of the queries: the user ids."""
        return self.users

    @property
    def history(self) -> list[list[str]]:
        """Look up the clicked item ids of each user, oldest first."""
        lists = [np.where(own < 0, UNKNOWN, self.item_ids[own]).tolist() for own in self.rows]
        return [self.caller_histories.get(position, own) for position, own in enumerate(lists)]

    def flat_ages_hours(self, now_ms: int) -> Float64s | None:
        """Count the hours from each click to the query, float64 [clicks]; NaN for an unknown time, None if all are."""
        return None if self.times_ms is None else np.minimum((now_ms - self.times_ms) / MS_PER_HOUR, _OLDEST_HOURS)

    def ages_hours(self, now_ms: int) -> list[list[float]]:
        """Count the hours from each click to the query, by user; -1 for an unknown time."""
        hours = self.flat_ages_hours(now_ms)
        if hours is None:
            hours = np.full(len(self.rows.values), -1.0)
        known = Ragged(np.where(np.isnan(hours), -1.0, hours), self.rows.offsets)
        return [own.tolist() for own in known]

    @property
    def without_clicks(self) -> Bools:
        """Mark the users without a click on a known item and without further histories; bool [users]."""
        counts = self.rows.where(self.rows.values >= 0).lengths
        for lists in self.further.values():
            counts = counts + np.array([len(own) for own in lists], np.int64)
        return counts == 0


def _passing_over(history: Sequence[str], ids: Collection[str]) -> list[str]:
    """Replace some item ids by an unknown one, so that each click keeps its time."""
    return [UNKNOWN if item in ids else item for item in history]


def require_times(times: Sequence[int], history: Sequence[str], *, times_at: str, history_at: str) -> None:
    """Refuse times unless there is one for each item of a history, each a whole number of int64.

    Raises:
      DataError: the counts differ, or a time is no moment; begins with `times_at` and names `history_at`.
    """
    if isinstance(times, str | bytes) or not isinstance(times, Iterable):
        raise DataError(f"{times_at}: expected a list of times, found {shown(repr(times))}")
    if len(times) != len(history):
        raise DataError(
            f"{times_at}: expected one time for each of the {len(history):,} items that {history_at} "
            f"gives this user, found {len(times):,}"
        )
    for time in times:
        if not _is_moment(time):
            raise DataError(f"{times_at}: expected Unix milliseconds, found {shown(repr(time))}")


def _is_moment(time: Any) -> bool:
    """Tell whether a value is a number of milliseconds that int64 can hold."""
    if isinstance(time, int) and not isinstance(time, bool):  # the usual case, in the least time
        return -_END_MS <= time < _END_MS
    try:
        return not isinstance(time, str | bytes | bool) and -_END_MS <= int(time) < _END_MS
    except (TypeError, ValueError, OverflowError):  # None, NaN, infinity
        return False


def _age_hours(time: Any, now_ms: int) -> float:
    """Count the hours from a click to the query; -1 for a time that is none."""
    return min((now_ms - int(time)) / MS_PER_HOUR, _OLDEST_HOURS) if _is_moment(time) else -1.0


def _lists_of(values: PerUser[Ids] | None, users: Sequence[str], *, what: str) -> dict[str, list[str]]:
    """Read the lists of ids of the asked users; lists of other users are ignored."""
    if not values:
        return {}
    lists = by_id(values, what)
    return {user: ids_of(lists[user], f"{what}[{user!r}]") for user in users if user in lists}
