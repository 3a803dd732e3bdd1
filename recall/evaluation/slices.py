"""Evaluates a model on all examples and on slices by exposures: a model's part of metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from recall.config.evaluation import EvaluationConfig
from recall.core.arrays import Float32s, Int32s, Int64s
from recall.evaluation import metrics
from recall.evaluation.categories import AskedCategories
from recall.evaluation.graded import graded_summary
from recall.evaluation.ranking import BLOCK_BYTES, EvaluationSet, score_blocks
from recall.evaluation.scorers import EvaluationError, Scorer

LIST_LENGTH = 100
"""Length of the lists behind the ecology metrics. A smaller catalogue fills fewer slots under the same name."""


class Evaluation(NamedTuple):
    """Hold the metrics of one model and its rank of every example.

    Attributes:
      metrics: its part of metrics.json, see `evaluate`.
      ranks: int64 [examples], in the whole catalogue.
      ranks_among_cold: int64 [examples], among cold items only; 0 where the target is not cold.
      lists: int32 [examples, `LIST_LENGTH`] item rows, best first, -1 where empty.
    """

    metrics: dict[str, Any]
    ranks: Int64s
    ranks_among_cold: Int64s
    lists: Int32s


def evaluate(
    scorer: Scorer,
    examples: EvaluationSet,
    *,
    exposures: Int64s,
    clicks: Int64s,
    config: EvaluationConfig,
    categories: AskedCategories | None = None,
    weights: Float32s | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> dict[str, Any]:
    """Compute a model's part of metrics.json.

    Cold items had no exposure and no click before the evaluated period. Lists and `cold_among_cold` come from the
    same scores as the ranks. The lists do not depend on the targets: a target that the user clicked before is
    ranked, as every target is, but not listed if seen items are excluded. With at most k cold items any model has
    a `cold_among_cold` recall@k of 1: compare it with chance, k / number of cold items.

    Args:
      scorer: the model.
      examples: clicks of the evaluated period.
      exposures: int64 [items], before the evaluated period.
      clicks: int64 [items], before the evaluated period.
      config: cut-offs, slices, and whether seen items are left out of the ranking.
      categories: values of the items and of the queries; ecology then has the share of listed items that agree.
      weights: float32 [examples], weight of each click; None where the log has no weights.
      block_bytes: memory for one block of scores; at least 16 examples are scored together.

    Returns:
      {"all": ..., "cold": ..., "by_exposures": [{"from": 0, "to": 0, ...}, ..., {"from": 1000, "to": None, ...}],
      "ecology": ..., "cold_among_cold": ...}, where ... are `metrics.summary` and `metrics.ecology`. With categories
      ecology has category_consistency@100, too: of the listed items with a category, in lists whose query has one, the
      share with a category in common with the query. With weights there is "graded", a
      `graded.graded_summary`: whether a user's clicks of larger weight rank above the user's other clicks.

    Raises:
      EvaluationError: scores are not finite or of another shape than the catalogue and the examples.

    Example:
      >>> from recall.evaluation.scorers import VectorScorer
      >>> from recall.model.batches.dataset import read_examples
      >>> data = recall.PreparedData.load("runs/mine/data")
      >>> examples, known = read_examples(data.shards("test")), data.posterior("test")
      >>> scorer = VectorScorer(np.ones((len(examples), 1), np.float32), known.smoothed_ctr[:, np.newaxis])
      >>> config = recall.load_config("experiment.yaml").evaluation
      >>> metrics = recall.evaluate(scorer, examples, exposures=known.exposures, clicks=known.clicks, config=config)
      >>> sorted(metrics)
      ['all', 'by_exposures', 'cold', 'cold_among_cold', 'ecology']
    """
    return evaluate_examples(
        scorer,
        examples,
        exposures=exposures,
        clicks=clicks,
        config=config,
        categories=categories,
        weights=weights,
        block_bytes=block_bytes,
    ).metrics


def evaluate_examples(
    scorer: Scorer,
    examples: EvaluationSet,
    *,
    exposures: Int64s,
    clicks: Int64s,
    config: EvaluationConfig,
    categories: AskedCategories | None = None,
    weights: Float32s | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Evaluation:
    """Compute the metrics and the rank of every example; arguments and errors are those of `evaluate`."""
    _require_catalogue(scorer.item_count, exposures=exposures, clicks=clicks)
    cold = (exposures == 0) & (clicks == 0)  # [items]
    cold_items = np.flatnonzero(cold)
    all_ranks = np.empty(len(examples), np.int64)
    ranks_among_cold = np.zeros(len(examples), np.int64)  # filled where the target is cold
    lists = np.full((len(examples), LIST_LENGTH), -1, np.int32)
    for block in score_blocks(scorer, examples, exclude_seen=config.exclude_seen, block_bytes=block_bytes):
        all_ranks[block.examples] = block.ranks()
        rows = np.flatnonzero(cold[examples.targets[block.examples]])
        ranks_among_cold[block.examples.start + rows] = block.ranks_among(cold_items, rows=rows)
        lists[block.examples] = block.best_items(LIST_LENGTH)
    recommended = metrics.recommendation_counts(lists, scorer.item_count)
    target_is_cold = cold[examples.targets]
    measured: dict[str, Any] = {
        "all": metrics.summary(all_ranks, config.k),
        "cold": metrics.summary(all_ranks[target_is_cold], config.k),
        "by_exposures": by_exposures(all_ranks, exposures[examples.targets], config),
        "ecology": metrics.ecology(recommended, exposures=exposures, cold=cold, k=LIST_LENGTH),
        "cold_among_cold": metrics.summary(ranks_among_cold[target_is_cold], config.k),
    }
    if categories:
        measured["ecology"][f"category_consistency@{LIST_LENGTH}"] = categories.consistency(lists)
    if weights is not None:
        measured["graded"] = graded_summary(all_ranks, weights, examples.users)
    return Evaluation(measured, all_ranks, ranks_among_cold, lists)


def validation_metric(
    scorer: Scorer,
    examples: EvaluationSet,
    *,
    metric: Literal["recall", "ndcg"],
    k: int,
    exposures: Int64s | None = None,
    exclude_seen: bool = True,
    block_bytes: int = BLOCK_BYTES,
) -> float:
    """Compute the one number that training is stopped by, exact on the whole catalogue.

    With `exposures`, targets without exposures are ranked among such items, all others among the others. The cold bias
    decides after the training how both share a list. During the training cold items sink as the model learns
    popularity, and a metric over both would stop the training too early.

    Args:
      scorer: the model.
      examples: validation clicks.
      metric: recall or ndcg.
      k: cut-off.
      exposures: int64 [items], before the validation period.
      exclude_seen: whether items that the user clicked before are left out of the ranking.
      block_bytes: memory for a block of scores.

    Raises:
      EvaluationError: there are no examples, or as `evaluate`.
    """
    cold = np.zeros(scorer.item_count, bool) if exposures is None else exposures == 0  # [items]
    kinds = [np.flatnonzero(~cold), np.flatnonzero(cold)]
    all_ranks = [np.empty(0, np.int64)]
    for block in score_blocks(scorer, examples, exclude_seen=exclude_seen, block_bytes=block_bytes):
        target_is_cold = cold[examples.targets[block.examples]]
        for kind in (False, True):
            others = kinds[not kind]
            block.scores[np.ix_(target_is_cold == kind, others)] = -np.inf
        all_ranks.append(block.ranks())
    measure = {"recall": metrics.recall_at, "ndcg": metrics.ndcg_at}[metric]
    value = measure(np.concatenate(all_ranks), k)
    if value is None:
        raise EvaluationError("there is no validation example to stop training by; raise data.split.validation")
    return value


def by_exposures(
    all_ranks: Int64s, target_exposures: Int64s, config: EvaluationConfig
) -> list[dict[str, int | float | None]]:
    """Summarise ranks by the exposures of the target.

    Args:
      all_ranks: int64 [examples].
      target_exposures: int64 [examples].
      config: lower bounds of the slices, and cut-offs.

    Returns:
      {"from": 0, "to": 0, ...}, ..., {"from": 1000, "to": None, ...}, where ... is `metrics.summary`.
    """
    return by_counts(all_ranks, target_exposures, config.exposure_buckets, k=config.k)


def by_counts(
    all_ranks: Int64s, counts: Int64s, lower: Sequence[int], *, k: Sequence[int]
) -> list[dict[str, int | float | None]]:
    """Summarise ranks by a count of the target.

    Args:
      all_ranks: int64 [examples].
      counts: int64 [examples], at least `lower[0]`.
      lower: rising lower bounds of the slices.
      k: cut-offs.

    Returns:
      As `by_exposures`.
    """
    bucket = np.searchsorted(lower, counts, side="right") - 1  # [examples]
    upper = [*(bound - 1 for bound in lower[1:]), None]
    return [
        {"from": first, "to": last, **metrics.summary(all_ranks[bucket == index], k)}
        for index, (first, last) in enumerate(zip(lower, upper, strict=True))
    ]


def _require_catalogue(item_count: int, **arrays: Int64s) -> None:
    for name, values in arrays.items():
        if values.shape != (item_count,):
            raise EvaluationError(
                f"{name} has shape {values.shape}; the model scores {item_count:,} items and needs one number each. "
                "Take both from the same prepared data"
            )


def metric_value(part: Mapping[str, Any], metric: str) -> float:
    """Read a metric as a number; NaN where it is absent or null (a slice without examples)."""
    value = part.get(metric)
    return float("nan") if value is None else float(value)


def bucket_label(bucket: Mapping[str, Any]) -> str:
    """Name the exposures that a slice covers: `0`, `1–9`, `≥ 1,000`."""
    low, high = bucket["from"], bucket.get("to")
    if high is None:
        return f"≥ {low:,}"
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
