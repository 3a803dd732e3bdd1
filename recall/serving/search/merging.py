"""Merge steps: lists of k from ranked candidates, with at most so many of one author or tag, and a share of cold items.

What wins, where not all can be had: caps first, then the share of cold items, then the score. A cold item that would
break a cap is not taken; one that takes the place of a better scored item is.

With one cap on a column of one value per item, a list has k items wherever k can be had: items that keep a cap are a
partition matroid, in which every list can be filled up to the same length. With tags, or several caps, another choice
might have been longer: finding the longest list is a packing problem, and candidates are taken greedily by score.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from recall.core.arrays import Bools, Float32s, Int32s, Intps
from recall.core.errors import DataError
from recall.serving.items.groups import Groups

# A look for a capped list is at so many times its length: those that are in already never fill it.
_MARGIN = 2


class Ranked(Protocol):
    """Gives candidates by falling score: of an index, or of any other ranking of the same rows."""

    def __call__(self, queries: Intps, width: int, *, only: Bools | None) -> tuple[Int32s, Float32s]:
        """Rows and scores [queries, width] of queries, padded with -1 and -inf where there are no more.

        Args:
          queries: their positions.
          width: candidates per query.
          only: bool [items], which items count; None: all that the queries may have.
        """


class Cap(NamedTuple):
    """At most `limit` items of one value in a list; items without a value are not limited.

    Attributes:
      groups: the values of each item.
      limit: at least 1.
    """

    groups: Groups
    limit: int


@dataclass(frozen=True)
class Rules:
    """What lists have to keep.

    Attributes:
      k: length of a list.
      caps: all of them hold.
      cold: bool [items], the items that `min_cold` counts.
      min_cold: how many of a list are cold, while there are any.
    """

    k: int
    caps: tuple[Cap, ...] = ()
    cold: Bools | None = None
    min_cold: int = 0


def cold_items(k: int, share: float) -> int:
    """How many of k items a share is, rounded up: half of 5 is 3.

    Raises:
      DataError: the share is not within 0 and 1.
    """
    if not 0 <= share <= 1:
        raise DataError(f"min_cold_share: expected a number from 0 to 1, found {share}")
    return math.ceil(round(share * k, 6))  # 0.7 * 10 is a little more than 7 in binary


def check_caps(caps: Mapping[str, int]) -> dict[str, int]:
    """Caps by column.

    Raises:
      DataError: a limit that is no whole number from 1 on.
    """
    for column, limit in caps.items():
        if isinstance(limit, bool) or not isinstance(limit, int | np.integer) or limit < 1:
            raise DataError(f"caps[{column!r}]: expected a whole number of items, at least 1, found {limit!r}")
    return {str(column): int(limit) for column, limit in caps.items()}


def parse_caps(texts: Iterable[str]) -> dict[str, int]:
    """Caps by column, of texts like author_id=2.

    Raises:
      DataError: a text of another form, or a column twice.
    """
    caps: dict[str, int] = {}
    for text in texts:
        column, _, limit = text.rpartition("=")
        if not column or not limit.isdecimal() or column in caps:
            raise DataError(f"cap: expected COLUMN=N, each column once, e.g. author_id=2; found {text}")
        caps[column] = int(limit)
    return check_caps(caps)


def merged_lists(ranked: Ranked, rules: Rules, *, queries: int, items: int) -> tuple[Int32s, Float32s]:
    """Lists that keep the rules.

    Candidates come by falling score until a list is full or there are no more; once a value has all the items that it
    may have, others are asked for.

    Args:
      ranked: where candidates come from.
      rules: what lists have to keep.
      queries: how many there are.
      items: of the catalogue.

    Returns:
      rows int32 and scores float32 [queries, k] by falling score, padded with -1 and -inf.
    """
    everybody = np.arange(queries)
    if not rules.caps and not rules.min_cold:
        return ranked(everybody, rules.k, only=None)
    lists = _filled(ranked, rules, everybody, items=items)
    if rules.min_cold and rules.cold is not None:
        cold = rules.cold
        several = np.asarray([sum(bool(cold[row]) for row, _ in chosen) for chosen in lists], dtype=np.int64)
        short = np.flatnonzero(several < rules.min_cold)
        reserved = _filled(ranked, Rules(rules.min_cold, rules.caps), short, items=items, only=cold)
        # The rest of a list is what goes with its cold items, for whose sake caps may keep others out.
        refilled = _filled(ranked, rules, short, items=items, reserved=reserved)
        for query, chosen in zip(short.tolist(), refilled, strict=True):
            lists[query] = chosen
    rows = np.full((queries, rules.k), -1, np.int32)
    scores = np.full((queries, rules.k), -np.inf, np.float32)
    for line, pairs in enumerate(lists):
        for place, (row, score) in enumerate(pairs):
            rows[line, place], scores[line, place] = row, score
    return rows, scores


Pairs = list[tuple[int, float]]


def capped(ranked: Iterable[tuple[int, float]], rules: Rules, *, reserved: Sequence[tuple[int, float]] = ()) -> Pairs:
    """The first k candidates that keep the caps, after those that are in already.

    Args:
      ranked: rows and scores, best first.
      rules: k and caps.
      reserved: rows and scores that are in.
    """
    chosen, taken = list(reserved), {row for row, _ in reserved}
    counts = [Counter(code for row in taken for code in cap.groups.of(row)) for cap in rules.caps]
    for row, score in ranked:
        if len(chosen) >= rules.k:
            break
        if row in taken:
            continue
        values = [cap.groups.of(row) for cap in rules.caps]
        if all(
            count[code] < cap.limit for cap, count, own in zip(rules.caps, counts, values, strict=True) for code in own
        ):
            chosen.append((row, score))
            for count, own in zip(counts, values, strict=True):
                count.update(own)
    return chosen


def _filled(
    ranked: Ranked,
    rules: Rules,
    queries: Intps,
    *,
    items: int,
    only: Bools | None = None,
    reserved: Sequence[Pairs] | None = None,
) -> list[Pairs]:
    """`capped` lists of queries, from as many candidates as it takes."""
    width = min(items, rules.k * (_MARGIN if rules.caps else 1))
    lists = list(reserved) if reserved else [[] for _ in queries]
    rows, scores = ranked(queries, width, only=only)
    for place in range(len(queries)):
        lists[place] = capped(_pairs(rows[place], scores[place]), rules, reserved=lists[place])
        has_more = width < items and rows[place, -1] >= 0
        while len(lists[place]) < rules.k and has_more:
            # Of values that have all their items nothing more can be had: so each look brings at least one item, and
            # few are needed. Widening instead would come to the end of the catalogue where few values fill a list.
            open_items = _with_room(rules.caps, lists[place], items=items)
            own, points = ranked(queries[[place]], width, only=open_items if only is None else open_items & only)
            lists[place] = capped(_pairs(own[0], points[0]), rules, reserved=lists[place])
            has_more = bool(own[0, -1] >= 0)
        lists[place].sort(key=lambda pair: (-pair[1], pair[0]))
    return lists


def _pairs(rows: Int32s, scores: Float32s) -> Pairs:
    several = int(np.count_nonzero(rows >= 0))
    return list(zip(rows[:several].tolist(), scores[:several].tolist(), strict=True))


def _with_room(caps: Sequence[Cap], chosen: Pairs, *, items: int) -> Bools:
    """Bool [items], items none of whose values has as many items in the list as it may have."""
    has_room = np.ones(items, bool)
    for cap in caps:
        counts = Counter(code for row, _ in chosen for code in cap.groups.of(row))
        has_room &= ~cap.groups.holding([code for code, count in counts.items() if count >= cap.limit])
    return has_room
