"""Measures recall and speed of an index, and finds the cheapest ScaNN settings that reach a target recall."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from recall.core.arrays import Float32s
from recall.index.base import Index
from recall.index.items import Items
from recall.index.scann import ScannIndex

Progress = Callable[[str], None]

_MAX_QUERIES = 500
# Exact search of a large catalogue is slow and steady: a second of it says enough.
_TIMING_BUDGET_SECONDS = 1.0
# Half as many candidates again bring less recall than this: the leaves have become the bottleneck.
_CEILING_GAIN = 0.002


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Hold the recall of an index against exact search, and its speed.

    Attributes:
      k: candidates per query.
      queries: number of queries asked.
      recall: mean share of the k returned items whose score reaches the score of the true k-th item, so that each of
        several equally good items counts. Of a shard: share of its items among the k best of all.
      standard_error: of the recall, over the queries.
      microseconds: median time of one query asked alone.
    """

    k: int
    queries: int
    recall: float
    standard_error: float
    microseconds: float

    def reaches(self, target: float) -> bool:
        """Tell whether recall is at least the target, one standard error on the safe side."""
        return self.recall - self.standard_error >= target


def measure(
    index: Index, queries: Float32s, *, k: int, exact_scores: Float32s | None = None, worst: Float32s | None = None
) -> Measurement:
    """Measure recall@k of an index against exact search, and its speed.

    Args:
      index: any index; its own vectors are the truth.
      queries: float32 [queries, dim], at least one.
      k: candidates per query; at most the number of items counts.
      exact_scores: float32 [queries, k], falling, if they are known already.
      worst: float32 [queries, 1], score of the k-th best item of all shards, if the index is one of them. The shard
        then has to find no more than its share of these k, since merged lists hold what the shards find.

    Returns:
      The measurement.
    """
    k = min(k, len(index))
    if exact_scores is None:
        exact_scores = index.exact().search(queries, k).scores  # [queries, k]
    found = index.search(queries, k).scores  # [queries, k]
    recall, standard_error = recall_of_scores(found, exact_scores, worst=worst)
    return Measurement(
        k=k,
        queries=len(queries),
        recall=recall,
        standard_error=standard_error,
        microseconds=_median_microseconds(index, queries, k),
    )


def recall_of_scores(found: Float32s, exact: Float32s, *, worst: Float32s | None = None) -> tuple[float, float]:
    """Return the found share of the best items, and its standard error.

    It is a ratio of sums, as queries of a shard have different numbers of items to find (Cochran, Sampling Techniques,
    1977, section 2.11). Where all queries have k it is the mean of their shares.

    Args:
      found: float32 [queries, k], scores of a search.
      exact: float32 [queries, k], scores of exact search, falling.
      worst: see `measure`; without it, the last column of `exact`.
    """
    worst = exact[:, -1:] if worst is None else worst  # [queries, 1]
    # Two orders of summation differ by some 1e-7 of the largest score.
    least = worst - 1e-5 * np.abs(exact[:, :1])
    due = (exact >= least).sum(axis=1)  # [queries]
    hits = np.minimum((found >= least).sum(axis=1), due)  # [queries]
    if not due.any():
        return 1.0, 0.0
    recall = float(hits.sum() / due.sum())
    deviation = (hits - recall * due).std() / due.mean()
    return recall, float(deviation / math.sqrt(len(due)))


