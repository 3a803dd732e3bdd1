"""Guesses which column of a log is its clock, and in which unit."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple, cast, get_args

import numpy as np
import pyarrow.compute as pc

from recall.core.errors import ConfigError
from recall.core.times import TimeUnit, parse_times
from recall.data.clock import AHEAD_MS, MS_PER_UNIT, span_text
from recall.data.guess.choices import Choice, Named, also, best_of, require_column
from recall.data.guess.columns import Column, words_of
from recall.data.guess.words import IDISH, ORDER, TIME, has_word, names_one_of

_1990_MS = 631_152_000_000
_DAY_MS = 86_400_000
_TEXTS = 2_000
_READABLE = 0.95
_WRITTEN_DATE = re.compile(r"\d{1,4}[./-](\d{1,2}|[A-Za-z]{3})[./-]\d{2,4}")
_UNIT_WORDS = {"ms": "ms", "us": "us", "ns": "ns", "s": "s", "sec": "s", "seconds": "s", "millis": "ms"}


class ClockGuess(NamedTuple):
    """Hold the guessed clock of a log.

    Attributes:
      time: the column.
      unit: s, ms, us, ns, iso or order.
      is_typed: whether the values are typed moments, which say their unit themselves.
      by_day: whether all times are midnights, so that within a day nothing is known.
    """

    time: Choice
    unit: Choice
    is_typed: bool
    by_day: bool


def unit_of(column: Column, *, now_ms: int) -> TimeUnit | None:
    """Find the unit in which a column's values lie between 1990 and tomorrow; `iso` for moments and text of days."""
    if column.kind == "moment":
        return "iso"
    if column.kind == "text":
        text = column.text.drop_null().slice(0, _TEXTS)
        times = parse_times(text, "iso")
        return "iso" if len(text) and (~times.unreadable).mean() >= _READABLE else None
    if len(column.numbers) == 0 or column.kind == "truth":
        return None
    low, middle, high = np.quantile(column.numbers, [0.05, 0.5, 0.95])
    for unit, size in MS_PER_UNIT.items():
        if low * size >= _1990_MS and high * size <= now_ms + AHEAD_MS and middle > 0:
            return cast("TimeUnit", unit)
    return None


def is_written_date(column: Column) -> bool:
    """Tell whether a column holds dates as text in a form that is not ISO 8601, such as 11/12/2019."""
    text = column.text.drop_null().slice(0, 100).to_pylist() if column.kind == "text" else []
    return bool(text) and all(_WRITTEN_DATE.match(value) for value in text)


def guess_clock(
    columns: Mapping[str, Column], *, taken: Collection[str], named: Named, now_ms: int, file: str
) -> ClockGuess:
    """Choose the column of times and its unit.

    Args:
      columns: columns of the log.
      taken: names of the columns of users and items.
      named: what the caller says himself.
      now_ms: the moment of the run.
      file: name of the log, for errors.

    Raises:
      ConfigError: nothing looks like a time; says which columns there are, and what to do.
    """
    units = {name: unit_of(column, now_ms=now_ms) for name, column in columns.items() if name not in taken}
    if named.time:
        column, others, why = require_column(columns, named.time, option="--time", file=file), [], "as you say"
        unit = unit_of(column, now_ms=now_ms)
    else:
        scores = {name: _score(columns[name], unit) for name, unit in units.items()}
        found = best_of(scores, least=2.0)
        if not found:
            raise ConfigError(_nothing(columns, taken=taken, file=file))
        column, others = columns[found[0]], found[1]
        unit, why = units[found[0]], "its name and its values"
    chosen, unsure = _unit(column, unit, named)
    typed = column.kind == "moment"
    by_day = chosen != "order" and _is_by_day(column, cast("TimeUnit", chosen))
    reason = "typed moments" if typed else _reason(column, chosen)
    time = Choice("events.time", column.name, why, also(others))
    return ClockGuess(time, Choice("events.time_unit", chosen, reason, unsure), typed, by_day)


def _score(column: Column, unit: TimeUnit | None) -> float:
    by_name = has_word(column.name, TIME) or words_of(column.name)[-1:] == ("ms",)
    if unit is None:
        # Positions and clocks that count from a moment of their own: only a name tells them.
        ordered = column.kind in ("whole", "number") and len(column.distinct) > 2
        if ordered and names_one_of(column.name, TIME | set(_UNIT_WORDS)):
            return 2.5
        return 2.0 if ordered and names_one_of(column.name, ORDER - IDISH) else 0.0
    score = 2.0 if by_name else 0.0
    score += 2.0 if column.kind == "moment" or column.kind == "text" else 1.0
    # Of times on one day and times to the second the finer ones: more of them differ.
    score += min(0.9, len(column.distinct) / max(1, column.filled))
    is_id = bool(set(words_of(column.name)) & {"id", "key", "uuid", "code", "number"})
    return score - (2.0 if is_id and not by_name else 0.0)


def _unit(column: Column, unit: TimeUnit | None, named: Named) -> tuple[str, str]:
    """Choose the unit; returns it, and what is not sure about it."""
    if named.time_unit:
        if named.time_unit not in get_args(TimeUnit):
            raise ConfigError(f"init: --time-unit {named.time_unit}: expected one of {', '.join(get_args(TimeUnit))}")
        return named.time_unit, ""
    if unit:
        return unit, ""
    if column.kind not in ("whole", "number"):
        hint = f"init: column {column.name} holds {column.shown(1)!r}; write times as 2024-01-31T12:00:00 or as numbers"
        raise ConfigError(f"{hint}, or name another column with --time")
    for word in reversed(words_of(column.name)):
        if word in _UNIT_WORDS:
            return _UNIT_WORDS[word], "the times are not of our days; the unit is from the name"
    low, high = int(column.numbers.min()), int(column.numbers.max())
    return "order", f"values from {low} to {high} are no dates, so they are taken as positions; see --time-unit"


def _reason(column: Column, unit: str) -> str:
    if unit == "order":
        return "positions: which click came first"
    times = parse_times(column.values, cast("TimeUnit", unit))
    ms = times.ms[~(times.missing | times.unreadable)]
    return f"{column.shown(1)} lies {span_text(ms)}" if len(ms) == 1 else f"the sample lies {span_text(ms)}"


def says_no_zone(column: Column, unit: str) -> bool:
    """Tell whether times say the hour of the day and not their offset from UTC."""
    if unit != "iso":
        return False
    return parse_times(column.values.slice(0, _TEXTS), "iso").without_zone > 0


def _is_by_day(column: Column, unit: TimeUnit) -> bool:
    times = parse_times(column.values, unit)
    ms = times.ms[~(times.missing | times.unreadable)]
    return len(ms) > 0 and bool((ms % _DAY_MS == 0).all())


def _nothing(columns: Mapping[str, Column], *, taken: Collection[str], file: str) -> str:
    for name, column in columns.items():
        if name not in taken and is_written_date(column):
            first = pc.first(column.text).as_py()
            return (
                f"init: {file}: column {name} holds dates such as {first}, which could be read in several ways; write "
                "them as 2024-01-31T12:00:00 or as seconds since 1970"
            )
    return (
        f"init: {file}: no column looks like a time; its columns are {', '.join(columns)}. Name it with --time COLUMN "
        "(and --time-unit order where it is a position in the user's history)"
    )
