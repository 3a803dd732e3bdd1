"""Tells what a column of items or users is to a model: a category, tags, a number, an id, or nothing of use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow.compute as pc

from recall.data.guess.clocks import is_written_date, unit_of
from recall.data.guess.columns import Column, words_of
from recall.data.guess.words import AUTHOR, CODE, ITEM, PUBLISHED, RANGES, RESULTS, STATE, TIME, USER, has_word

Place: TypeAlias = Literal["user", "behaviour", "meta"]
_FEW, _MANY, _MANY_TAGS = 20, 50, 100
_LONG_TEXT, _LONG_TAG, _WORDS = 60, 40, 4
_ID_LIKE = 0.5  # the catalogue's reader refuses categories with more values per row
_RANGE = re.compile(r"^[\[(][^\",{}]*,[^\",{}]*[\])]$|^\d+\s*[-~]\s*\d+$")
_SEPARATORS = {"|": 0.01, ";": 0.05, ",": 0.05}  # -> share of the values that have it
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


class Feature(NamedTuple):
    """Hold one guessed feature: where it belongs, its settings as in the experiment file, and why."""

    place: Place
    settings: dict[str, Any]
    why: str
    unsure: str = ""


class LeftOut(NamedTuple):
    """Hold a column that no feature reads, and why."""

    column: str
    why: str


def feature_of(column: Column, columns: Mapping[str, Column], *, of_items: bool, now_ms: int) -> Feature | LeftOut:
    """Tell what a column is to a model.

    Args:
      column: the column.
      columns: all columns of its table, by name.
      of_items: whether it describes items, or else users.
      now_ms: the moment of the run, for what may be a time.
    """
    if reason := _useless(column, columns, of_items=of_items, now_ms=now_ms):
        return LeftOut(column.name, reason)
    place: Place = "meta" if of_items else "user"
    if column.kind == "vector":
        if not of_items:
            return LeftOut(column.name, "vectors are read of items only")
        lengths = pc.list_value_length(column.values).drop_null()
        return Feature(place, embedding_settings(column, column.rows), f"lists of {pc.max(lengths)} numbers")
    if column.kind == "tags":
        return _tags(column, place, pc.list_flatten(column.values).drop_null().to_pylist(), {})
    if of_items and (found := _author(column)):
        return found
    if column.kind == "text":
        return _of_text(column, place)
    if column.kind == "truth":
        return Feature(place, _settings(column, "category"), "true and false")
    distinct = len(column.distinct)
    is_code = has_word(column.name, CODE) or distinct <= _FEW
    if column.kind == "whole" and is_code:
        return _category(column, place)
    return _number(column, place)


def embedding_settings(column: Column | str, rows: int) -> dict[str, Any]:
    """Return the settings of an embedding: clusters where there are items enough to fill them."""
    name = column if isinstance(column, str) else column.name
    named = _settings(column, "embedding") if isinstance(column, Column) else {"name": name, "type": "embedding"}
    return {**named, "clusters": [16, 64]} if rows >= 1_000 else named


def usable_name(name: str) -> str:
    """Make the name of a feature from the name of a column, which may hold any character."""
    if _NAME.match(name):
        return name
    found = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "column"
    return found if _NAME.match(found) else f"_{found}"


def _settings(column: Column, kind: str) -> dict[str, Any]:
    name = usable_name(column.name)
    named = {"name": name} if name == column.name else {"name": name, "column": column.name}
    return {**named, "type": kind}


def _useless(column: Column, columns: Mapping[str, Column], *, of_items: bool, now_ms: int) -> str:
    """Say why a column is of no use, or harmful; empty where it may be used."""
    name, is_number = column.name, column.kind in ("whole", "number", "truth")
    if column.kind == "empty":
        return "has no values"
    if column.kind == "other":
        return "lists or structures that no feature reads"
    if column.is_constant:
        return f"is the same in all rows: {column.shown(1)}"
    if wider := [f"{name}_{word}" for word in RANGES if f"{name}_{word}" in columns]:
        return f"is told by {wider[0]}"
    if has_word(name, STATE):
        return "is the state when the table was made, later than the log"
    if is_number and has_word(name, RESULTS):
        return "is a result of clicks: of the whole time, so that an example would see its own future"
    if column.kind == "moment" or (is_number and unit_of(column, now_ms=now_ms) and not has_word(name, CODE)):
        return "is a time; age is part of the posterior" if of_items else "is a time"
    if is_written_date(column) or (has_word(name, PUBLISHED | TIME) and unit_of(column, now_ms=now_ms) == "iso"):
        return "is a date" + ("; as 2024-01-31 it could be items.published" if is_written_date(column) else "")
    others = USER if of_items else ITEM
    if "id" in words_of(name) and has_word(name, others) and column.kind != "tags":
        return f"names {'users' if of_items else 'items'}"
    return ""


def _author(column: Column) -> Feature | LeftOut | None:
    """Tell whether a column names who made an item, or what it belongs to: behaviour is learned of such an id."""
    words = set(words_of(column.name))
    distinct = len(column.distinct)
    is_named = bool(words & AUTHOR) and not words & {"type", "name", "category"}
    is_id = is_named or (bool(words & {"id", "uuid"}) and not words & CODE - {"id", "ids"} and distinct > _MANY)
    if not is_id or column.kind not in ("text", "whole") or _separator(column):
        return None
    if distinct == column.filled:
        return LeftOut(column.name, "names each item anew, and says no more than the item's id")
    if distinct <= _FEW and "id" not in words:
        return None
    settings = {**_settings(column, "id"), "min_count": 2}
    share = f"{distinct:,} of them among {column.filled:,} items"
    unsure = "" if is_named else "an id that several items share; as `category` under meta if it is content"
    return Feature("behaviour", settings, share, unsure)


def _of_text(column: Column, place: Place) -> Feature | LeftOut:
    text = column.text.drop_null()
    lengths = pc.utf8_length(text).to_numpy(zero_copy_only=False)
    first = text.slice(0, 1_000).to_pylist()
    if sum(value[0] in "[{" and not _RANGE.match(value[: 2 * _FEW]) for value in first) > 0.5 * len(first):
        return LeftOut(column.name, "holds JSON; write lists as Parquet lists, or joined by |")
    if separator := _separator(column):
        parts = [tag for value in text.to_pylist() for tag in value.split(separator) if tag.strip()]
        return _tags(column, place, parts, {"separator": separator})
    words = pc.mean(pc.count_substring(text, " ")).as_py()
    if lengths.mean() > _LONG_TEXT or (words >= _WORDS - 1 and len(column.distinct) > _ID_LIKE * len(text)):
        return LeftOut(column.name, "is free text: make vectors of it, see the guide to content vectors")
    return _category(column, place)


def _separator(column: Column) -> str:
    """Find what separates tags in texts; empty where nothing does."""
    text = column.text.drop_null()
    if column.kind != "text" or not len(text) or pc.mean(pc.utf8_length(text)).as_py() > 4 * _LONG_TEXT:
        return ""
    values = text.slice(0, 5_000).to_pylist()
    if sum(bool(_RANGE.match(value)) for value in values) > 0.2 * len(values):
        return ""  # [100,1k) is one value
    if sum(value[:1] in "[{" for value in values) > 0.5 * len(values):
        return ""  # JSON
    for separator, least in _SEPARATORS.items():
        if sum(separator in value for value in values) < max(1, least * len(values)):
            continue
        parts = [part.strip() for value in values for part in value.split(separator)]
        # Sentences have commas, too: their parts are of many words, and none comes twice.
        if np.mean([part.count(" ") for part in parts]) > _WORDS - 2:
            continue
        repeats = len(set(parts)) <= (0.95 if separator != "," else 0.6) * len(parts)
        if np.mean([len(part) for part in parts]) <= _LONG_TAG and repeats:
            return separator
    return ""


def _tags(column: Column, place: Place, parts: list[Any], more: dict[str, Any]) -> Feature:
    distinct = len(set(parts))
    settings = {**_settings(column, "tags"), **more}
    if distinct > _MANY_TAGS:
        settings["min_count"] = 2
    return Feature(place, settings, f"{distinct:,} tags, {len(parts) / max(1, column.filled):.1f} a row")


def _category(column: Column, place: Place) -> Feature | LeftOut:
    distinct = len(column.distinct)
    if column.filled >= _FEW and distinct > _ID_LIKE * column.filled:
        return LeftOut(column.name, f"{distinct:,} values in {column.filled:,} rows name rows and describe none")
    settings = _settings(column, "category")
    if distinct > _MANY:
        settings["min_count"] = 5
    return Feature(place, settings, f"{distinct:,} values: {column.shown()}")


def _plain(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1_000 else f"{number:.4g}"


def _number(column: Column, place: Place) -> Feature:
    settings = _settings(column, "number")
    low, middle, high = np.quantile(column.numbers, [0.0, 0.5, 0.99])
    if low >= 0 and high > 8 * max(middle, 1e-12):
        settings["log"] = True
    low, middle, high = (_plain(number) for number in (low, middle, column.numbers.max()))
    return Feature(place, settings, f"from {low} to {high}, half below {middle}")