def tuning_queries(items: Items, given: Any | None, *, seed: int) -> Float32s:
    """Draw at most 500 queries to tune with, float32 [queries, dim].

    Args:
      items: the searched items.
      given: real query vectors [queries, dim], the better choice. Without them, queries are vectors of items, moved by
        Gaussian noise of 0.3 of their length.
      seed: of the choice and the noise.
    """
    random = np.random.default_rng(seed)
    source = items.vectors if given is None or not len(given) else np.asarray(given, np.float32)
    chosen = source[np.sort(random.permutation(len(source))[:_MAX_QUERIES])]  # [queries, dim]
    if source is not items.vectors:
        return np.ascontiguousarray(chosen)
    scale = 0.3 * np.linalg.norm(chosen, axis=1, keepdims=True) / math.sqrt(chosen.shape[1])  # [queries, 1]
    return (chosen + scale * random.standard_normal(chosen.shape)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Hold the outcome of `tune`.

    Attributes:
      index: the chosen index, None where no setting qualified.
      measured: its measurement, None without an index.
      steps: every measured setting, as a report holds it.
    """

    index: ScannIndex | None
    measured: Measurement | None
    steps: tuple[dict[str, Any], ...]


def tune(
    index: ScannIndex,
    queries: Float32s,
    *,
    k: int,
    target: float,
    limit_microseconds: float = math.inf,
    worst: Float32s | None = None,
    progress: Progress | None = None,
) -> Tuning:
    """Find the fastest effort that reaches a target recall.

    For each number of leaves, fewest first, the number of rescored candidates is raised until recall reaches
    the target or stops rising. More leaves are tried until they only make it slower.

    Args:
      index: a built index.
      queries: float32 [queries, dim], like the real ones.
      k: candidates per query.
      target: recall@k against exact search, below 1; reached whatever it takes unless there is a limit.
      limit_microseconds: a query that takes this long is not worth it (exact search takes no longer).
      worst: see `measure`; given for a shard.
      progress: called with a line for each step.
    """
    k = min(k, len(index))
    all_leaves = index.settings["leaves"]
    exact_scores = index.exact().search(queries, k).scores  # [queries, k]
    best: tuple[ScannIndex, Measurement] | tuple[None, None] = (None, None)
    steps: list[dict[str, Any]] = []
    for leaves in _leaves_ladder(all_leaves):
        last_recall = 0.0
        for reorder in _reorder_ladder(index.settings["k"], index.entries):
            candidate = index.with_effort(leaves_to_search=leaves, reorder=reorder)
            result = measure(candidate, queries, k=k, exact_scores=exact_scores, worst=worst)
            steps.append(_step(leaves, reorder, result))
            if progress:
                progress(_line(leaves, reorder, result))
            if result.microseconds >= limit_microseconds:
                return Tuning(best[0], best[1], tuple(steps))
            if result.reaches(target):
                best, limit_microseconds = (candidate, result), result.microseconds
                break
            if leaves < all_leaves and result.recall - last_recall < _CEILING_GAIN:
                break
            last_recall = result.recall
    return Tuning(best[0], best[1], tuple(steps))


def _leaves_ladder(leaves: int) -> Iterator[int]:
    """Yield numbers of leaves: from 1% to all in steps of 1.4; one 0 for an index without a tree."""
    rung = math.ceil(leaves / 100)
    while rung < leaves:
        yield rung
        rung = math.ceil(rung * 1.4)
    yield leaves


def _reorder_ladder(k: int, items: int) -> Iterator[int]:
    """Yield numbers of rescored candidates: from k to all items in steps of 1.5."""
    rung = k
    while rung < items:
        yield rung
        rung = math.ceil(rung * 1.5)
    yield items


def _step(leaves: int, reorder: int, result: Measurement) -> dict[str, Any]:
    """Describe one measured setting for a report."""
    return {
        "leaves_to_search": leaves,
        "reorder": reorder,
        "recall": round(result.recall, 4),
        "queries_per_second": round(1e6 / result.microseconds),
    }


def _line(leaves: int, reorder: int, result: Measurement) -> str:
    """Describe one measured setting in a line of progress."""
    effort = f"{leaves} leaves, {reorder:,} rescored" if leaves else f"{reorder:,} rescored"
    return f"{effort}: recall@{result.k} {result.recall:.3f}, {result.microseconds:.0f} us per query"


def _median_microseconds(index: Index, queries: Float32s, k: int) -> float:
    """Measure the median time of one query asked alone, in microseconds."""
    times = []
    end = time.perf_counter() + _TIMING_BUDGET_SECONDS
    for query in queries:
        start = time.perf_counter()
        index.search(query, k)
        times.append(time.perf_counter() - start)
        if time.perf_counter() > end:
            break
    return 1e6 * float(np.median(times))
