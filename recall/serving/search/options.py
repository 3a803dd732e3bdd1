"""Holds the options of a search: length of the lists, filters, exclusions, caps, cold share, budget and fallback."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np

from recall.core.errors import DataError
from recall.core.whole_numbers import require_at_least
from recall.serving.ids import Ids, ids_of
from recall.serving.search.filters import NO_FILTERS, Filters

Fallback = bool | Literal["filtered"]
Exclude = Ids | Mapping[str, Ids] | Mapping[int, Ids]


@dataclass(frozen=True, init=False)
class SearchOptions:
    """Set what the lists of a search have to keep.

    Example:
      >>> options = recall.SearchOptions(k=20, filters={"deny": ["i003"]}, caps={"author_id": 2})
      >>> recall.Recaller.load("runs/mine").similar(["i010"], options=options).ids.shape
      (1, 20)

    Attributes:
      k: candidates per query.
      filters: filters on the items, e.g. {"where": [{"column": "category", "in": ["news"]}]}: see `Filters`. Where k
        items remain, a list has k.
      exclude: item ids that a list may not hold, for all queries or by query. Ids that the index lacks are ignored.
      caps: by column of text or tags, the largest number of items of one value in a list, e.g. {"author_id": 2}.
      min_cold_share: share of each list, rounded up, that has no exposure yet, while filters and caps allow such items.
        Lists stay in the order of their scores.
      budget: exposures up to which an item counts as having none yet for `min_cold_share`, released step by step: of
        (20, 100) every item may get 20, and an item that does well 100; see `within_budget`. Default: one exposure.
      fallback: whether users without clicks get popular and fresh items (see `fallback.py`), unless features bring a
        profile. True also fills, from the filters' lists of ids alone, a list that the filters' predicates leave empty;
        "filtered" leaves it empty. `Candidates.sources` names the source of each list.

    Raises:
      DataError: k or a cap is below 1, the share is outside 0 to 1, the fallback has another name, or filters have
        another form.
    """

    k: int
    filters: Filters
    exclude: Exclude | None
    caps: Mapping[str, int]
    min_cold_share: float
    budget: tuple[int, ...]
    fallback: Fallback

    def __init__(
        self,
        *,
        k: int = 100,
        filters: Filters | Mapping[str, Any] | None = None,
        exclude: Exclude | None = None,
        caps: Mapping[str, int] | None = None,
        min_cold_share: float = 0.0,
        budget: Sequence[int] = (),
        fallback: Fallback = False,
    ) -> None:
        k = require_at_least(1, k, what="k")
        if fallback not in (True, False, "filtered"):
            raise DataError(f"fallback: expected true, false or filtered, found {fallback!r}")
        self.__dict__.update(  # the way around `frozen`, at a tenth of the time of object.__setattr__ for each
            k=k,
            caps=check_caps(caps or {}),
            filters=Filters.read(filters),
            exclude=exclude if exclude is None or isinstance(exclude, Mapping) else tuple(ids_of(exclude, "exclude")),
            min_cold_share=min_cold_share,
            budget=check_budget(budget),
            fallback=fallback,
        )
        if not cold_items(k, min_cold_share) and budget:
            raise DataError("budget: says which items min_cold_share is for, which is 0; set min_cold_share, e.g. 0.1")

    @classmethod
    def read(cls, options: SearchOptions | None, keywords: Mapping[str, Any]) -> SearchOptions:
        """Take options, or build them from the short form: the attributes as keywords.

        Raises:
          DataError: keywords beside options; or as the class.
        """
        if options is None:
            is_usual = keywords.keys() == {"k"} and type(keywords["k"]) is int
            return _only(keywords["k"]) if is_usual else cls(**keywords)
        if twice := [name for name, value in keywords.items() if value is not None]:
            raise DataError(f"options: SearchOptions and {', '.join(twice)} beside them; set these in SearchOptions")
        return options

    @property
    def min_cold(self) -> int:
        """Return the number of cold items of a list."""
        return cold_items(self.k, self.min_cold_share)

    @property
    def needs_facts(self) -> bool:
        """Tell whether the search reads attributes or posteriors of items."""
        return bool(
            (self.filters is not NO_FILTERS and self.filters != NO_FILTERS)
            or self.caps
            or self.min_cold
            or self.fallback
        )


class SearchKeywords(TypedDict, total=False):
    """Name the attributes of `SearchOptions` that calls may give as keywords."""

    k: int
    filters: Filters | Mapping[str, Any] | None
    exclude: Exclude | None
    caps: Mapping[str, int] | None
    min_cold_share: float
    budget: Sequence[int]
    fallback: Fallback


@functools.lru_cache(typed=True)
def _only(k: int) -> SearchOptions:
    """Return the options of the usual request, which sets k alone."""
    return SearchOptions(k=k)


def cold_items(k: int, share: float) -> int:
    """Count the cold items in a list of k, rounded up: half of 5 is 3.

    Raises:
      DataError: the share is not within 0 and 1.
    """
    if not isinstance(share, int | float | np.floating) or not 0 <= share <= 1:
        raise DataError(f"min_cold_share: expected a number from 0 to 1, found {share}")
    return math.ceil(round(share * k, 6))  # 0.7 * 10 is a little more than 7 in binary


def check_budget(steps: Sequence[int]) -> tuple[int, ...]:
    """Check the steps of a budget of exposures.

    Raises:
      DataError: they are no whole numbers of at least 1, or do not rise.
    """
    wrong = [step for step in steps if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 1]
    if wrong or list(steps) != sorted(set(steps)):
        raise DataError(f"budget: expected rising whole numbers of exposures, e.g. 20, 100; found {list(steps)}")
    return tuple(int(step) for step in steps)


def check_caps(caps: Mapping[str, int]) -> dict[str, int]:
    """Check caps by column.

    Raises:
      DataError: a limit is no whole number of at least 1.
    """
    for column, limit in caps.items():
        if isinstance(limit, bool) or not isinstance(limit, int | np.integer) or limit < 1:
            raise DataError(f"caps[{column!r}]: expected a whole number of items, at least 1, found {limit!r}")
    return {str(column): int(limit) for column, limit in caps.items()}


def parse_caps(texts: Iterable[str]) -> dict[str, int]:
    """Parse caps by column from texts like author_id=2.

    Raises:
      DataError: a text has another form, or a column stands twice.
    """
    caps: dict[str, int] = {}
    for text in texts:
        column, _, limit = text.rpartition("=")
        if not column or not limit.isdecimal() or column in caps:
            raise DataError(f"cap: expected COLUMN=N, each column once, e.g. author_id=2; found {text}")
        caps[column] = int(limit)
    return check_caps(caps)
