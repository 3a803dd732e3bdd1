"""Measures how well scores order results with graded labels, by counting the pairs of one query in the right order."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recall.core.arrays import Float32s, Int64s


class PairCounts(NamedTuple):
    """Count the pairs of results of one query with different labels, over all queries.

    Attributes:
      concordant: the higher label has the higher score.
      discordant: the higher label has the lower score.
      tied: both have the same score.
    """

    concordant: int
    discordant: int
    tied: int


def pair_counts(scores: npt.ArrayLike, labels: npt.ArrayLike, queries: npt.ArrayLike) -> PairCounts:
    """Count the pairs that a ranking puts into the right order.

    All queries together are sorted once and their inversions are counted bit by bit. Time grows as n log^2 n with the
    results, however many of them belong to one query.

    Args:
      scores: real numbers [results], higher is better.
      labels: real numbers [results], higher is better; any number of grades.
      queries: [results], which query each belongs to; any dtype that sorts, in any order.

    Raises:
      ValueError: the lengths differ, or a score or label is NaN.
    """
    columns = {"scores": np.asarray(scores), "labels": np.asarray(labels), "queries": np.asarray(queries)}
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) > 1 or columns["scores"].ndim != 1:
        raise ValueError(f"expected one score, one label and one query per result, found shapes {shapes}")
    for name in ("scores", "labels"):
        if bad := int(np.isnan(columns[name]).sum()):
            raise ValueError(f"{name}: {bad:,} of {len(columns[name]):,} are NaN; leave such results out")
    score, label, query = (np.unique(column, return_inverse=True)[1] for column in columns.values())
    # Ranks rise from query to query, as positions do below: pairs of different queries are never inverted.
    rank = _dense_ranks(query, score)
    # Equal labels stand by rising score and so are never inverted either.
    discordant = _inversions(rank[np.lexsort((score, label, query))])
    concordant = _inversions(rank[np.lexsort((score, -label, query))])
    different = _pairs(query) - _pairs(_dense_ranks(query, label))
    return PairCounts(concordant, discordant, different - concordant - discordant)


def positive_negative_ratio(scores: npt.ArrayLike, labels: npt.ArrayLike, queries: npt.ArrayLike) -> float | None:
    """Compute the positive-negative ratio (PNR): concordant over discordant pairs of results of the same query.

    Zou et al., "Pre-trained Language Model based Ranking in Baidu Search" (KDD 2021), take it per query and average.
    Departure: the pairs of all queries are counted together, since one query without a discordant pair would make the
    average infinite. Ties in score are on neither side; `pair_counts` has them.

    Args:
      scores: real numbers [results], higher is better.
      labels: real numbers [results], higher is better.
      queries: [results], which query each belongs to.

    Returns:
      A number >= 0, 1 for scores without information; inf if no pair is discordant and some are concordant; None
      without a pair on either side.

    Raises:
      ValueError: as `pair_counts`.
    """
    counts = pair_counts(scores, labels, queries)
    if not counts.discordant:
        return math.inf if counts.concordant else None
    return counts.concordant / counts.discordant


def graded_summary(ranks: Int64s, weights: Float32s, users: npt.NDArray[Any]) -> dict[str, int | float | None]:
    """Measure whether a user's clicks of larger weight get better ranks than the user's other clicks.

    PNR with the user for the query, the weight of the click for the label and the rank of its item for the score. A
    user's clicks are evaluated at different times: their scores are of different queries and cannot be compared, but
    their ranks in the whole catalogue can.

    Args:
      ranks: int64 [examples], 1 is best.
      weights: float32 [examples], weight of each click.
      users: [examples], user of each click; any dtype that sorts.

    Returns:
      {"pnr": ..., "pairs": n, "concordant": n, "discordant": n}: pairs of one user's clicks with different weights; the
      rest of `pairs` has equal ranks. PNR is None without a discordant pair, where it is infinite or undefined.
    """
    counts = pair_counts(-ranks, weights, users)
    return {
        "pnr": counts.concordant / counts.discordant if counts.discordant else None,
        "pairs": sum(counts),
        "concordant": counts.concordant,
        "discordant": counts.discordant,
    }


def _dense_ranks(query: Int64s, codes: Int64s) -> Int64s:
    """Rank results from 0 by query, then code; equal ones share a rank."""
    width = int(codes.max(initial=0)) + 1
    return np.unique(query.astype(np.int64) * width + codes, return_inverse=True)[1].astype(np.int64)


def _pairs(groups: Int64s) -> int:
    """Count the pairs inside of the groups."""
    sizes = np.bincount(groups)
    return int((sizes * (sizes - 1) // 2).sum())


def _inversions(values: Int64s) -> int:
    """Count the pairs in which the larger of two values >= 0 stands first.

    Two values differ first in one bit, read from the highest. With values stably sorted by the bits above it, a pair
    is inverted if both are of one group and the one with the bit set stands first.
    """
    found = 0
    for bit in reversed(range(int(values.max(initial=0)).bit_length())):
        group, is_set = values >> (bit + 1), (values >> bit) & 1
        before = np.cumsum(is_set) - is_set
        first = np.searchsorted(group, group)  # where each value's group begins
        found += int((before - before[first])[is_set == 0].sum())
        values = values[np.argsort(values >> bit, kind="stable")]
    return found
