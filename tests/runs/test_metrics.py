"""Tests that metrics are an ordinary dictionary, and a table of models in a notebook."""

from __future__ import annotations

import json
from typing import Any

from recall.runs.metrics import Metrics, shown_k
from tests.core.test_html import Reader


def measured(*, cold: float | None) -> dict[str, Any]:
    return {
        "all": {"examples": 9, "recall@5": 0.1, "recall@20": 0.1234, "ndcg@20": 0.0456, "recall@100": 0.4},
        "cold": {"recall@20": cold},
        "cold_among_cold": {"recall@20": cold},
        "ecology": {"coverage@100": 0.9876, "cold_share@100": 0.0321},
        "rolling": {"all": {"recall@20": 0.2345}},
    }


METRICS = Metrics({"test": {"gated": measured(cold=0.5), "popularity": measured(cold=None)}})


def test_the_table_has_a_row_a_model_with_the_metrics_nearest_to_lists_of_50() -> None:
    head, gated, popularity = Reader(METRICS._repr_html_()).rows
    assert shown_k(METRICS) == 20  # 30 off, 100 is 50 off
    assert head == ["model", "recall", "rolling", "ndcg", "cold", "cold/cold", "coverage", "cold share"]
    assert gated == ["gated", "0.1234", "0.2345", "0.0456", "0.5000", "0.5000", "0.9876", "0.0321"]
    assert popularity[4:6] == ["-", "-"]


def test_metrics_are_a_dictionary_that_json_writes() -> None:
    assert json.loads(json.dumps(METRICS)) == METRICS
    assert METRICS["test"]["gated"]["all"]["recall@5"] == 0.1
