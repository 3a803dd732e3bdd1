"""Gives new items a budget of exposures, released step by step while their results are good.

What practitioners call traffic pools: a new item may spend the first step whatever comes of it, and the further ones if
its CTR, shrunk towards the CTR of all items, is at least as good as the CTR of all.
"""

from __future__ import annotations

from collections.abc import Sequence

from recall.core.arrays import Bools, Float64s, Int64s

STRENGTH = 20.0


def within_budget(
    exposures: Int64s, clicks: Float64s | Int64s, *, steps: Sequence[int], strength: float = STRENGTH
) -> Bools:
    """Mark the items whose budget is not used up, bool [items].

    Args:
      exposures: int64 [items], known by now.
      clicks: [items], likewise.
      steps: rising, > 0: exposures that every item may get, and exposures that an item may get that does well.
      strength: pseudo-exposures that shrink an item's CTR towards the CTR of all items.
    """
    total = exposures.sum()
    ctr = clicks.sum() / total if total else 0.0
    is_good = clicks + strength * ctr >= ctr * (exposures + strength)
    return (exposures < steps[0]) | ((exposures < steps[-1]) & is_good)
