"""Compares arms over seeds: means with intervals, and paired differences, as all arms of a seed meet the same users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import special

from recall.runs.loop.measures import MEASURES

CONFIDENCE = 0.95
ORACLE = "oracle"

Played = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Arm -> seed -> result of `Measured`."""


def summarise(played: Played) -> dict[str, Any]:
    """Summarise all arms and seeds.

    Returns:
      {"arms": {arm: {"total": {measure: estimate}, "days": {measure: [estimate of each day]}}},
      "differences": [{"arm", "against", "measure", and the estimate of the paired difference}]}, see `estimate`.
    """
    totals = {arm: [_with_regret(played, arm, seed) for seed in sorted(seeds)] for arm, seeds in played.items()}
    arms = {
        arm: {"total": _estimates(totals[arm]), "days": _daily([seeds[seed]["days"] for seed in sorted(seeds)])}
        for arm, seeds in played.items()
    }
    return {"arms": arms, "differences": _differences(totals)}


def estimate(values: Sequence[float | None]) -> dict[str, Any]:
    """Estimate a mean from one value of each seed.

    Returns:
      {"mean", "low", "high": 95% interval of Student's t over the seeds, "seeds": the values}. The mean is None where a
      seed has none, the interval with fewer than two seeds.
    """
    known = np.array([value for value in values if value is not None], np.float64)
    found: dict[str, Any] = {"mean": None, "low": None, "high": None, "seeds": list(values)}
    if len(known) < len(values) or not len(known):
        return found
    found["mean"] = mean = float(known.mean())
    if len(known) > 1:
        quantile = float(special.stdtrit(len(known) - 1, (1 + CONFIDENCE) / 2))
        half = quantile * float(known.std(ddof=1)) / np.sqrt(len(known))
        found |= {"low": mean - half, "high": mean + half}
    return found


def verdict(difference: Mapping[str, Any]) -> str:
    """Put a difference into words: `higher`, `lower`, `no difference shown`, or `one seed` where it has no interval."""
    if difference["mean"] is None:
        return "undefined"
    if difference["low"] is None:
        return "one seed"
    if difference["low"] > 0:
        return "higher"
    return "lower" if difference["high"] < 0 else "no difference shown"


def _with_regret(played: Played, arm: str, seed: int) -> dict[str, float | None]:
    """Return the totals of an arm, with what the oracle of the same seed had before it."""
    total = dict(played[arm][seed]["total"])
    oracle = played.get(ORACLE, {}).get(seed)
    if oracle:
        best, last = oracle["total"]["probability"], oracle["total"]["last_day_probability"]
        total["regret"] = None if best is None or total["probability"] is None else best - total["probability"]
        own = total["last_day_probability"]
        total["share_of_oracle"] = None if not last or own is None else own / last
    return total


def _estimates(totals: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    return {name: estimate([total[name] for total in totals]) for name in totals[0]}


def _daily(days: Sequence[Mapping[str, Sequence[float | None]]]) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [estimate(values) for values in zip(*(of_seed[name] for of_seed in days), strict=True)]
        for name in days[0]
    }


def _differences(totals: Mapping[str, Sequence[Mapping[str, float | None]]]) -> list[dict[str, Any]]:
    found = []
    for arm, other in combinations(totals, 2):
        for measure in MEASURES:
            if measure not in totals[arm][0] or measure not in totals[other][0]:
                continue
            pairs = [(own[measure], its[measure]) for own, its in zip(totals[arm], totals[other], strict=True)]
            values = [None if own is None or its is None else own - its for own, its in pairs]
            difference = estimate(values)
            found.append(
                {"arm": arm, "against": other, "measure": measure, **difference, "verdict": verdict(difference)}
            )
    return found
