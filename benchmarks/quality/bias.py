"""How a model trades warm against cold recall when items with few exposures get a bonus.

Every score gets a cold bias (`recall/evaluation/cold_bias.py`) in place of the one that the model is served with; level
0 is the model without any. A model that is better at one end of the feed only because it is worse at the other falls
below the curve of a model that is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recall.evaluation.cold_bias import biased_scores, cold_weights
from recall.evaluation.ranking import BLOCK_BYTES, EvaluationSet, score_blocks
from recall.evaluation.scorers import Scorer

Floats = npt.NDArray[np.float64]

CURVE_K = 50
WARM = {"warm_100": 100, "warm_1000": 1000}
# In spans of the model's scores: 0, and geometric steps until cold items come first (or last).
LEVELS = (
    *(-0.005 * 2.0**step for step in range(7, -1, -1)),
    0.0,
    *(0.0025 * 2.0 ** (step / 2) for step in range(19)),
)


def bias_curve(
    scorer: Scorer,
    examples: EvaluationSet,
    *,
    exposures: npt.NDArray[np.int64],
    exclude_seen: bool,
    levels: Sequence[float] = LEVELS,
    block_bytes: int = BLOCK_BYTES,
) -> dict[str, list[float] | None]:
    """Recall of cold and of warm targets for each bias.

    Args:
      scorer: the model without its cold bias.
      examples: what was clicked in the evaluated period.
      exposures: int64 [items], before the period.
      exclude_seen: whether what the user clicked before is left out of the ranking.
      levels: biases, in spans (largest minus smallest) of the first block's scores.
      block_bytes: memory for a block of scores.

    Returns:
      Lists with an entry per level: "level", "bias", and recall@50, exact and on the whole catalogue, of "all", "cold",
      "warm_100" and "warm_1000"; None instead of a list for a slice without examples.
    """
    of_target = exposures[examples.targets]
    slices = {"all": of_target >= 0, "cold": of_target == 0}
    slices |= {name: of_target >= least for name, least in WARM.items()}
    weights = cold_weights(exposures)  # [items]
    hits = np.zeros((len(levels), len(examples)), bool)
    span: float | None = None
    for block in score_blocks(scorer, examples, exclude_seen=exclude_seen, block_bytes=block_bytes):
        if span is None:
            ranked = block.scores[np.isfinite(block.scores)]
            span = float(ranked.max() - ranked.min()) or 1.0
        target_weights = weights[examples.targets[block.examples]]  # [block]
        for index, level in enumerate(levels):
            biased = biased_scores(block, level * span, weights=weights, target_weights=target_weights)
            hits[index, block.examples] = biased.ranks() <= CURVE_K
    curve: dict[str, list[float] | None] = {"level": list(levels), "bias": [level * (span or 0.0) for level in levels]}
    for name, members in slices.items():
        curve[name] = hits[:, members].mean(axis=1).tolist() if members.any() else None
    return curve


def warm_recall_at(levels: Floats, hull: tuple[Floats, Floats]) -> Floats:
    """The warm recall that a frontier leaves at each level of cold recall; 0 beyond its largest cold recall."""
    return np.interp(levels, *hull, right=0.0)


def least_margin(hull: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> tuple[float, float]:
    """How far a frontier lies above another where it is closest (negative: below).

    Looked at over the levels of cold recall that the other attains. Between corners both are straight, so that the
    least margin is at a corner of one of them.

    Returns:
      The margin in warm recall, and the cold recall where it is found.
    """
    last = other[0][-1]
    levels = np.unique(np.concatenate([[0.0, last], hull[0], other[0]]))
    # Right behind the hull's end its warm recall is 0; that level is no corner of the other.
    if hull[0][-1] < last:
        levels = np.unique(np.append(levels, np.nextafter(hull[0][-1], 1.0)))
    levels = levels[levels <= last]
    margins = warm_recall_at(levels, hull) - warm_recall_at(levels, other)
    least = int(np.argmin(margins))
    return float(margins[least]), float(levels[least])
