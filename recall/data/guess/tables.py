"""Guesses what the items file and the users file give: title, time of publication, features, vectors beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from recall.core.times import parse_times
from recall.data.guess.choices import Choice, also, best_of
from recall.data.guess.clocks import ClockGuess, unit_of
from recall.data.guess.columns import Column
from recall.data.guess.kinds import Feature, LeftOut, embedding_settings, feature_of, usable_name
from recall.data.guess.words import PUBLISHED, STATE, TIME, TITLE, has_word, names_one_of


class TableGuess(NamedTuple):
    """Hold what a table of items or users gives.

    Attributes:
      features: the features, in the order of the columns.
      left_out: columns that nothing reads, and why.
      title: column that people read; None without, and for users.
      published: column of the time of publication, likewise.
    """

    features: tuple[Feature, ...]
    left_out: tuple[LeftOut, ...]
    title: Choice | None = None
    published: Choice | None = None


def guess_items(
    columns: Mapping[str, Column], item_id: str, clock: ClockGuess, *, log_end_ms: int, now_ms: int
) -> TableGuess:
    """Choose what the items file gives.

    Args:
      columns: columns of the file.
      item_id: the id.
      clock: the log's clock: numbers of a time of publication have its unit, which is free beside typed moments.
      log_end_ms: the latest time in the sample of the log.
      now_ms: the moment of the run.
    """
    left = {name: column for name, column in columns.items() if name != item_id}
    title = _title(left)
    published, refused = _published(left, clock, log_end_ms=log_end_ms, now_ms=now_ms)
    used = {choice.value for choice in (title, published) if choice}
    reasons = {one.column: one for one in refused}
    found = [
        reasons.get(name) or feature_of(column, left, of_items=True, now_ms=now_ms)
        for name, column in left.items()
        if name not in used
    ]
    identity = {"name": usable_name(item_id), "type": "id"}
    if identity["name"] != item_id:
        identity = {"name": identity["name"], "column": item_id, "type": "id"}
    features = [Feature("behaviour", identity, "what is learned of the item itself")]
    features += [one for one in found if isinstance(one, Feature)]
    return TableGuess(tuple(features), tuple(one for one in found if isinstance(one, LeftOut)), title, published)


def guess_users(columns: Mapping[str, Column], user_id: str, *, now_ms: int) -> TableGuess:
    """Choose the features of users."""
    left = {name: column for name, column in columns.items() if name != user_id}
    found = [feature_of(column, left, of_items=False, now_ms=now_ms) for column in left.values()]
    features = [one for one in found if isinstance(one, Feature)]
    return TableGuess(tuple(features), tuple(one for one in found if isinstance(one, LeftOut)))


def vectors_beside(items: Path, rows: int | None, taken: set[str]) -> list[Feature]:
    """Find `.npy` files in the folder of the items file that have a vector for each of its rows.

    Args:
      items: the items file.
      rows: its rows; None where they were not counted.
      taken: names of its columns, and of features.

    Returns:
      One embedding a file, in the order of their names. Only headers are read.
    """
    found = []
    for path in sorted(items.parent.glob("*.npy")) if rows else ():
        try:
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            continue
        if vectors.ndim == 2 and len(vectors) == rows and vectors.dtype.kind == "f" and vectors.shape[1] > 1:
            name = usable_name(path.stem)
            while name in taken:
                name += "_vector"
            settings = {**embedding_settings(name, rows), "path": str(path)}
            why = f"{rows:,} vectors of {vectors.shape[1]} numbers, as many as items"
            found.append(
                Feature("meta", settings, why, f"is row i of {path.name} the vector of line i of {items.name}?")
            )
    return found


def _title(columns: Mapping[str, Column]) -> Choice | None:
    scores = {
        name: 1.0 * has_word(name, TITLE) + 1.0 * names_one_of(name, TITLE) + len(column.distinct) / column.filled
        for name, column in columns.items()
        if column.kind == "text" and has_word(name, TITLE) and column.filled
    }
    found = best_of(scores, least=1.5)
    return Choice("items.title", found[0], "shown in reports and queries", also(found[1])) if found else None


def _published(
    columns: Mapping[str, Column], clock: ClockGuess, *, log_end_ms: int, now_ms: int
) -> tuple[Choice | None, list[LeftOut]]:
    """Choose the time of publication; returns it, and times that are none, with the reason."""
    if clock.unit.value == "order":
        return None, []
    refused, scores = [], {}
    for name, column in columns.items():
        if not has_word(name, PUBLISHED | TIME) or has_word(name, STATE):
            continue
        unit = unit_of(column, now_ms=now_ms)
        if unit is None:
            continue
        if unit != "iso" and unit != clock.unit.value and not clock.is_typed:
            why = f"is a time in {unit}, and the log is in {clock.unit.value}; write both in one unit"
            refused.append(LeftOut(name, why))
            continue
        times = parse_times(column.values, unit)
        if times.unreadable.any():
            refused.append(LeftOut(name, "is a time, but some values are not"))
        elif np.median(times.ms[~times.missing]) > log_end_ms:
            refused.append(LeftOut(name, "is a time after the log: of the table, and of no publication"))
        else:
            scores[name] = 1.0 + 2.0 * has_word(name, PUBLISHED)
    found = best_of(scores, least=1.0)
    if not found:
        return None, refused
    name, others = found
    missing = columns[name].rows - columns[name].filled
    why = f"such as {pc.first(columns[name].text.drop_null()).as_py()}" + (
        f", missing in {missing:,} rows" if missing else ""
    )
    unsure = also(others) if has_word(name, PUBLISHED) else "a time; is it when the item could first be shown?"
    return Choice("items.published", name, why, unsure), refused
