"""Tests whether the next click lies nearer to the user's last clicks than other items do: the last-N test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from recall.core.arrays import Bools, Float32s, Float64s, Int32s, Int64s, Intps
from recall.core.ragged import Ragged
from recall.evaluation import metrics
from recall.evaluation.ranking import BLOCK_BYTES, EvaluationSet, score_blocks
from recall.evaluation.scorers import MultiVectorScorer, Scorer, VectorScorer

Similarity = Literal["mean", "max"]
SIMILARITIES: tuple[Similarity, ...] = ("mean", "max")


class Answerable(NamedTuple):
    """Hold the examples that a set of vectors can answer, with items numbered among the items with a vector.

    Attributes:
      examples: targets, histories and seen items are rows of the items with a vector.
      chosen: intp [examples], positions among the given examples.
      left_out: reason -> number of other examples: the target has no vector, the user had clicked it before (its
        similarity to itself would decide), or no item of the history has a vector.
    """

    examples: EvaluationSet
    chosen: Intps
    left_out: dict[str, int]


def answerable(examples: EvaluationSet, present: Bools) -> Answerable:
    """Select the examples that can be answered from the items with a vector (`present`, bool [items])."""
    place = np.where(present, np.cumsum(present) - 1, -1).astype(np.int32)  # [items]
    targets = place[examples.targets]
    history, seen = (_replaced(lists, place) for lists in (examples.history, examples.seen))
    is_repeat = np.zeros(len(examples), bool)
    is_repeat[seen.owners[seen.values == np.repeat(targets, seen.lengths)]] = True
    without_vector = targets < 0
    without_history = history.lengths == 0
    left_out = {
        "target_without_vector": int(without_vector.sum()),
        "target_clicked_before": int((is_repeat & ~without_vector).sum()),
        "history_without_vector": int((without_history & ~without_vector & ~is_repeat).sum()),
    }
    chosen = np.flatnonzero(~(without_vector | is_repeat | without_history))
    kept = EvaluationSet(
        users=examples.users[chosen],
        targets=targets[chosen],
        history=history.take(chosen),
        seen=seen.take(chosen),
    )
    return Answerable(kept, chosen, left_out)


def last_n_scorer(unit: Float32s, history: Ragged, *, last: int, similarity: Similarity) -> Scorer:
    """Build a scorer of items by their cosine to the last clicks: the mean of the similarities, or the largest.

    Args:
      unit: float32 [items, dim], of unit length.
      history: clicked rows per example, oldest first, at least one.
      last: number of last clicks that count.
      similarity: mean or max.

    Returns:
      A scorer; for max it holds the clicked vectors, float32 [examples, last, dim].
    """
    column = np.arange(last)
    places = history.offsets[1:, np.newaxis] - 1 - column  # [examples, last], the newest first
    is_real = places >= history.offsets[:-1, np.newaxis]
    rows = history.values[np.where(is_real, places, history.offsets[:-1, np.newaxis])]  # the oldest, repeated
    if similarity == "max":
        return MultiVectorScorer(unit[rows], unit)
    weights = (is_real / is_real.sum(axis=1, keepdims=True)).astype(np.float32)  # [examples, last]
    # The mean of the cosines is the cosine to the mean, but for a factor that is the same for all items.
    return VectorScorer(np.einsum("en,end->ed", weights, unit[rows]), unit)


def uniform_draws(first_time_ms: Int64s, times_ms: Int64s, *, count: int, rng: np.random.Generator) -> Int32s:
    """Draw items uniformly from the items that had been shown before each example.

    Args:
      first_time_ms: int64 [items], of the first exposure; the largest int64 for never.
      times_ms: int64 [examples].
      count: draws per example, with replacement.
      rng: source of randomness.

    Returns:
      int32 [examples, count] rows; -1 where nothing had been shown yet.
    """
    order = np.argsort(first_time_ms, kind="stable")
    shown = np.searchsorted(first_time_ms[order], times_ms)[:, np.newaxis]  # [examples, 1]
    draws = order[rng.integers(0, np.maximum(shown, 1), size=(len(times_ms), count))]
    return np.where(shown > 0, draws, -1).astype(np.int32)


def popular_draws(clicks: Int64s, *, examples: int, count: int, rng: np.random.Generator) -> Int32s:
    """Draw items in proportion to their clicks (int64 [items]); int32 [examples, count], -1 without any click."""
    total = np.cumsum(clicks)
    if not len(total) or not total[-1]:
        return np.full((examples, count), -1, np.int32)
    draws = rng.integers(0, total[-1], size=(examples, count))
    return np.searchsorted(total, draws, side="right").astype(np.int32)


class LastN(NamedTuple):
    """Hold the rank and the AUC of each example by one similarity.

    Attributes:
      ranks: int64 [examples], of the target in the catalogue by similarity alone; ties count against it.
      auc: kind of other items -> float64 [examples], share of them that are less similar than the target, ties
        counting half; NaN where none was left to compare with.
    """

    ranks: Int64s
    auc: dict[str, Float64s]


def last_n_test(
    scorer: Scorer, examples: EvaluationSet, others: Mapping[str, Int32s], *, block_bytes: int = BLOCK_BYTES
) -> LastN:
    """Compare each target with other items and with the catalogue, both without the items that the user has seen.

    Args:
      scorer: of `last_n_scorer`.
      examples: of `answerable`.
      others: kind -> int32 [examples, count], rows to compare the target with, -1 for none. The target itself and
        seen items are passed over.
      block_bytes: memory for a block of scores.
    """
    ranks = np.empty(len(examples), np.int64)
    auc = {kind: np.full(len(examples), np.nan) for kind in others}
    for block in score_blocks(scorer, examples, exclude_seen=True, block_bytes=block_bytes):
        ranks[block.examples] = block.ranks()
        targets, own = examples.targets[block.examples, np.newaxis], block.target_scores[:, np.newaxis]
        for kind, rows in others.items():
            drawn = rows[block.examples]  # [block, count]
            scores = np.take_along_axis(block.scores, np.maximum(drawn, 0), axis=1)
            counts = (drawn >= 0) & (drawn != targets) & ~np.isneginf(scores)
            wins = np.where(scores < own, 1.0, np.where(scores == own, 0.5, 0.0)) * counts
            compared = counts.sum(axis=1)
            auc[kind][block.examples] = np.where(compared > 0, wins.sum(axis=1) / np.maximum(compared, 1), np.nan)
    return LastN(ranks, auc)


def last_n_summary(result: LastN, chosen: Bools, ks: Sequence[int]) -> dict[str, Any]:
    """Average over the chosen examples (bool [examples]); None where there is nothing to average."""
    measured: dict[str, Any] = {"examples": int(chosen.sum())}
    for kind, values in result.auc.items():
        compared = values[chosen & ~np.isnan(values)]
        measured[f"auc_{kind}"] = float(compared.mean()) if len(compared) else None
    return measured | {f"recall@{k}": metrics.recall_at(result.ranks[chosen], k) for k in ks}


def chance_summary(
    examples: EvaluationSet, chosen: Bools, *, item_count: int, ks: Sequence[int]
) -> dict[str, float | None]:
    """Average recall and AUC of random orders of the items over the chosen examples (bool [examples]).

    Each example has its own number of candidates: the items without the ones that its user has seen.

    Returns:
      {"auc": 0.5, "recall@k": ...}; recall is None without examples.
    """
    ranked = item_count - examples.seen.lengths[chosen]  # [examples], the target is one of them
    sizes, place = np.unique(ranked, return_inverse=True)
    measured: dict[str, float | None] = {"auc": 0.5}
    for metric in (f"recall@{k}" for k in ks):
        shares = np.array([metrics.chance(metric, int(size)) for size in sizes])[place]  # [examples]
        measured[metric] = float(shares.mean()) if len(shares) else None
    return measured


def _replaced(lists: Ragged, place: Int32s) -> Ragged:
    """Renumber the rows of lists by `place`, and drop the rows without a number."""
    values = place[lists.values]
    return Ragged(values, lists.offsets).where(values >= 0)
