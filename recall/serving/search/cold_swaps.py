"""Brings cold items into full lists under one cap, item against item, so that the lists lose as little as they can.

Lists that keep one cap on a column of one value per item, filled up to the same length, are the bases of a matroid. Of
all bases with one cold item more, the best one is a single exchange away from the best base (Gabow and Tarjan,
Efficient algorithms for a family of matroid intersection problems, J. Algorithms 1984), so the best exchange is made
again and again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from recall.core.arrays import Bools, Float32s, Int32s
from recall.serving.search.caps import Cap


class Entry(NamedTuple):
    """Hold one item of a list, or one that might come into it.

    Attributes:
      row: row of the item.
      score: its score.
      value: code of its value, -1 for none, which no cap limits.
      is_cold: whether it counts as cold.
    """

    row: int
    score: float
    value: int
    is_cold: bool


def entries(rows: Int32s, scores: Float32s, cap: Cap, cold: Bools) -> list[Entry]:
    """List the items of one query, [any] each, without padding (-1)."""
    there = rows >= 0
    rows, scores = rows[there], scores[there]
    values = [own[0] if own else -1 for own in cap.groups.of_rows(rows).lists()]
    return [Entry(*parts) for parts in zip(rows.tolist(), scores.tolist(), values, cold[rows].tolist(), strict=True)]


def with_more_cold(own: Sequence[Entry], candidates: Sequence[Entry], *, limit: int, wanted: int) -> list[Entry]:
    """Exchange items of a list for cold ones until it has as many as wanted, or no exchange keeps the cap.

    Args:
      own: the list, the best one of its length.
      candidates: cold items by falling score, as many as keep the cap among themselves, up to the list's length: an
        item behind these is never in the best list.
      limit: largest number of items of one value.
      wanted: number of cold items.
    """
    own = list(own)
    held = {entry.row for entry in own}
    candidates = [entry for entry in candidates if entry.row not in held]
    while sum(entry.is_cold for entry in own) < wanted:
        exchange = _best_exchange(own, candidates, limit)
        if exchange is None:
            break
        leaves, comes = exchange
        own[leaves] = candidates.pop(comes)
    return own


def _best_exchange(own: list[Entry], candidates: list[Entry], limit: int) -> tuple[int, int] | None:
    """Find the place of the warm item that leaves and of the cold one that comes; None: the cap allows none.

    A value with a free place takes in an item for any other; one without a free place takes it for one of its own.
    """
    counts = Counter(entry.value for entry in own)
    worst: dict[int | None, int] = {}  # the place of the warm item with the lowest score, of a value; None: of all
    for place, entry in enumerate(own):
        if not entry.is_cold:
            for key in (entry.value, None):
                if key not in worst or entry.score < own[worst[key]].score:
                    worst[key] = place
    best: tuple[float, int, int] | None = None
    for comes, entry in enumerate(candidates):
        is_full = entry.value >= 0 and counts[entry.value] >= limit
        leaves = worst.get(entry.value if is_full else None)
        if leaves is not None and (best is None or entry.score - own[leaves].score > best[0]):
            best = (entry.score - own[leaves].score, leaves, comes)
    return None if best is None else best[1:]
