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
SLICE_NAMES = {
    "all": "all",
    "cold": "cold",
    "cold_among_cold": "cold among cold",
    "warm_100": "≥ 100 exposures",
    "warm_1000": "≥ 1000 exposures",
}


def block_value(block: Mapping[str, Any], slice_name: str, metric: str) -> float | None:
    """A metric of a slice from a model's part of metrics.json; None if the slice has no example."""
    if slice_name not in WARM:
        value: float | None = block[slice_name][metric]
        return value
    buckets = [bucket for bucket in block["by_exposures"] if bucket["from"] >= WARM[slice_name] and bucket["examples"]]
    examples = sum(bucket["examples"] for bucket in buckets)
    return sum(bucket[metric] * bucket["examples"] for bucket in buckets) / examples if examples else None


def block_examples(block: Mapping[str, Any], slice_name: str) -> int:
    """How many examples a slice has."""
    if slice_name not in WARM:
        return int(block[slice_name]["examples"])
    return sum(int(bucket["examples"]) for bucket in block["by_exposures"] if bucket["from"] >= WARM[slice_name])


def slice_members(ranks: Ranks, slice_name: str) -> npt.NDArray[np.bool_]:
    """Which examples belong to a slice, bool [examples]."""
    if slice_name in WARM:
        return ranks.exposures >= WARM[slice_name]
    return np.ones(len(ranks.rank), bool) if slice_name == "all" else ranks.is_cold


def slice_values(ranks: Ranks, slice_name: str, metric: str) -> npt.NDArray[np.float64]:
    """What each example of a slice adds to a metric: float64 [examples of the slice], the metric is their mean."""
    rank = ranks.rank_among_cold if slice_name == "cold_among_cold" else ranks.rank
    return example_values(metric, rank[slice_members(ranks, slice_name)].astype(np.int64))
