"""Gives new items a budget of exposures, released step by step while their results are good.

A pool is what practitioners call a step: a new item may spend the first one whatever comes of it, and gets the next one
if its CTR, shrunk towards the CTR of all, is at least as good as the CTR of all.
"""

from __future__ import annotations

from collections.abc import Sequence

from recall.core.arrays import Bools, Float64s, Int64s

STEPS = (20, 100)
STRENGTH = 20.0


def in_pool(
    exposures: Int64s, clicks: Float64s | Int64s, *, steps: Sequence[int] = STEPS, strength: float = STRENGTH
) -> Bools:
    """Mark the items whose budget is not used up, bool [items].

    Args:
      exposures: int64 [items], known by now.
      clicks: [items], likewise.
      steps: rising; the first one is everybody's, an item that does well gets all of them.
      strength: pseudo-exposures that shrink an item's CTR towards the CTR of all items.
    """
    total = exposures.sum()
    ctr = clicks.sum() / total if total else 0.0
    is_good = clicks + strength * ctr >= ctr * (exposures + strength)
    return (exposures < steps[0]) | ((exposures < steps[-1]) & is_good)
