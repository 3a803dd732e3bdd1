"""Computes ranking metrics from ranks, and measures how recommended lists spread over the catalogue.

All functions are pure: arrays in, numbers out. A mean over nothing is None (null in JSON), never 0: a value that was
not measured is different from a bad one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recall.core.arrays import AnyInts, Bools, Float64s, Int64s

HUBS = 10
"""Number of the most frequent items whose share of the places is measured."""


def recall_at(ranks: Int64s, k: int) -> float | None:
    """Compute the share of examples whose only target is among the first k.

    Args:
      ranks: int64 [examples], 1 is best; ties already counted against the target.
      k: length of the list, >= 1.

    Returns:
      A number in [0, 1]; None without examples.
    """
    return _mean(ranks <= k)


def hit_rate_at(ranks: Int64s, k: int) -> float | None:
    """Compute the share of examples with a target among the first k: recall, as each example has one target."""
    return recall_at(ranks, k)


def ndcg_at(ranks: Int64s, k: int) -> float | None:
    """Average 1 / log2(1 + rank) where rank <= k, and 0 elsewhere.

    Normalised discounted cumulative gain (Järvelin & Kekäläinen, TOIS 2002) of one relevant item: the ideal
    list has it first and a gain of 1, so that the gain is normalised already.

    Args:
      ranks: int64 [examples], 1 is best.
      k: length of the list, >= 1.

    Returns:
      A number in [0, 1]; None without examples.
    """
    return _mean(np.where(ranks <= k, 1.0 / np.log2(1.0 + ranks), 0.0))


def mrr(ranks: Int64s) -> float | None:
    """Compute the mean reciprocal rank over the whole ranking, not cut at any k; None without examples."""
    return _mean(1.0 / ranks)


def summary(ranks: Int64s, ks: Sequence[int]) -> dict[str, int | float | None]:
    """Compute all ranking metrics of a group of examples.

    Args:
      ranks: int64 [examples], 1 is best.
      ks: list lengths.

    Returns:
      {"examples": n, "recall@5": ..., "hit_rate@5": ..., "ndcg@5": ..., ..., "mrr": ...}, not rounded; without
      examples every metric is None.
    """
    result: dict[str, int | float | None] = {"examples": len(ranks)}
    for k in ks:
        result |= {
            f"recall@{k}": recall_at(ranks, k),
            f"hit_rate@{k}": hit_rate_at(ranks, k),
            f"ndcg@{k}": ndcg_at(ranks, k),
        }
    return result | {"mrr": mrr(ranks)}


def example_values(metric: str, ranks: AnyInts) -> Float64s:
    """Compute the value of each example in a ranking metric: the metric is their mean.

    Args:
      metric: `recall@k`, `hit_rate@k` or `ndcg@k` with any k >= 1, or `mrr`.
      ranks: integer [examples], 1 is best.

    Returns:
      float64 [examples] in [0, 1].

    Raises:
      ValueError: there is no such metric.
    """
    match = re.fullmatch(r"(recall|hit_rate|ndcg)@([1-9]\d*)|mrr", metric)
    if match is None:
        raise ValueError(f"metric {metric}: expected recall@K, hit_rate@K or ndcg@K, e.g. recall@50, or mrr")
    if metric == "mrr":
        return 1.0 / ranks
    listed = ranks <= int(match[2])
    return np.where(listed, 1.0 / np.log2(1.0 + ranks), 0.0) if match[1] == "ndcg" else listed.astype(np.float64)


def chance(metric: str, candidates: int) -> float:
    """Compute the mean of a ranking metric over random orders of the candidates.

    Args:
      metric: as for `example_values`.
      candidates: items that are ranked; the target is one of them.

    Returns:
      A number in [0, 1]; NaN without candidates.

    Raises:
      ValueError: there is no such metric.
    """
    values = example_values(metric, np.arange(1, candidates + 1))  # [candidates], every rank is equally likely
    return float(values.sum() / candidates) if candidates else float("nan")


def recommendation_counts(lists: AnyInts, item_count: int) -> Int64s:
    """Count how often each item was recommended.

    Args:
      lists: integer [examples, k] of item rows; -1 is an empty slot.
      item_count: size of the catalogue.

    Returns:
      int64 [item_count].
    """
    return np.bincount(lists[lists >= 0], minlength=item_count).astype(np.int64)


def coverage(counts: Int64s) -> float | None:
    """Compute the share of the catalogue that was recommended at least once; None for an empty catalogue."""
    return _mean(counts > 0)


def gini(counts: Int64s) -> float | None:
    """Compute the Gini index of recommendations over the whole catalogue, never recommended items included.

    sum_i (2 i - n - 1) x_i / (n sum_i x_i) with x rising and i from 1 to n: 0 if all items are recommended equally
    often, (n - 1) / n if one item takes everything.

    Args:
      counts: int64 [items], recommendations per item.

    Returns:
      A number in [0, 1); None if nothing was recommended.
    """
    total = int(counts.sum())
    if not total:
        return None
    n = len(counts)
    weights = 2.0 * np.arange(1, n + 1) - n - 1  # [items]
    return float(weights @ np.sort(counts) / (n * total))


def cold_share(counts: Int64s, cold: Bools) -> float | None:
    """Compute the share of the filled slots that hold a cold item.

    Args:
      counts: int64 [items], recommendations per item.
      cold: bool [items].

    Returns:
      A number in [0, 1]; None if nothing was recommended.
    """
    total = int(counts.sum())
    return float(counts[cold].sum() / total) if total else None


def novelty(counts: Int64s, exposures: Int64s) -> float | None:
    """Average the self-information of the recommended items, in bits: the surprise of seeing them.

    -log2 p(item), averaged over the filled slots (Zhou et al., PNAS 2010; Vargas & Castells, RecSys 2011), where
    p(item) = (exposures + 1) / (all exposures + items). The added one is our departure: it keeps the surprise of
    an item without exposures finite, and equal to the surprise of a uniform draw if no item has any.

    Args:
      counts: int64 [items], recommendations per item.
      exposures: int64 [items], exposures before the evaluated period.

    Returns:
      Bits, > 0 for more than one item; None if nothing was recommended.
    """
    total = int(counts.sum())
    if not total:
        return None
    information = np.log2(float(exposures.sum() + len(exposures))) - np.log2(exposures + 1.0)  # [items]
    return float(counts @ information / total)


def hub_share(counts: Int64s, hubs: int = HUBS) -> float | None:
    """Compute the share of the filled slots that the most frequent items hold.

    Args:
      counts: int64 [items], recommendations per item: its k-occurrence.
      hubs: number of items that count.

    Returns:
      A number in [0, 1]; None if nothing was recommended.
    """
    total = int(counts.sum())
    return float(np.sort(counts)[-hubs:].sum() / total) if total else None


def k_occurrence_skew(counts: Int64s) -> float | None:
    """Compute the skewness of the k-occurrence: how far a few items are in the lists of many queries (hubness).

    E[(N_k - mean)^3] / deviation^3 over the items of the catalogue, with N_k the number of lists of length k that hold
    an item (Radovanovic et al., JMLR 2010, eq. 1). 0 where all items are as frequent.

    Args:
      counts: int64 [items], recommendations per item.

    Returns:
      A number; None if nothing was recommended.
    """
    if not counts.sum():
        return None
    centred = counts - counts.mean()  # [items]
    deviation = np.sqrt(np.mean(centred**2))
    return float(np.mean(centred**3) / deviation**3) if deviation else 0.0


def spread(counts: Int64s, *, k: int) -> dict[str, float | None]:
    """Measure how evenly lists of length k use the catalogue.

    Args:
      counts: int64 [items] from `recommendation_counts`.
      k: length of the lists, for the names.

    Returns:
      {"coverage@k": ..., "gini@k": ..., "hub_share_10@k": ..., "k_occurrence_skew@k": ...}; None where it is undefined.
    """
    return {
        f"coverage@{k}": coverage(counts),
        f"gini@{k}": gini(counts),
        f"hub_share_{HUBS}@{k}": hub_share(counts),
        f"k_occurrence_skew@{k}": k_occurrence_skew(counts),
    }


def ecology(counts: Int64s, *, exposures: Int64s, cold: Bools, k: int) -> dict[str, float | None]:
    """Measure how lists of length k spread over the catalogue.

    Args:
      counts: int64 [items] from `recommendation_counts`.
      exposures: int64 [items], exposures before the evaluated period.
      cold: bool [items].
      k: length of the lists, for the names.

    Returns:
      The entries of `spread`, "cold_share@k" and "novelty@k"; None where it is undefined.
    """
    return {
        **spread(counts, k=k),
        f"cold_share@{k}": cold_share(counts, cold),
        f"novelty@{k}": novelty(counts, exposures),
    }


def _mean(values: npt.NDArray[np.bool_ | np.floating]) -> float | None:
    return float(np.mean(values)) if len(values) else None
