"""Merges ranked candidates into lists of k, with caps on authors or tags and a share of cold items.

Where not all can be kept, caps win over the share of cold items, and the share wins over the score. A cold item that
would break a cap is left out; a cold item may take the place of an item with a better score.

With one cap on a column of one value per item, a list has k items wherever k can be had: items that keep a cap are a
partition matroid, in which every list can be filled up to the same length. With tags, or several caps, another choice
might have been longer: finding the longest list is a packing problem, and candidates are taken greedily by score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from recall.core.arrays import Bools, Float32s, Int32s, Intps
from recall.serving.items.groups import Groups

# A capped list is filled from so many times its length of candidates: the reserved items alone never fill it.
_MARGIN = 2


class Ranked(Protocol):
    """Rank candidates by falling score, by an index or by any other ranking of the same rows."""

    def __call__(self, queries: Intps, width: int, *, only: Bools | None) -> tuple[Int32s, Float32s]:
        """Return rows and scores [queries, width], padded with -1 and -inf.

        Args:
          queries: positions of the queries.
          width: candidates per query.
          only: bool [items], the items that count; None: all that the queries may have.
        """


class Cap(NamedTuple):
    """Limit the items of one value in a list; items without a value are not limited.

    Attributes:
      groups: values of each item.
      limit: largest number of items of one value, at least 1.
    """

    groups: Groups
    limit: int


@dataclass(frozen=True)
class Rules:
    """Hold the rules that lists have to keep.

    Attributes:
      k: length of a list.
      caps: caps, all of which hold.
      cold: bool [items], the items that `min_cold` counts.
      min_cold: number of cold items in a list, while there are any.
    """

    k: int
    caps: tuple[Cap, ...] = ()
    cold: Bools | None = None
    min_cold: int = 0


def merged_lists(ranked: Ranked, rules: Rules, *, queries: int, items: int) -> tuple[Int32s, Float32s]:
    """Fill lists that keep the rules.

    Candidates come by falling score until a list is full or there are no more. Once a value has reached its cap, only
    items of other values are ranked.

    Args:
      ranked: source of the candidates.
      rules: rules of the lists.
      queries: number of queries.
      items: number of rows of the index.

    Returns:
      rows int32 and scores float32 [queries, k] by falling score, padded with -1 and -inf.
    """
    every_query = np.arange(queries)
    if not rules.caps and not rules.min_cold:
        return ranked(every_query, rules.k, only=None)
    lists = _filled(ranked, rules, every_query, items=items)
    if rules.min_cold and rules.cold is not None:
        cold = rules.cold
        counts = np.asarray([sum(bool(cold[row]) for row, _ in chosen) for chosen in lists], dtype=np.int64)
        short = np.flatnonzero(counts < rules.min_cold)
        reserved = _filled(ranked, Rules(rules.min_cold, rules.caps), short, items=items, only=cold)
        # The list is filled anew around its cold items, whose values count for the caps.
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
    """Choose the first k candidates that keep the caps, after the reserved ones.

    Args:
      ranked: rows and scores, best first.
      rules: k and caps.
      reserved: rows and scores that are in the list already.
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
    """Fill the `capped` list of each query, from as many candidates as it takes."""
    width = min(items, rules.k * (_MARGIN if rules.caps else 1))
    lists = list(reserved) if reserved else [[] for _ in queries]
    rows, scores = ranked(queries, width, only=only)
    for place in range(len(queries)):
        lists[place] = capped(_pairs(rows[place], scores[place]), rules, reserved=lists[place])
        has_more = width < items and rows[place, -1] >= 0
        while len(lists[place]) < rules.k and has_more:
            # Items whose values have reached their caps are left out. So each round brings at least one item, and few
            # rounds are needed. Widening would read the whole catalogue where few values fill a list.
            open_items = _with_room(rules.caps, lists[place], items=items)
            own, points = ranked(queries[[place]], width, only=open_items if only is None else open_items & only)
            lists[place] = capped(_pairs(own[0], points[0]), rules, reserved=lists[place])
            has_more = bool(own[0, -1] >= 0)
        lists[place].sort(key=lambda pair: (-pair[1], pair[0]))
    return lists


def _pairs(rows: Int32s, scores: Float32s) -> Pairs:
    """Pair the rows of one list, without its padding, with their scores."""
    count = int(np.count_nonzero(rows >= 0))
    return list(zip(rows[:count].tolist(), scores[:count].tolist(), strict=True))


def _with_room(caps: Sequence[Cap], chosen: Pairs, *, items: int) -> Bools:
    """Mark the items none of whose values has reached its cap in the list; bool [items]."""
    has_room = np.ones(items, bool)
    for cap in caps:
        counts = Counter(code for row, _ in chosen for code in cap.groups.of(row))
        has_room &= ~cap.groups.holding([code for code, count in counts.items() if count >= cap.limit])
    return has_room
