"""The rolling part of a run's metrics.json, recounted from the raw log: click by click, hour by hour."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recall.config.experiment import Config, load_config
from recall.data.prepared import PreparedData
from recall.model.batches.dataset import Examples, read_examples
from recall.model.inference import encode_items, encode_queries
from recall.model.recall_model import RecallModel
from recall.runs.assessment import evaluate_models
from tests.conftest import Experiment
from tests.helpers.finished_run import CHEAP, Printed

HOUR = 3_600_000
SCORES = Callable[[int, int], np.ndarray]  # of the click of a number, as of a moment


@pytest.fixture(scope="module")
def metrics(finished: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((finished / "metrics.json").read_text())
    return content


@pytest.fixture(scope="module")
def log(settings: Config, prepared_data: PreparedData) -> pd.DataFrame:
    """The raw log with the row of each item, and the end of each event's bucket."""
    events = pd.read_parquet(settings.data.events.path)
    return events.assign(row=prepared_data.rows(events.item_id), end_ms=(events.time_ms // HOUR + 1) * HOUR)


@pytest.fixture(scope="module")
def examples(prepared_data: PreparedData) -> Examples:
    return read_examples(prepared_data.shards("test"))


def counted(events: pd.DataFrame, items: int) -> np.ndarray:
    return np.bincount(events.row, minlength=items)


def assert_ranks_as(
    part: dict[str, Any], examples: Examples, scores: SCORES, *, from_ms: np.ndarray | None = None
) -> None:
    """Compare with ranks among the items that are there at the click: all, or from `from_ms` on, [items]."""
    ranks = []
    for place, target in enumerate(examples.targets.tolist()):
        row = scores(place, int(examples.times_ms[place]) // HOUR * HOUR)
        there = np.arange(len(row)) if from_ms is None else np.flatnonzero(from_ms <= examples.times_ms[place])
        rivals = np.setdiff1d(there, [*examples.seen[place], target])
        ranks.append(1 + int((row[rivals] >= row[target]).sum()))
    assert part["all"]["mrr"] == pytest.approx(np.mean(1 / np.array(ranks)), rel=1e-3)
    assert part["all"]["recall@20"] == pytest.approx(np.mean(np.array(ranks) <= 20), abs=1.5 / len(ranks))


def test_items_of_a_model_are_made_again_every_hour_from_what_was_known_an_hour_before(
    metrics: dict[str, Any], log: pd.DataFrame, examples: Examples, prepared_data: PreparedData, model: RecallModel
) -> None:
    items, prior = len(prepared_data.item_ids), prepared_data.manifest["posterior"]
    queries, made = encode_queries(model, examples), {}

    def vectors(moment_ms: int) -> np.ndarray:
        past = log[log.end_ms <= moment_ms - HOUR]
        exposures, clicks = counted(past, items), counted(past[past.is_click == 1], items)
        strength = prior["prior_strength"]
        ctr = (clicks + prior["prior_ctr"] * strength) / (exposures + strength)
        ages = (moment_ms - past.groupby("row").time_ms.min().reindex(range(items))).fillna(0) / HOUR
        known = [exposures, clicks, ctr, ages]
        for half_life in prior["half_lives_ms"]:
            weights = 0.5 ** ((moment_ms - past.end_ms) / half_life)
            shown = np.bincount(past.row, weights, items)
            clicked = np.bincount(past.row, weights * past.is_click, items)
            known += [shown, clicked, clicked * log.row.nunique() / max(clicked.sum(), 1)]
        found, _ = encode_items(model, np.stack(known, axis=1).astype(np.float32))
        found[:, -1] += metrics["index"]["cold_bias"] / (1 + exposures / 5)
        return found

    def scores(place: int, moment_ms: int) -> np.ndarray:
        if moment_ms not in made:
            made[moment_ms] = vectors(moment_ms)
        return np.asarray(made[moment_ms] @ queries[place])

    assert_ranks_as(metrics["test"]["gated"]["rolling"], examples, scores)
    assert len(made) > 5
    assert metrics["test"]["gated"]["rolling"]["all"]["mrr"] != metrics["test"]["gated"]["all"]["mrr"]


def test_popularity_and_trending_count_clicks_as_of_each_hour(
    metrics: dict[str, Any], log: pd.DataFrame, examples: Examples, prepared_data: PreparedData
) -> None:
    items, clicked = len(prepared_data.item_ids), log[log.is_click == 1]
    trending = metrics["test"]["trending"]
    assert trending["half_life_hours"] == metrics["validation"]["trending"]["half_life_hours"]

    def decayed(moment_ms: int) -> np.ndarray:
        past = clicked[clicked.end_ms <= moment_ms - HOUR]
        ages = (moment_ms - past.end_ms) / HOUR
        return np.bincount(past.row, 0.5 ** (ages / trending["half_life_hours"]), minlength=items).round(12)

    def total(place: int, moment_ms: int) -> np.ndarray:
        return counted(clicked[clicked.end_ms <= moment_ms - HOUR], items)

    assert_ranks_as(metrics["test"]["popularity"]["rolling"], examples, total)
    assert_ranks_as(trending["rolling"], examples, lambda place, moment_ms: decayed(moment_ms))
    start = decayed(prepared_data.manifest["split"]["test_start_ms"])
    assert_ranks_as(trending, examples, lambda place, moment_ms: start)


def test_slices_are_by_exposures_as_of_the_click(
    metrics: dict[str, Any], log: pd.DataFrame, examples: Examples
) -> None:
    exposures = np.array([
        ((log.row == target) & (log.end_ms <= time_ms - HOUR)).sum()
        for target, time_ms in zip(examples.targets, examples.times_ms, strict=True)
    ])  # fmt: skip
    for name in ("gated", "popularity", "trending", "item_knn", "content_knn"):
        rolling = metrics["test"][name]["rolling"]
        assert rolling["cold"]["examples"] == (exposures == 0).sum()
        for bucket in rolling["by_exposures"]:
            last = np.inf if bucket["to"] is None else bucket["to"]
            assert bucket["examples"] == ((exposures >= bucket["from"]) & (exposures <= last)).sum()


def test_items_warm_up_that_the_training_had_never_seen(
    metrics: dict[str, Any], log: pd.DataFrame, examples: Examples, prepared_data: PreparedData
) -> None:
    trained = set(log.row[log.time_ms < prepared_data.manifest["split"]["validation_start_ms"]])
    young = ~np.isin(examples.targets, list(trained))
    clicks = np.array([
        ((log.row == target) & (log.is_click == 1) & (log.end_ms <= time_ms - HOUR)).sum()
        for target, time_ms in zip(examples.targets[young], examples.times_ms[young], strict=True)
    ])  # fmt: skip
    assert len(clicks) > 5
    for part in metrics["test"].values():
        found = part["rolling"]["warm_up"]
        expected = np.histogram(clicks, bins=[0, 1, 3, 10, 30, np.inf])[0]
        if part["rolling"]["all"]["examples"] == len(examples.targets):
            assert [bucket["examples"] for bucket in found] == expected.tolist()


def test_what_is_the_same_at_every_moment_has_the_same_ranks(metrics: dict[str, Any]) -> None:
    for name in ("item_knn", "content_knn", "content_knn_top3"):
        part = metrics["test"][name]
        assert part["rolling"]["all"] == part["all"]
        assert part["rolling"]["ecology"]["coverage@100"] == part["ecology"]["coverage@100"]
        assert part["rolling"]["by_exposures"] != part["by_exposures"]


def test_every_model_of_both_splits_has_a_rolling_part(metrics: dict[str, Any]) -> None:
    assert metrics["rolling"] == {"refresh_ms": HOUR, "why_frozen": None}
    for split in ("test", "validation"):
        for name, part in metrics[split].items():
            still = name in ("item_knn", "content_knn", "content_knn_top3")
            expected = ["all", "cold", "by_exposures", "warm_up", "ecology", *([] if still else ["calibration"])]
            assert list(part["rolling"]) == expected
            assert part["rolling"]["all"]["examples"] == part["all"]["examples"]
            assert set(part["rolling"]["ecology"]) == set(part["ecology"])


def test_without_a_refresh_nothing_rolls_and_the_rest_stays_as_it_is(
    variant: Experiment, prepared_data: PreparedData, model: RecallModel, metrics: dict[str, Any]
) -> None:
    config = variant("evaluation.refresh=none", f"index.cold_bias={metrics['index']['cold_bias']}")
    frozen = evaluate_models(config, prepared_data, ["gated"], load=lambda name: model)["test"]
    assert "trending" not in frozen
    for name, part in frozen.items():
        expected = {key: value for key, value in metrics["test"][name].items() if key != "rolling"}
        assert part["all"] == pytest.approx(expected["all"])
        assert set(part) == set(expected)


def test_items_are_ranked_from_their_publication_and_the_ones_that_were_exposed_before_are_counted(
    printing: Callable[[Config, Path], Printed], community: Path, tmp_path: Path, log: pd.DataFrame
) -> None:
    items = pd.read_parquet(community / "items.parquet")
    first_ms = log.groupby("item_id").time_ms.min()
    exposed = items.item_id.isin(first_ms.index)
    wrong = exposed & (np.arange(len(items)) % 10 == 0)
    items.loc[wrong, "published_ms"] = items.item_id[wrong].map(first_ms) + 7
    items.to_parquet(tmp_path / "items.parquet")
    overrides = [
        f"data.items.path={tmp_path / 'items.parquet'}",
        "data.items.published=published_ms",
        *CHEAP,
        "evaluation.k=[5,20]",
    ]
    config = load_config(community / "experiment.yaml", overrides)
    run = printing(config, tmp_path / "run")
    run.run.prepare()
    [line] = [line for line in run.stream.getvalue().splitlines() if "published after their first exposure" in line]
    assert int(line.split()[-1]) == wrong.sum() > 5

    prepared = PreparedData.load(tmp_path / "run" / "data")
    model = RecallModel(config, prepared)
    model.build_layers()
    found = evaluate_models(config, prepared, ["it"], load=lambda name: model)["test"]
    from_ms = np.minimum(items.published_ms, items.item_id.map(first_ms).fillna(np.inf)).to_numpy()
    clicked = log[log.is_click == 1]

    def total(place: int, moment_ms: int) -> np.ndarray:
        return counted(clicked[clicked.end_ms <= moment_ms - HOUR], len(items))

    examples = read_examples(prepared.shards("test"))
    assert (from_ms > examples.times_ms.min()).any()
    assert_ranks_as(found["popularity"]["rolling"], examples, total, from_ms=from_ms)
    # What is the same at every moment is ranked again, too: a new item without a similar one ties with fewer.
    assert found["item_knn"]["rolling"]["all"]["mrr"] > found["item_knn"]["all"]["mrr"]
    assert found["item_knn"]["rolling"]["all"]["recall@5"] >= found["item_knn"]["all"]["recall@5"]
