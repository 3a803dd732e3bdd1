"""Chooses and applies the cold bias: the share of the lists that new items get, as one number in any index.

A model's scores say how likely a click is, and nearly always the most likely one is on a known item. The share of new
content is a decision of the feed. The bias makes this decision: bias / (1 + exposures / 5) is added to the scores of an
item, through the last dimension of its vector, where every query holds a 1. Any inner-product index can search it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from recall.core.arrays import Bools, Float32s, Int64s
from recall.evaluation.ranking import BLOCK_BYTES, EvaluationSet, ScoreBlock, score_blocks
from recall.evaluation.scorers import Scorer

HALF_EXPOSURES = 5.0
K = 50
# In logits, so that they suit every temperature. At 5 the lists of the simulated community hold little else than new
# items. The negative ones only tell what the best recall is: fewer new items than the model itself gives are shown
# where `index.cold_bias` says so, never by a choice.
LEVELS = (-1.0, -0.5, -0.25, 0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0)


def cold_weights(exposures: Int64s) -> Float32s:
    """Compute the factor of the bias: 1 without exposures, 1/2 at five, 1/21 at 100; float32 [items]."""
    return (1 / (1 + exposures / HALF_EXPOSURES)).astype(np.float32)


def with_cold_bias(vectors: Float32s, exposures: Int64s, bias: float) -> Float32s:
    """Copy served vectors and put the bias into their last dimension.

    Args:
      vectors: float32 [items, width] or [items, codes, width] of `encode_items`; the last dimension is added to every
        score.
      exposures: int64 [items], up to the same moment as the vectors.
      bias: added to the score of an item without exposures.
    """
    biased = vectors.copy()
    biased.T[-1] += np.float32(bias) * cold_weights(exposures)  # [..., items]
    return biased


@dataclasses.dataclass(frozen=True)
class ColdBias:
    """Hold the chosen bias, and the recall on validation at each bias tried.

    Attributes:
      bias: the chosen one.
      curve: one entry per bias tried: bias, recall@50 (all targets), cold_recall@50 (targets without exposures).
    """

    bias: float
    curve: tuple[dict[str, float], ...] = ()


def choose_cold_bias(
    scorer: Scorer,
    examples: EvaluationSet,
    *,
    exposures: Int64s,
    absent: Bools | None = None,
    temperature: float,
    tolerance: float,
    exclude_seen: bool = True,
    block_bytes: int = BLOCK_BYTES,
) -> ColdBias:
    """Choose the largest bias that costs validation recall@50 at most `tolerance` of its best, and never less than 0.

    Cold targets are few as long as cold items are not shown, so the best recall alone would keep them out for ever.
    The tolerance is the price of their exploration.

    Args:
      scorer: the model, its vectors without a bias.
      examples: validation clicks.
      exposures: int64 [items], before the validation period.
      absent: bool [items], items that came only after the validation period. A catalogue of that day would not hold
        them; as candidates they would make cold items look worse than they will be.
      temperature: divisor from scores to logits; biases are tried in multiples of it.
      tolerance: relative, in [0, 1).
      exclude_seen: whether items that the user clicked before are left out of the ranking.
      block_bytes: memory for a block of scores.
    """
    is_cold = exposures[examples.targets] == 0
    if not is_cold.any():
        return ColdBias(0.0)  # nothing to choose by
    weights = cold_weights(exposures)  # [items]
    biases = [level * temperature for level in LEVELS]
    hits = np.zeros((len(biases), len(examples)), bool)
    for block in score_blocks(scorer, examples, exclude_seen=exclude_seen, block_bytes=block_bytes):
        if absent is not None:
            block.scores[:, absent] = -np.inf
        target_weights = weights[examples.targets[block.examples]]
        for level, bias in enumerate(biases):
            biased = biased_scores(block, bias, weights=weights, target_weights=target_weights)
            hits[level, block.examples] = biased.ranks() <= K
    recalls = hits.mean(axis=1)  # [levels]
    # Where no bias adds or takes a hit (a catalogue of K items, a model without any) the largest would win for nothing.
    has_say = (hits != hits[0]).any()
    allowed = np.flatnonzero(recalls >= (1 - tolerance) * recalls.max()) if has_say else [LEVELS.index(0.0)]
    curve = tuple(
        {
            "bias": bias,
            f"recall@{K}": float(recalls[level]),
            f"cold_recall@{K}": float(hits[level, is_cold].mean()),
        }
        for level, bias in enumerate(biases)
    )
    return ColdBias(max(0.0, biases[allowed[-1]]), curve)


def biased_scores(block: ScoreBlock, bias: float, *, weights: Float32s, target_weights: Float32s) -> ScoreBlock:
    """Add a bias to the scores of a block.

    Args:
      block: scores [block, items] without it.
      bias: added to the score of an item of weight 1.
      weights: float32 [items], `cold_weights`.
      target_weights: float32 [block], of the targets.
    """
    step = np.float32(bias)
    # Both sums are rounded alike, so that a target still ties with itself.
    return dataclasses.replace(
        block, scores=block.scores + step * weights, target_scores=block.target_scores + step * target_weights
    )
