"""What callers give of the users they ask for: ids, clicked items, times; checked, and padded for the query model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import tensorflow as tf

from recall.core.errors import DataError, shown
from recall.core.tables import id_list
from recall.core.times import MS_PER_HOUR

_T = TypeVar("_T")


class Asked(NamedTuple):
    """The users of a query.

    Attributes:
      names: what the query calls them.
      users: their ids; of somebody whom no file knows "\\0", which is no id.
      history: clicked item ids, oldest first.
      clicked_ms: when each was clicked (Unix milliseconds); None where nothing is known.
      further: by name of a further history, item ids of each user, oldest first.
    """

    names: list[str]
    users: list[str]
    history: list[list[str]]
    clicked_ms: Sequence[Iterable[int] | None]
    further: dict[str, list[list[str]]]

    @property
    def given(self) -> dict[int, list[str]]:
        """Clicked item ids that the caller gave, by position of the user: here all."""
        return dict(enumerate(self.history))

    def ages_hours(self, now_ms: int) -> list[list[float]]:
        """Hours from each click to the query; -1 where no time is given."""
        return [
            [-1.0] * len(history) if times is None else [(now_ms - int(time)) / MS_PER_HOUR for time in times]
            for history, times in zip(self.history, self.clicked_ms, strict=True)
        ]


def ids_of(values: Iterable[Any], what: str) -> list[str]:
    """Ids as the log's are read: 12 and 12.0 are "12", text is stripped.

    Raises:
      DataError: a text in the place of a list, ids of several types, or a missing one; begins with `what`.
    """
    if isinstance(values, str | bytes):
        raise DataError(
            f"{what}: expected a list of ids, found the text {shown(repr(values))}; write [{shown(repr(values))}]"
        )
    values = list(values)
    if all(type(value) is str and value.isascii() and value and value == value.strip() for value in values):
        return values  # as they come from who has read ids before: Arrow takes 95 us even for one
    ids = id_list(values, what=what)
    if ids.null_count:
        raise DataError(f"{what}: {ids.null_count:,} of {len(ids):,} ids are missing or empty; remove them")
    return list(ids.to_pylist())


def by_id(values: Mapping[Any, Any] | None, what: str) -> dict[str, Any]:
    """A mapping under ids as `ids_of` reads them."""
    return dict(zip(ids_of(values or (), what), (values or {}).values(), strict=True))


def require_times(times: Sequence[int], history: Sequence[str], *, times_at: str, history_at: str) -> None:
    """Raises DataError if there is not one time for each item of a history."""
    if len(times) != len(history):
        raise DataError(
            f"{times_at}: expected one time for each of the {len(history):,} items that {history_at} "
            f"gives this user, found {len(times):,}"
        )


def padded(lists: Sequence[Sequence[_T]], padding: _T, dtype: tf.DType) -> tf.Tensor:
    """Lists as the query model takes them: [lists, longest], padded at the end; no list at all has a width too."""
    width = max([1, *map(len, lists)])
    rows = [[*values, *[padding] * (width - len(values))] for values in lists]
    return tf.reshape(tf.constant(rows, dtype), [len(lists), width])
