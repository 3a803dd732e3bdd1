"""A run on a log with weights: metrics.json, the terminal and the report say how clicks rank by their weights."""

from __future__ import annotations

import io
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from recall.config.experiment import Config
from recall.evaluation.ranks import Ranks
from recall.runs.console import metrics_table
from tests.conftest import Experiment
from tests.helpers.finished_run import WITH_INTERESTS


@pytest.fixture(scope="module")
def settings(experiment: Experiment) -> Config:
    return experiment(*WITH_INTERESTS)  # its clicks have weights


def counted_one_by_one(ranks: pd.DataFrame) -> Counter[int]:
    """Pairs of one user's clicks by the sign of their order: 1 concordant, -1 discordant, 0 of equal rank."""
    found: Counter[int] = Counter()
    for _, own in ranks.groupby("user"):
        clicks = list(zip(own["rank"].tolist(), own["stars"].tolist(), strict=True))
        for (one, weight), (other, other_weight) in itertools.combinations(clicks, 2):
            if weight != other_weight:
                found[int(np.sign((other - one) * (weight - other_weight)))] += 1
    return found


def test_the_order_of_clicks_by_weight_is_that_of_a_double_loop_over_the_log(finished: Path, settings: Config) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    log = pd.read_parquet(settings.data.events.path).rename(columns={"user_id": "user", "item_id": "item"})
    stars = log[log.is_click == 1].drop_duplicates()[["user", "item", "time_ms", "stars"]]
    published = Ranks.load(finished)
    for split in ("test", "validation"):
        for model in published.models(split):
            ranks = published.table(split, model).to_pandas().astype({"user": str, "item": str})
            joined = ranks.merge(stars, on=["user", "item", "time_ms"], validate="one_to_one")
            assert len(joined) == len(ranks)
            orders = counted_one_by_one(joined)
            assert orders[1] > 0 < orders[-1]
            assert metrics[split][model]["graded"] == {
                "pnr": pytest.approx(orders[1] / orders[-1]),
                "pairs": orders.total(),
                "concordant": orders[1],
                "discordant": orders[-1],
            }


def test_the_terminal_and_the_report_show_the_ratio(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    ratio = metrics["test"]["popularity"]["graded"]["pnr"]
    stream = io.StringIO()
    Console(file=stream, width=200).print(metrics_table(metrics, k=50))
    assert "pnr" in stream.getvalue()
    assert f"{ratio:.4f}" in stream.getvalue()
    page = (finished / "report.html").read_text()
    assert "Order of a user" in page
    assert f"{ratio:.4f}" in page
