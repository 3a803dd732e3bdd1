"""The slices and metrics that claims and tables speak of, from metrics blocks and from per-example ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.quality.bias import WARM
from benchmarks.quality.results import Ranks
from recall.evaluation.metrics import example_values

METRICS = ("recall@50", "ndcg@50")
SLICES = ("all", "cold", "cold_among_cold", *WARM)
# Of rolling evaluation: all clicks, and the clicks whose item had so many exposures as of the click.
ROLLING_BOUNDS = {"rolling_0": 0, "rolling_1": 1, "rolling_10": 10, "rolling_100": 100, "rolling_1000": 1000}
ROLLING = ("rolling", *ROLLING_BOUNDS)
SLICE_NAMES = {
    "all": "all",
    "cold": "cold",
    "cold_among_cold": "cold among cold",
    "warm_100": "≥ 100 exposures",
    "warm_1000": "≥ 1000 exposures",
    "rolling": "rolling",
    "rolling_0": "0",
    "rolling_1": "1–9",
    "rolling_10": "10–99",
    "rolling_100": "100–999",
    "rolling_1000": "≥ 1000",
}


def block_value(block: Mapping[str, Any], slice_name: str, metric: str) -> float | None:
    """A metric of a slice from a model's part of metrics.json; None if the slice has no example."""
    if slice_name in ROLLING:
        found: float | None = _rolling_part(block, slice_name).get(metric)
        return found
    if slice_name not in WARM:
        value: float | None = block[slice_name][metric]
        return value
    buckets = [bucket for bucket in block["by_exposures"] if bucket["from"] >= WARM[slice_name] and bucket["examples"]]
    examples = sum(bucket["examples"] for bucket in buckets)
    return sum(bucket[metric] * bucket["examples"] for bucket in buckets) / examples if examples else None


def block_examples(block: Mapping[str, Any], slice_name: str) -> int:
    """How many examples a slice has."""
    if slice_name in ROLLING:
        return int(_rolling_part(block, slice_name).get("examples", 0))
    if slice_name not in WARM:
        return int(block[slice_name]["examples"])
    return sum(int(bucket["examples"]) for bucket in block["by_exposures"] if bucket["from"] >= WARM[slice_name])


def slice_members(ranks: Ranks, slice_name: str) -> npt.NDArray[np.bool_]:
    """Which examples belong to a slice, bool [examples]; none to one of rolling evaluation where there was none."""
    if slice_name in ROLLING:
        return _rolling_members(ranks, slice_name)
    if slice_name in WARM:
        return ranks.exposures >= WARM[slice_name]
    return np.ones(len(ranks.rank), bool) if slice_name == "all" else ranks.is_cold


def slice_values(ranks: Ranks, slice_name: str, metric: str) -> npt.NDArray[np.float64]:
    """What each example of a slice adds to a metric: float64 [examples of the slice], the metric is their mean."""
    rank = ranks.rank_among_cold if slice_name == "cold_among_cold" else ranks.rank
    if slice_name in ROLLING and ranks.rolling_rank is not None:
        rank = ranks.rolling_rank
    return example_values(metric, rank[slice_members(ranks, slice_name)].astype(np.int64))


def _rolling_part(block: Mapping[str, Any], slice_name: str) -> Mapping[str, Any]:
    """Return the metrics of a slice of rolling evaluation; empty where there are none."""
    rolling = block.get("rolling")
    if rolling is None:
        return {}
    if slice_name == "rolling":
        return dict(rolling["all"])
    buckets = (bucket for bucket in rolling["by_exposures"] if bucket["from"] == ROLLING_BOUNDS[slice_name])
    return dict(next(buckets, {}))


def _rolling_members(ranks: Ranks, slice_name: str) -> npt.NDArray[np.bool_]:
    exposures = ranks.rolling_exposures
    if exposures is None:
        return np.zeros(len(ranks.rank), bool)
    if slice_name == "rolling":
        return np.ones(len(ranks.rank), bool)
    lowest = ROLLING_BOUNDS[slice_name]
    above = [bound for bound in ROLLING_BOUNDS.values() if bound > lowest]
    members: npt.NDArray[np.bool_] = (exposures >= lowest) & (exposures < min(above, default=np.inf))
    return members
