"""Guesses the columns of a log: users, items and clicks; `clocks.py` guesses the times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from recall.core.errors import ConfigError, DataError
from recall.data.guess.choices import Choice, Named, also, best_of, require_column
from recall.data.guess.columns import Column, words_of
from recall.data.guess.words import (
    ALSO_CLICK,
    CLICK,
    EXPOSURE_VALUES,
    ITEM,
    KIND_OF_EVENT,
    RATING,
    SESSION,
    USER,
    has_word,
    names_one_of,
)

_MOST_GRADES = 21
_FITTING = 0.5


class ClickGuess(NamedTuple):
    """Hold the guessed click rule.

    Attributes:
      click: the column, or `every row`.
      at_least: the smallest value that is a click; None for 1.
      others: further columns that say that a row was liked, bought ...: for `events.weight`.
    """

    click: Choice
    at_least: float | None
    others: tuple[str, ...]


def guess_item_id(items: Mapping[str, Column], events: Mapping[str, Column], *, named: Named, file: str) -> Choice:
    """Choose the id of the items file.

    Raises:
      ConfigError: no column has a value of its own in every row; says which columns there are.
    """
    if named.item_id:
        column = require_column(items, named.item_id, option="--item-id", file=file)
        if not column.is_key:
            raise ConfigError(f"init: --item-id {column.name}: some rows of {file} have no id or the id of another row")
        return Choice("items.id", column.name, "as you say")
    scores = {}
    for place, (name, column) in enumerate(items.items()):
        if column.is_key and column.kind in ("text", "whole"):
            score = 3.0 * names_one_of(name, ITEM) + 2.0 * (name in events or name == named.item)
            scores[name] = (
                score + 1.5 * (words_of(name) == ("id",)) + 1.0 * (place == 0) + 0.5 * ("id" in words_of(name))
            )
            scores[name] += max((_overlap(other, column) for other in events.values()), default=0.0)
    found = best_of(scores, least=1.0)
    if not found:
        named_key = next((n for n, c in items.items() if names_one_of(n, ITEM) or words_of(n) == ("id",)), None)
        twice = f" ({named_key} repeats or is missing in some rows)" if named_key else ""
        raise ConfigError(
            f"init: {file}: no column has a value of its own in every row{twice}; its columns are {', '.join(items)}. "
            "Keep one row an item, or name the column with --item-id COLUMN"
        )
    return Choice("items.id", found[0], "one value a row", also(found[1]))


def guess_item(events: Mapping[str, Column], item_id: Column, *, named: Named, file: str, is_whole: bool) -> Choice:
    """Choose the log's column of items.

    Args:
      events: columns of the log.
      item_id: the ids of the items file.
      named: what the caller says himself.
      file: name of the log, for errors.
      is_whole: whether all items were looked at.

    Raises:
      ConfigError: no column fits, or the named column does not; says which columns there are.
    """
    if named.item:
        column, others, why = require_column(events, named.item, option="--item", file=file), [], "as you say"
    else:
        scores = {
            name: 3.0 * names_one_of(name, ITEM) + 3.0 * (name == item_id.name) + 2.0 * _overlap(column, item_id)
            for name, column in events.items()
            if column.can_be_id and not names_one_of(name, USER)
        }
        found = best_of(scores, least=1.5)
        if not found:
            raise ConfigError(
                f"init: {file}: no column looks like an item's id (column {item_id.name} of the items file); its "
                f"columns are {', '.join(events)}. Name it with --item COLUMN"
            )
        column, others = events[found[0]], found[1]
        why = f"like column {item_id.name} of the items file" if found[0] != item_id.name else "as in the items file"
    share = _overlap(column, item_id)
    if is_whole and share == 0.0:
        raise ConfigError(
            f"init: {file}: none of the ids of column {column.name} (such as {column.shown(2)}) is in column "
            f"{item_id.name} of the items file (such as {item_id.shown(2)}); name others with --item and --item-id"
        )
    unsure = also(others)
    if is_whole and share < _FITTING:
        unsure = f"only {share:.0%} of its ids are in the items file"
    return Choice("events.item", column.name, why, unsure)


def share_known(column: Column, item_id: Column) -> float:
    """Return the share of a column's different ids that the items file has."""
    return _overlap(column, item_id)


