"""Evaluates the predicates of a filter: each once, and timeless ones once for all requests that repeat them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from recall.core.arrays import Bools
from recall.serving.items.row_facts import RowFacts


class Condition(Protocol):
    """Mark items; `filters.Predicate` is one. Equal conditions are equal as keys."""

    @property
    def newer_than_hours(self) -> float | None:
        """Return the age that the condition asks for; None where it asks for none."""

    def mask(self, items: RowFacts, *, now_ms: int, what: str) -> Bools:
        """Mark the items that meet the condition."""


def meeting_all(conditions: Sequence[Condition], items: RowFacts, *, now_ms: int) -> Bools:
    """Mark the items that meet all conditions, bool [items], which the caller may not write to.

    Args:
      conditions: the conditions, at least one.
      items: attributes and posteriors by row.
      now_ms: the moment of the query (Unix milliseconds), for ages.

    Raises:
      ArtifactError, DataError: as `Predicate.mask`; names the first place of the condition.
    """
    places: dict[Condition, int] = {}
    for place, condition in enumerate(conditions):
        places.setdefault(condition, place)

    def joint(chosen: Sequence[Condition]) -> Bools:
        mask = np.ones(len(items), bool)
        for condition in chosen:
            mask &= condition.mask(items, now_ms=now_ms, what=f"filters.where[{places[condition]}]")
        return mask

    aged = [condition for condition in places if condition.newer_than_hours is not None]
    timeless = tuple(condition for condition in places if condition.newer_than_hours is None)
    if not timeless:
        return joint(aged)
    mask = items.remembered(timeless, lambda: joint(timeless))
    return mask & joint(aged) if aged else mask
