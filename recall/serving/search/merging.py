"""Merges ranked candidates into lists of k, with caps on authors or tags and a share of cold items.

Where not all can be kept, caps win over the share of cold items, and the share wins over the score. A cold item that
would break a cap is left out; a cold item may take the place of an item with a better score.

With one cap on a column of one value per item, a list has k items wherever k can be had: items that keep a cap are a
partition matroid, in which every list can be filled up to the same length; and it is the best of the lists with so many
cold items (cold_swaps.py). With tags, or several caps, another choice might have been longer: finding the longest list
is a packing problem, and candidates are taken greedily by score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from recall.core.arrays import Bools, Float32s, Int32s, Int64s, Intps
from recall.index.results import best_k
from recall.serving.search.caps import Cap, within_caps
from recall.serving.search.cold_swaps import entries, with_more_cold

# A capped list is filled from so many times its length of candidates: the reserved items alone never fill it.
_MARGIN = 2
# Each further look for candidates is so many times as wide, so that few looks see the whole catalogue.
_WIDER = 4
# Numbers of some ten arrays that are held at a time, so that the memory of any batch is bounded.
_CANDIDATES_AT_ONCE = 1 << 19


class Ranked(Protocol):
    """Rank candidates by falling score, by an index or by any other ranking of the same rows."""

    def __call__(self, queries: Intps, width: int, *, only: Bools | None) -> tuple[Int32s, Float32s]:
        """Return rows and scores [queries, width], padded with -1 and -inf.

        Args:
          queries: positions of the queries.
          width: candidates per query.
          only: bool [items], the items that count; None: all that the queries may have.
        """


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

    @property
    def most_items(self) -> int:
        """Return a length that no list exceeds: k, or less where a cap has few values."""
        return min([self.k, *(cap.most_items for cap in self.caps)])

    def first_width(self, items: int) -> int:
        """Return the number of candidates per query that are looked at first."""
        return min(items, max(1, self.most_items) * (_MARGIN if self.caps else 1))

    def cold_items(self, rows: Int32s) -> Int64s:
        """Count the cold items of lists [queries, any], padded with -1; int64 [queries]."""
        if self.cold is None:
            return np.zeros(len(rows), np.int64)
        return np.count_nonzero(np.append(self.cold, False)[rows], axis=1)  # the last one is of row -1


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
    at_once = max(1, _CANDIDATES_AT_ONCE // rules.first_width(items))
    blocks = [every_query[start : start + at_once] for start in range(0, max(1, queries), at_once)]
    lists = [_merged_block(ranked, rules, block, items=items) for block in blocks]
    return np.concatenate([rows for rows, _ in lists]), np.concatenate([scores for _, scores in lists])


def _merged_block(ranked: Ranked, rules: Rules, queries: Intps, *, items: int) -> tuple[Int32s, Float32s]:
    """Fill the lists of as many queries as one block holds; as `merged_lists`."""
    look = ranked(queries, rules.first_width(items), only=None)
    lists = _filled(ranked, rules, queries, look, items=items)
    short = np.flatnonzero(rules.cold_items(lists.rows) < rules.min_cold)
    if short.size and rules.cold is not None:
        one_value_each = len(rules.caps) == 1 and rules.caps[0].groups.most_values <= 1
        # Behind so many cold items, none is in the best list: each that is passed over has a warm one in its place.
        to_reserve = Rules(rules.k if one_value_each else rules.min_cold, rules.caps)
        of_cold = ranked(queries[short], to_reserve.first_width(items), only=rules.cold)
        reserved = _filled(ranked, to_reserve, queries[short], of_cold, items=items, only=rules.cold)
        if one_value_each:
            lists = lists.exchanged(short, reserved, rules.caps[0], rules.cold, wanted=rules.min_cold)
        else:
            # The list is filled anew around its cold items, whose values count for the caps.
            start = _Lists.empty(len(short), rules.k).with_items(reserved.rows, reserved.scores, reserved.rows >= 0)
            refilled = _filled(
                ranked, rules, queries[short], (look[0][short], look[1][short]), items=items, start=start
            )
            lists.rows[short], lists.scores[short] = refilled.rows, refilled.scores
    return best_k(lists.rows, lists.scores, rules.k)


class _Lists(NamedTuple):
    """Hold unfinished lists: each a number of items in any order, then padding.

    Attributes:
      rows: int32 [queries, k]; padding is -1.
      scores: float32 [queries, k]; padding is -inf.
    """

    rows: Int32s
    scores: Float32s

    @classmethod
    def empty(cls, queries: int, k: int) -> _Lists:
        """Make lists without items."""
        return cls(np.full((queries, k), -1, np.int32), np.full((queries, k), -np.inf, np.float32))

    @property
    def lengths(self) -> Int64s:
        """Count the items of each list, int64 [queries]."""
        return np.count_nonzero(self.rows >= 0, axis=1)

    def with_items(self, rows: Int32s, scores: Float32s, is_kept: Bools) -> _Lists:
        """Append the marked ones of some items, all [queries, width], as far as there are places."""
        places = np.cumsum(is_kept, axis=1) - 1 + self.lengths[:, np.newaxis]
        queries, found = np.nonzero(is_kept & (places < self.rows.shape[1]))
        longer = _Lists(self.rows.copy(), self.scores.copy())
        at = places[queries, found]
        longer.rows[queries, at], longer.scores[queries, at] = rows[queries, found], scores[queries, found]
        return longer

    def filled(self, rows: Int32s, scores: Float32s, rules: Rules) -> _Lists:
        """Append candidates [queries, width], best first, as far as they keep the caps."""
        taken = self.rows[:, : int(self.lengths.max(initial=0))]
        return self.with_items(rows, scores, within_caps(rows, rules.caps, taken=taken))

    def exchanged(self, places: Intps, reserved: _Lists, cap: Cap, cold: Bools, *, wanted: int) -> _Lists:
        """Bring cold items into some lists, for items that lose least; `reserved` has the candidates of each."""
        mixed = _Lists(self.rows.copy(), self.scores.copy())
        for candidates, place in enumerate(places.tolist()):
            own = entries(self.rows[place], self.scores[place], cap, cold)
            others = entries(reserved.rows[candidates], reserved.scores[candidates], cap, cold)
            merged = with_more_cold(own, others, limit=cap.limit, wanted=wanted)
            mixed.rows[place, : len(merged)] = [entry.row for entry in merged]
            mixed.scores[place, : len(merged)] = [entry.score for entry in merged]
        return mixed


def _filled(
    ranked: Ranked,
    rules: Rules,
    queries: Intps,
    look: tuple[Int32s, Float32s],
    *,
    items: int,
    only: Bools | None = None,
    start: _Lists | None = None,
) -> _Lists:
    """Fill the lists of some queries, from as many candidates as it takes.

    Args:
      ranked: source of further candidates.
      rules: k and caps; the cold items do not count here.
      queries: positions of the queries.
      look: the first candidates of each query, of `rules.first_width`.
      items: number of rows of the index.
      only: bool [items], the items that count; None: all.
      start: lists that are filled further; None: empty ones.
    """
    rows, scores = look
    lists = (start or _Lists.empty(len(queries), rules.k)).filled(rows, scores, rules)
    if not rules.caps or not rows.shape[1] or rows.shape[1] == items:
        return lists
    for place in np.flatnonzero((lists.lengths < rules.most_items) & (rows[:, -1] >= 0)):
        own = _Lists(lists.rows[[place]], lists.scores[[place]])
        own = _filled_up(ranked, rules, queries[[place]], own, width=rows.shape[1], items=items, only=only)
        lists.rows[place], lists.scores[place] = own.rows[0], own.scores[0]
    return lists


def _filled_up(
    ranked: Ranked, rules: Rules, query: Intps, own: _Lists, *, width: int, items: int, only: Bools | None
) -> _Lists:
    """Fill the list of one query from further looks, each at the items whose values have free places only.

    So each look brings at least one item. But it may bring only one, where the values of candidates come in long
    stretches: a wider one comes next, and the number of looks grows as the logarithm of the number of items.
    """
    while int(own.lengths[0]) < rules.most_items:
        is_open = _with_room(rules.caps, own.rows[0, : own.lengths[0]], items=items)
        if only is not None:
            is_open &= only
        remaining = int(np.count_nonzero(is_open))
        if not remaining:
            break
        width = min(width * _WIDER, remaining)
        rows, scores = ranked(query, width, only=is_open)
        own = own.filled(rows, scores, rules)
        if width == remaining or rows[0, -1] < 0:
            break
    return own


def _with_room(caps: tuple[Cap, ...], chosen: Int32s, *, items: int) -> Bools:
    """Mark the items none of whose values has reached its cap in a list; bool [items].

    Args:
      caps: the caps.
      chosen: int32 [any], rows of the list.
      items: number of rows.
    """
    has_room = np.ones(items, bool)
    for cap in caps:
        counts = np.bincount(cap.groups.of_rows(chosen).values)
        has_room &= ~cap.groups.holding(np.flatnonzero(counts >= cap.limit))
    return has_room
