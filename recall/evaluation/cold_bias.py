"""Chooses and applies the cold bias: the share of the lists that new items get, as one number in any index.

A model's scores say how likely a click is, and nearly always the most likely one is on a known item. The share of new
content is a decision of the feed. The bias makes this decision: bias / (1 + exposures / 5) is added to the scores of an
item, through the last dimension of its vector, where every query holds a 1. Any inner-product index can search it.

The rule of the choice: of the biases whose recall@50 of all validation clicks is at most a tolerance below the best,
the one that recalls most clicks on new items; of equals the one nearest to 0, of these the one with the higher recall.
Clicks on new items are few as long as new items are not shown, so the best recall alone would keep them out for ever;
the tolerance is the price of their exploration, and is paid only where it buys such clicks. `choose_rolling_cold_bias`
asks as a service answers, with items as of the last refresh: an item is new for hours there, not for the whole period,
and the log tells what a place in the list brings in these hours. It may choose less than 0, where the model by itself
gives new items more places than all clicks together can pay for. `choose_cold_bias` has items as of the start of the
period and never goes below 0: there an item that is held back is held back for days.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from recall.core.arrays import Bools, Float32s, Int32s, Int64s
from recall.evaluation.ranking import BLOCK_BYTES, EvaluationSet, ScoreBlock, score_blocks
from recall.evaluation.rolling import Published, Window
from recall.evaluation.scorers import Scorer

HALF_EXPOSURES = 5.0
K = 50
# In logits, so that they suit every temperature. At 5 the lists of the simulated community hold little else than new
# items.
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
      cold_clicks: number of targets without exposures, by which it was chosen.
    """

    bias: float
    curve: tuple[dict[str, float], ...] = ()
    cold_clicks: int = 0


class Shown(NamedTuple):
    """Hold how a model answers at a moment.

    Attributes:
      scorer: the model, its vectors without a bias.
      exposures: int64 [items], up to the moment.
    """

    scorer: Scorer
    exposures: Int64s


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
    """Choose by the rule of the module from items as of the start of the validation period, and never less than 0.

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
    trial = _Trial(len(examples), temperature=temperature)
    weights = cold_weights(exposures)  # [items]
    for block in score_blocks(scorer, examples, exclude_seen=exclude_seen, block_bytes=block_bytes):
        if absent is not None:
            block.scores[:, absent] = -np.inf
        trial.add(block, weights, examples.targets[block.examples], first=block.examples.start)
    return trial.choose(exposures[examples.targets] == 0, tolerance=tolerance, least=0.0)


def choose_rolling_cold_bias(
    as_of: Callable[[Window], Shown],
    examples: EvaluationSet,
    cut: Sequence[Window],
    *,
    published: Published | None = None,
    absent: Bools | None = None,
    temperature: float,
    tolerance: float,
    exclude_seen: bool = True,
    block_bytes: int = BLOCK_BYTES,
) -> ColdBias:
    """Choose by the rule of the module from items as of the last refresh before each validation click.

    Exposures, and whether a target is cold, are as of the refresh before the click, as in the served vectors.

    Args:
      as_of: answers the examples of a window, counted from 0; called once for each window, in their order.
      examples: validation clicks, in order of time.
      cut: result of `rolling.windows` for them.
      published: leaves out the items that come after a click; None: all items are always there.
      absent: as `choose_cold_bias`.
      temperature: as `choose_cold_bias`.
      tolerance: relative, in [0, 1).
      exclude_seen: whether items that the user clicked before are left out of the ranking.
      block_bytes: memory for a block of scores.
    """
    trial = _Trial(len(examples), temperature=temperature)
    is_cold = np.zeros(len(examples), bool)
    for window in cut:
        scorer, exposures = as_of(window)
        asked, first, weights = examples.between(window.examples), window.examples.start, cold_weights(exposures)
        is_cold[window.examples] = exposures[asked.targets] == 0
        for block in score_blocks(scorer, asked, exclude_seen=exclude_seen, block_bytes=block_bytes):
            if absent is not None:
                block.scores[:, absent] = -np.inf
            if published:
                published.leave_out_later(block, slice(first + block.examples.start, first + block.examples.stop))
            trial.add(block, weights, asked.targets[block.examples], first=first + block.examples.start)
    return trial.choose(is_cold, tolerance=tolerance)


class _Trial:
    """Collect which targets each bias brings into the lists of 50, and choose."""

    def __init__(self, examples: int, *, temperature: float) -> None:
        self.biases = [level * temperature for level in LEVELS]
        self._hits = np.zeros((len(LEVELS), examples), bool)

    def add(self, block: ScoreBlock, weights: Float32s, targets: Int32s, *, first: int) -> None:
        """Try all biases on a block, whose first example is the one at `first`; targets int32 [block] are item rows."""
        for hits, bias in zip(self._hits, self.biases, strict=True):
            biased = biased_scores(block, bias, weights=weights, target_weights=weights[targets])
            hits[first : first + len(targets)] = biased.ranks() <= K

    def choose(self, is_cold: Bools, *, tolerance: float, least: float = -np.inf) -> ColdBias:
        """Choose a bias of at least `least` by the rule of the module; 0 where none is within the tolerance.

        Args:
          is_cold: bool [examples]; 0 is chosen where no target is cold.
          tolerance: relative, in [0, 1).
          least: the smallest bias that may be chosen; the curve has all.
        """
        if not is_cold.any():
            return ColdBias(0.0)  # nothing to choose by
        recalls, cold_recalls = self._hits.mean(axis=1), self._hits[:, is_cold].mean(axis=1)  # [levels]
        within = (recalls >= (1 - tolerance) * recalls.max()) & (np.array(self.biases) >= least)
        chosen = max(
            np.flatnonzero(within),
            key=lambda level: (cold_recalls[level], -abs(LEVELS[level]), recalls[level]),
            default=None,
        )
        curve = tuple(
            {"bias": bias, f"recall@{K}": float(recall), f"cold_recall@{K}": float(cold_recall)}
            for bias, recall, cold_recall in zip(self.biases, recalls, cold_recalls, strict=True)
        )
        return ColdBias(0.0 if chosen is None else self.biases[chosen], curve, int(is_cold.sum()))


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