def guess_user(
    events: Mapping[str, Column], users: Mapping[str, Column], item: str, *, named: Named, file: str
) -> Choice:
    """Choose the log's column of users.

    Raises:
      ConfigError: nothing looks like a user; says which columns there are.
    """
    if named.user:
        require_column(events, named.user, option="--user", file=file)
        return Choice("events.user", named.user, "as you say")
    keys = {name for name, column in users.items() if column.is_key}
    scores = {
        name: 3.0 * names_one_of(name, USER) + 1.0 * names_one_of(name, SESSION) + 2.0 * (name in keys)
        for name, column in events.items()
        if column.can_be_id and name != item
    }
    found = best_of(scores, least=1.0)
    if not found:
        raise ConfigError(
            f"init: {file}: no column looks like a user's id; its columns are {', '.join(events)}. Name it with --user "
            "COLUMN"
        )
    name, others = found
    unsure = also(others)
    if names_one_of(name, SESSION) and not names_one_of(name, USER):
        unsure = "sessions stand for users: what a user clicked in another session is not known"
    elif events[name].is_key:
        unsure = "every row has another user, so that nobody has a history"
    return Choice("events.user", name, "its name", unsure)


def guess_click(events: Mapping[str, Column], taken: set[str], *, named: Named, file: str) -> ClickGuess:
    """Choose the column that says whether a row was clicked; without one every row is a click.

    Raises:
      DataError: exposures and clicks are told apart by text, which the reader of logs does not know.
    """
    left = {name: column for name, column in events.items() if name not in taken}
    if named.click and named.click != "none":
        column = require_column(events, named.click, option="--click", file=file)
        others = tuple(name for name, one in left.items() if _is_flag(one) and name != column.name)
        if not len(column.numbers):
            raise ConfigError(
                f"init: --click {column.name}: {file} has {column.shown()} there; expected numbers, 1 for a click"
            )
        return ClickGuess(Choice("events.click", column.name, "as you say"), _threshold(column), others)
    flags = [name for name, column in left.items() if _is_flag(column)]
    scores = {name: 3.0 * has_word(name, CLICK) + 1.0 * has_word(name, ALSO_CLICK) for name in flags}
    found = best_of(scores, least=1.0) if named.click is None else None
    if found:
        name, near = found
        unsure = "" if has_word(name, CLICK) else f"its name is not click; {also(near)}".rstrip("; ")
        rest = tuple(other for other in flags if other != name)
        return ClickGuess(Choice("events.click", name, "0 and 1, one row an exposure", unsure), None, rest)
    for name, column in left.items() if named.click is None else ():
        if has_word(name, RATING) and len(column.numbers) and 2 < len(column.distinct) <= _MOST_GRADES:
            least = _threshold(column)
            unsure = f"from which {name} on a row is a click is your choice"
            return ClickGuess(Choice("events.click", name, "grades", unsure), least, tuple(flags))
    return ClickGuess(_every_row(left, named=named, file=file), None, tuple(flags))


def _every_row(left: Mapping[str, Column], *, named: Named, file: str) -> Choice:
    for name, column in left.items():
        values = {value.lower() for value in column.distinct} if len(column.distinct) <= _MOST_GRADES else set()
        if column.kind == "text" and has_word(name, KIND_OF_EVENT) and values and named.click is None:
            if len(values) > 1 and values & EXPOSURE_VALUES:
                raise DataError(
                    f"init: {file}: column {name} tells exposures from clicks by text ({column.shown()}); write one "
                    "column of numbers, 1 for a click and 0 for an exposure, or --click none if every row is a click"
                )
            return Choice(
                "events.click", "every row", "no column of 0 and 1", f"{name} has {', '.join(sorted(values)[:6])}"
            )
    why = "as you say" if named.click else "no column of 0 and 1"
    unsure = "" if named.click else "is every row a click? --click COLUMN names what tells"
    return Choice("events.click", "every row", why, unsure)


def _is_flag(column: Column) -> bool:
    """Tell whether a column holds 0 and 1: both of them, unless its name is click."""
    values = set(np.unique(column.numbers))
    return values == {0.0, 1.0} or (has_word(column.name, CLICK) and bool(values) and values <= {0.0, 1.0})


def _threshold(column: Column) -> float | None:
    """Return four fifths of the best grade: 4 of 5, 8 of 10; None for flags and for counts of clicks."""
    best = float(column.numbers.max())
    if best <= 1 or len(column.distinct) > _MOST_GRADES or not has_word(column.name, RATING):
        return None
    return round(0.8 * best, 1)


def _overlap(column: Column, ids: Column) -> float:
    if column.is_list or not column.distinct or column.kind in ("moment", "truth"):
        return 0.0
    return len(column.distinct & ids.distinct) / len(column.distinct)
