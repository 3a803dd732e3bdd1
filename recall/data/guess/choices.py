"""Holds what was guessed: a value, why it was chosen, and what is not sure about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from recall.core.errors import ConfigError
from recall.data.guess.columns import Column


class Choice(NamedTuple):
    """Hold one guess.

    Attributes:
      key: key of the experiment file, for people.
      value: what is written there: the name of a column, or a word of the file's.
      why: reason, in a few words.
      unsure: what is not sure; empty where nothing is.
    """

    key: str
    value: str
    why: str
    unsure: str = ""


class Named(NamedTuple):
    """Hold what the caller says himself, in the place of a guess; None where he does not."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    time_unit: str | None = None
    click: str | None = None
    item_id: str | None = None


def best_of(scores: Mapping[str, float], *, least: float) -> tuple[str, list[str]] | None:
    """Choose the name with the highest score, the first one of equal scores.

    Returns:
      The name, and other names whose scores are nearly as high; None where no score reaches `least`.
    """
    if not scores or max(scores.values()) < least:
        return None
    best = max(scores, key=scores.__getitem__)
    near = [name for name, score in scores.items() if name != best and score >= max(least, scores[best] - 0.5)]
    return best, near


def also(others: list[str]) -> str:
    """Say which other columns may be meant."""
    return f"could also be {', '.join(others[:4])}" if others else ""


def require_column(columns: Mapping[str, Column], name: str, *, option: str, file: str) -> Column:
    """Return a column that the caller named.

    Raises:
      ConfigError: the file has no such column; lists its columns.
    """
    if name not in columns:
        raise ConfigError(f"init: {option} {name}: {file} has no such column; its columns are {', '.join(columns)}")
    return columns[name]
