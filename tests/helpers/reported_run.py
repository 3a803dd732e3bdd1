"""Makes up the inputs of a report: five models with their metrics, and 200 items, 20 of them cold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from recall.runs.report.inputs import RecalledItem, RecallSample, ReportInputs

# recall@50 on all clicks, on cold clicks, on cold clicks among cold items
LEVELS = {
    "gated": (0.2011, 0.0512, 0.1013),
    "behaviour_only": (0.1914, 0.0015, 0.0216),
    "meta_only": (0.1117, 0.0618, 0.1219),
    "popularity": (0.0921, 0.0, 0.0422),
    "item_knn": (0.1523, 0.0024, 0.0325),
}
COLD_ITEMS, ITEMS = 20, 200


def ranking(recall_50: float | None, examples: int) -> dict[str, Any]:
    shares = {10: 0.4, 50: 1.0, 100: 1.3}
    part: dict[str, Any] = {"examples": examples}
    for k, share in shares.items():
        value = None if recall_50 is None else recall_50 * share
        part |= {f"recall@{k}": value, f"hit_rate@{k}": value, f"ndcg@{k}": None if value is None else value / 3}
    return part | {"mrr": None if recall_50 is None else recall_50 / 5}


def model_metrics(everything: float, cold: float, among_cold: float) -> dict[str, Any]:
    return {
        "all": ranking(everything, 4000),
        "cold": ranking(cold, 500),
        "cold_among_cold": ranking(among_cold, 500),
        "by_exposures": [
            {"from": 0, "to": 0, **ranking(cold, 500)},
            {"from": 1, "to": 9, **ranking(None, 0)},
            {"from": 10, "to": None, **ranking(everything * 1.1, 3500)},
        ],
        "ecology": {"coverage@100": everything, "gini@100": 1 - everything, "cold_share@100": cold, "novelty@100": 9.5},
    }


def report_inputs(**changes: Any) -> ReportInputs:
    rng = np.random.default_rng(5)
    exposures = np.concatenate([np.zeros(COLD_ITEMS, int), rng.integers(1, 3000, ITEMS - COLD_ITEMS)])
    items = pd.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(ITEMS)],
            "title": [f"Title {row}" for row in range(ITEMS)],
            "exposures": exposures,
            "clicks": exposures // 3,
            "behaviour_share": exposures / (exposures + 30.0),
        }
    )
    epochs = [
        {"epoch": n, "loss": 5.0 / n, "item_loss": 4.0 / n, "val_recall@50": value, "seconds": 12.0}
        for n, value in enumerate((0.1, 0.1812, 0.15), start=1)
    ]
    recalled = [RecalledItem("A cold one", 0.91, 0, True, hit=True), RecalledItem("A warm one", 0.52, 1234, False)]
    content: dict[str, Any] = {
        "title": "A run",
        "config_yaml": "seed: 1\n",
        "metrics": {
            "test": {name: model_metrics(*levels) for name, levels in LEVELS.items()},
            "validation": {"gated": {"all": ranking(0.2222, 900)}},
            "index": {"kind": "exact", "recall@100_vs_exact": 1.0},
            "timing": {"prepare": 12.3, "train": {"gated": 245.0}},
        },
        "configured": "gated",
        "training": {"gated": epochs, "meta_only": epochs[:2]},
        "items": items,
        "vectors": rng.normal(size=(ITEMS, 8)).astype(np.float32),
        "samples": [RecallSample("u7", ["First", "Second"], recalled)],
        "counts": {
            "rows_read": 20_000,
            "rejected": {"time is missing": 8, "click is not a number": 32},
            "duplicates": 164,
            "events": 19_796,
            "clicks": 9_000,
            "users": 321,
            "items": ITEMS,
            "examples": {"train": 4_500, "validation": 500, "test": 4_000},
        },
        "versions": {"tensorflow": "2.20.0"},
    }
    return ReportInputs(**(content | changes))


def with_test(inputs: ReportInputs, test: dict[str, Any]) -> ReportInputs:
    return replace(inputs, metrics={**inputs.metrics, "test": test})
