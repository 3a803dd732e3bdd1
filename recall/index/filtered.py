"""Searches among some of the items: asks for more than k, then for more still, and at last compares all allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from recall.core.arrays import Bools, Float32s, Int32s, Intps
from recall.core.errors import DataError
from recall.core.ragged import Ragged
from recall.index.results import best_k, top_rows

# An approximate search for w candidates is dearer than exact search among n items from about n = 8 w on: it rescores
# some multiple of w, and most of what it finds is thrown away.
_DEARER = 8
_WIDER = 4
_LEAST_SPARE = 8
# Numbers held at a time by exact search: 16 MB.
_BLOCK = 1 << 22
_NOBODY = np.empty(0, np.intp)


class Searched(Protocol):
    """Name the members of an index that this search calls; `base.Index` documents them."""

    def __len__(self) -> int: ...

    @property
    def dim(self) -> int:
        """Return the width of the vectors."""

    @property
    def entries(self) -> int:
        """Return the number of vectors of all items together."""

    def best_items(self, queries: Float32s, k: int) -> tuple[Int32s, Float32s]:
        """Find rows and scores [queries, k] of items."""

    def best_and_spare(self, queries: Float32s, k: int, *, spare: int) -> tuple[Int32s, Float32s]:
        """Find k + `spare` items, the last ones with less effort."""

    def vectors_at(self, rows: Int32s) -> Float32s:
        """Copy the vectors of rows."""


def checked_allowed(allowed: Any, items: int) -> Bools:
    """Check and return the mask of the rows that may be found, bool [items].

    Raises:
      DataError: another type or length.
    """
    mask = np.asarray(allowed)
    if mask.dtype != np.bool_ or mask.shape != (items,):
        raise DataError(f"allowed: expected bool [{items:,}], found {mask.dtype} {list(mask.shape)}")
    return mask


def checked_excluded(excluded: Sequence[Any], *, queries: int, items: int) -> Ragged:
    """Check and return the rows that may not be found, per query.

    Raises:
      DataError: not one list for each query, or a row that the index does not have.
    """
    if len(excluded) != queries:
        raise DataError(f"excluded: expected one list of rows for each of {queries:,} queries, found {len(excluded):,}")
    lists = excluded if isinstance(excluded, Ragged) else Ragged.from_lists(excluded).distinct()
    every = lists.values
    if not every.size or (len(lists) == 1 and every[0] >= 0 and every[-1] < items):  # they are rising
        return lists
    if every.view(np.uint32).max() >= items:  # what is negative is large then
        raise DataError(f"excluded: expected rows 0 to {items - 1:,}, found {every.min():,} to {every.max():,}")
    return lists


def best_allowed(
    index: Searched, queries: Float32s, k: int, *, allowed: Bools | None, excluded: Ragged
) -> tuple[Int32s, Float32s]:
    """Find the k best of the items that each query may have.

    The index is asked for as many items as would hold k allowed ones if these were spread evenly. Queries that get
    fewer ask for more. Once that costs as much as comparing all allowed items, these are compared. So k are found where
    k exist, and an exact index gives exactly the best of them.

    Args:
      index: what is searched.
      queries: float32 [queries, dim], checked, at least one.
      k: at most the number of items, at least 1.
      allowed: bool [items], for all queries; None is all.
      excluded: per query rows that it may not have.

    Returns:
      rows and scores [queries, k], padded with -1 and -inf where fewer are allowed.
    """
    spare = min(excluded.longest, max(_LEAST_SPARE, k // 4))
    if allowed is None and (k + spare) * _DEARER < len(index):
        rows, scores, short = _first_look(index, queries, k, spare=spare, excluded=excluded)
        if short.size:
            own = excluded.take(short)
            rows[short], scores[short] = _widened(index, queries[short], k, allowed=None, excluded=own)
        return rows, scores
    return _widened(index, queries, k, allowed=allowed, excluded=excluded)


def _first_look(
    index: Searched, queries: Float32s, k: int, *, spare: int, excluded: Ragged
) -> tuple[Int32s, Float32s, Intps]:
    """Find the first k of k + `spare` candidates that each query may have, and the queries with fewer than k.

    Lists of items that users have seen are long, and few of these items are among the best. So this first look is
    enough for nearly all users, and costs a tenth of widening one query.

    Returns:
      rows and scores [queries, k], and the numbers of the queries whose rows and scores are not valid yet.
    """
    found, points = index.best_and_spare(queries, k, spare=spare)
    if len(queries) == 1:  # in half the time
        kept = (~excluded.contains(found[0])).nonzero()[0][:k]
        if len(kept) == k and found[0, kept[-1]] >= 0:  # padding comes last
            return found[:, kept], points[:, kept], _NOBODY
        return found[:, :k].copy(), points[:, :k].copy(), np.zeros(1, np.intp)
    may = ~excluded.contains(found)
    may &= found >= 0
    so_far = np.cumsum(may, axis=1, dtype=np.int32)
    is_enough = so_far[:, -1] >= k
    may &= so_far <= k
    if is_enough.all():
        return found[may].reshape(-1, k), points[may].reshape(-1, k), _NOBODY
    rows, scores = found[:, :k].copy(), points[:, :k].copy()
    may &= is_enough[:, np.newaxis]
    rows[is_enough], scores[is_enough] = found[may].reshape(-1, k), points[may].reshape(-1, k)
    return rows, scores, np.flatnonzero(~is_enough)


def _widened(
    index: Searched, queries: Float32s, k: int, *, allowed: Bools | None, excluded: Ragged
) -> tuple[Int32s, Float32s]:
    """Find the same as `best_allowed` by wider and wider searches."""
    size = len(index)
    several = size if allowed is None else int(np.count_nonzero(allowed))
    barred = (excluded if allowed is None else excluded.where(allowed[excluded.values])).lengths  # [queries]
    wanted = np.minimum(k, several - barred)  # [queries]
    rows = np.full((len(queries), k), -1, np.int32)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    width = np.minimum(size, np.ceil((k + barred) * (size / max(1, several)))).astype(np.int64)  # [queries]
    open_queries = np.flatnonzero(wanted > 0)
    while open_queries.size:
        is_dear = width[open_queries] * _DEARER >= several
        if is_dear.any():
            chosen = open_queries[is_dear]
            own = [excluded[query] for query in chosen]
            rows[chosen], scores[chosen] = _compare_all(index, queries[chosen], k, allowed=allowed, excluded=own)
        open_queries = open_queries[~is_dear]
        # Queries of like width go together, so that one with a long list does not widen all.
        magnitudes = np.ceil(np.log2(width[open_queries] / k)).astype(int)
        for magnitude in np.unique(magnitudes):
            chosen = open_queries[magnitudes == magnitude]
            found, points = index.best_items(queries[chosen], int(width[chosen].max()))
            may = (found >= 0) if allowed is None else (found >= 0) & allowed[found]
            may &= ~excluded.take(chosen).contains(found)
            if may[:, :k].all():
                rows[chosen], scores[chosen] = found[:, :k], points[:, :k]
            else:
                found, points = np.where(may, found, -1), np.where(may, points, -np.inf)
                order = np.argsort(~may, axis=1, kind="stable")[:, :k]  # what may stay first, as ordered before
                rows[chosen] = np.take_along_axis(found, order, axis=1)
                scores[chosen] = np.take_along_axis(points, order, axis=1)
        open_queries = open_queries[np.count_nonzero(rows[open_queries] >= 0, axis=1) < wanted[open_queries]]
        width[open_queries] *= _WIDER
    return rows, scores


def _compare_all(
    index: Searched, queries: Float32s, k: int, *, allowed: Bools | None, excluded: Sequence[Int32s]
) -> tuple[Int32s, Float32s]:
    """Search the allowed items exactly, in blocks."""
    pool = (np.arange(len(index)) if allowed is None else np.flatnonzero(allowed)).astype(np.int32)
    rows = np.full((len(queries), k), -1, np.int32)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    block = max(k, _BLOCK // max(1, len(queries), index.dim * (index.entries // len(index))))
    for start in range(0, len(pool), block):
        part = pool[start : start + block]
        vectors = index.vectors_at(part)  # [part, dim] or [part, entries of each, dim]
        entries = vectors.reshape(len(part), -1, index.dim)
        points = np.max([queries @ entries[:, entry].T for entry in range(entries.shape[1])], axis=0)  # [queries, part]
        for line, own in enumerate(excluded):
            points[line, np.isin(part, own, assume_unique=True)] = -np.inf
        columns = top_rows(points, min(k, len(part)))
        # Summed per pair as exact search does: BLAS sums in another order for another number of queries.
        near = np.einsum("qd,qked->qke", queries, entries[columns]).max(axis=2)  # [queries, at most k]
        near = np.where(np.isneginf(np.take_along_axis(points, columns, axis=1)), -np.inf, near)
        found = np.where(np.isneginf(near), -1, part[columns])
        rows, scores = best_k(
            np.concatenate([rows, found], axis=1), np.concatenate([scores, near], axis=1).astype(np.float32), k
        )
    return rows.astype(np.int32), scores
