"""Keeps caps: of ranked candidates it chooses greedily, for all queries at once.

Greedy is one candidate after the other, the best first: a candidate that would break a cap is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recall.core.arrays import Bools, Int32s, Int64s
from recall.serving.items.groups import Groups

# Candidates of real catalogues are decided in three to eight rounds. Many more are needed where each candidate hangs on
# the one before it: then they are decided one by one, as a few candidates are, for which a round costs more.
_ROUNDS = 32
_FEW = 128


class Cap(NamedTuple):
    """Limit the items of one value in a list; items without a value are not limited.

    Attributes:
      groups: values of each item.
      limit: largest number of items of one value, at least 1.
    """

    groups: Groups
    limit: int

    @property
    def most_items(self) -> int:
        """Return a number that no list of items exceeds: all values used up, and all items without a value."""
        return self.groups.values * self.limit + self.groups.items_without_value


def within_caps(rows: Int32s, caps: Sequence[Cap], *, taken: Int32s) -> Bools:
    """Mark the candidates that a list keeps when they are taken one after the other.

    A candidate is kept if, for each of its values, fewer items than the limit were kept before it. That is decided in
    rounds for many candidates at once: one with free places left for everything before it that may still be kept is
    kept, and one of whose values no place is left is not.

    Args:
      rows: int32 [queries, width], candidates, best first; -1 is padding, which is not kept.
      caps: caps, all of which hold.
      taken: int32 [queries, any], items that a list holds already, which are not kept again; -1 is padding.

    Returns:
      bool [queries, width].
    """
    every, held = np.concatenate([taken, rows], axis=1), taken.shape[1]  # [queries, places]
    if every.size <= _FEW:
        return _one_by_one(every, caps, held=held)
    accepted = every >= 0
    accepted[:, held:] = False
    is_open = every >= 0
    is_open[:, held:] &= ~_among(rows, taken)
    is_kept, is_open, accepted = np.zeros(every.size, bool), is_open.reshape(-1), accepted.reshape(-1)
    candidates, segments, room = _claims(every, caps)
    for _ in range(_ROUNDS):
        is_kept |= accepted
        is_open &= ~accepted
        room -= np.bincount(segments[accepted[candidates]], minlength=len(room))
        is_open[candidates[room[segments] <= 0]] = False
        still = is_open[candidates]
        candidates, segments = candidates[still], segments[still]
        accepted = is_open.copy()
        accepted[candidates[_places_in_line(segments) >= room[segments]]] = False
        if not candidates.size:
            return np.asarray((is_kept | accepted).reshape(every.shape)[:, held:])
    return _one_by_one(every, caps, held=held)


def _one_by_one(every: Int32s, caps: Sequence[Cap], *, held: int) -> Bools:
    """Decide as `within_caps` one candidate after the other.

    Args:
      every: int32 [queries, places], items that a list holds already, then candidates.
      caps: the caps.
      held: number of places of items that a list holds already.
    """
    kept = np.zeros(every.shape, bool)
    for query, own in enumerate(every):
        codes = [cap.groups.of_rows(own).lists() for cap in caps]
        rows, taken = own.tolist(), {-1}
        counts = [Counter[int]() for _ in caps]
        for place, row in enumerate(rows):
            if row in taken:
                continue
            values = [lists[place] for lists in codes]
            if place < held:
                taken.add(row)
            elif any(
                count[code] >= cap.limit for cap, count, of in zip(caps, counts, values, strict=True) for code in of
            ):
                continue
            else:
                kept[query, place] = True
            for count, of in zip(counts, values, strict=True):
                count.update(of)
    return kept[:, held:]


def _claims(every: Int32s, caps: Sequence[Cap]) -> tuple[Int64s, Int64s, Int64s]:
    """List the values that candidates would take a place of.

    Args:
      every: int32 [queries, places], rows or -1.
      caps: the caps.

    Returns:
      candidates: int64 [claims], the number of a candidate in `every`, flat.
      segments: int64 [claims], rising: the number of a query's value. In a segment candidates rise.
      room: int64 [segments], the limit of each.
    """
    flat = every.reshape(-1)
    there = np.flatnonzero(flat >= 0)
    shift = max(1, every.shape[1] - 1).bit_length()  # of a place, in a key of query, value and place
    starts = np.cumsum([0, *(cap.groups.values for cap in caps)])  # [caps + 1], of the values of each cap
    parts = []
    for cap, start in zip(caps, starts.tolist(), strict=False):
        codes = cap.groups.of_rows(flat[there])
        queries, places = np.divmod(there[codes.owners], every.shape[1])
        parts.append(((queries * starts[-1] + codes.values + start) << shift) + places)
    keys = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
    values = keys >> shift
    is_first = np.append(True, values[1:] != values[:-1])[: len(values)]
    queries, codes_of = np.divmod(values, max(1, starts[-1]))
    limits = np.asarray([cap.limit for cap in caps], np.int64)
    room = limits[np.searchsorted(starts, codes_of[is_first], side="right") - 1] if parts else np.empty(0, np.int64)
    candidates = queries * every.shape[1] + (keys & ((1 << shift) - 1))
    return candidates, np.cumsum(is_first) - 1, room


def _places_in_line(segments: Int64s) -> Int64s:
    """Count for each entry of rising numbers the entries before it with the same number."""
    places = np.arange(len(segments))
    is_first = np.append(True, segments[1:] != segments[:-1])[: len(segments)]
    return places - np.maximum.accumulate(np.where(is_first, places, 0))


def _among(rows: Int32s, taken: Int32s) -> Bools:
    """Mark the rows [queries, width] that a query has taken [queries, any]."""
    if not (taken >= 0).any():
        return np.zeros(rows.shape, bool)
    owners = np.arange(len(rows), dtype=np.int64)[:, np.newaxis] << 32
    held = np.sort((owners + taken)[taken >= 0])
    wanted = owners + rows
    found: Bools = held.take(np.searchsorted(held, wanted), mode="clip") == wanted
    return found
