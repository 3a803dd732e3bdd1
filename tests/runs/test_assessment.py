"""Tests which models are evaluated on which examples, how the index is measured, and the inputs of the report."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recall.config.experiment import Config
from recall.data.prepared import PreparedData
from recall.index import ExactIndex, build_index
from recall.model.batches.dataset import read_examples
from recall.model.inference import encode_items
from recall.model.recall_model import RecallModel
from recall.runs.assessment import evaluate_models, index_summary, report_inputs, sample_queries
from recall.runs.report.inputs import ReportInputs
from recall.serving.recaller import Recaller
from tests.conftest import Experiment

BASELINES = ["popularity", "trending", "item_knn", "content_knn", "content_knn_top3"]


@pytest.fixture(scope="module")
def metrics(finished: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((finished / "metrics.json").read_text())
    return content


@pytest.fixture(scope="module")
def gathered(
    finished: Path, settings: Config, prepared_data: PreparedData, model: RecallModel, metrics: dict[str, Any]
) -> ReportInputs:
    curves, versions = {"gated": finished / "model"}, {"tensorflow": "2"}
    return report_inputs(
        finished, settings, prepared=prepared_data, model=model, metrics=metrics, curves=curves, versions=versions
    )


# Models side by side


def test_the_baselines_stand_beside_the_configured_model(metrics: dict[str, Any]) -> None:
    for split in ("test", "validation"):
        assert list(metrics[split]) == ["gated", "gated_trigger", *BASELINES]
        assert metrics[split]["content_knn"]["features"] == ["text"]


def test_the_lists_of_items_like_an_item_are_measured_as_they_are_served(
    metrics: dict[str, Any], finished: Path, prepared_data: PreparedData
) -> None:
    ids = prepared_data.item_ids.to_pylist()
    lists = Recaller.load(finished).similar(ids, k=10).ids
    places = Counter(lists.ravel().tolist())
    measured = metrics["similar"]
    assert (measured["by"], measured["queries"]) == ("trigger", len(ids))
    assert measured["coverage@10"] == pytest.approx(len(places) / len(ids))
    hubs = sum(count for _, count in places.most_common(10)) / lists.size
    assert measured["hub_share_10@10"] == pytest.approx(hubs)


def test_everybody_is_asked_about_every_click_and_triggers_about_those_with_one(
    metrics: dict[str, Any], prepared_data: PreparedData
) -> None:
    for split in ("test", "validation"):
        examples = read_examples(prepared_data.shards(split))
        triggered = int((examples.triggers >= 0).sum())
        assert 0 < triggered < len(examples)
        counted = {name: parts["all"]["examples"] for name, parts in metrics[split].items()}
        everybody = dict.fromkeys(["gated", *BASELINES], len(examples))
        assert counted == {**everybody, "gated_trigger": triggered}


def test_models_are_loaded_one_after_the_other_and_named_as_asked(
    settings: Config, prepared_data: PreparedData, model: RecallModel, metrics: dict[str, Any]
) -> None:
    loaded: list[str] = []

    def load(name: str) -> RecallModel:
        loaded.append(name)
        return model

    results = evaluate_models(settings, prepared_data, ["one", "other"], load=load)
    assert loaded == ["one", "other"]
    assert results["test"]["one"] == results["test"]["other"]
    assert results["test"]["one"]["all"] == pytest.approx(metrics["test"]["gated"]["all"])
    assert [name for name in results["test"] if "trigger" not in name] == ["one", *BASELINES, "other"]


# The cold bias


def test_models_are_judged_with_the_bias_that_they_are_served_with(
    variant: Experiment, prepared_data: PreparedData, model: RecallModel, metrics: dict[str, Any]
) -> None:
    for split in ("test", "validation"):
        biases = {name: parts.get("cold_bias") for name, parts in metrics[split].items()}
        served = metrics["index"]["cold_bias"]
        assert biases == {"gated": served, "gated_trigger": served, **dict.fromkeys(BASELINES)}
    shares = []
    for number in (0, 0.3, 3):
        judged = evaluate_models(variant(f"index.cold_bias={number}"), prepared_data, ["it"], load=lambda name: model)
        assert judged["test"]["it"]["cold_bias"] == number
        shares.append(judged["test"]["it"]["ecology"]["cold_share@100"])
    assert shares[0] < shares[1] < shares[2]


# The index


def exact_index(items: int) -> ExactIndex:
    vectors = np.random.default_rng(3).normal(size=(items, 6)).astype(np.float32)
    built = build_index([f"i{row}" for row in range(items)], vectors)
    assert isinstance(built, ExactIndex)
    return built


class Halved(ExactIndex):
    """Find every second of the best items, and beside them the worst."""

    def best_entries(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        rows, scores = super().best_entries(queries, len(self))
        chosen = [*range(0, k, 2), *range(len(self) - k // 2, len(self))]
        return rows[:, chosen], scores[:, chosen]


def test_recall_of_an_index_is_the_share_of_the_true_best_that_it_finds() -> None:
    index, queries = exact_index(200), np.random.default_rng(4).normal(size=(9, 6)).astype(np.float32)
    exact = index_summary(index, queries)
    assert (exact["recall@100_vs_exact"], exact["is_exact"], exact["items"], exact["dim"]) == (1.0, True, 200, 6)
    assert exact["query_ms_p50"] > 0
    assert index_summary(Halved(index.items), queries)["recall@100_vs_exact"] == pytest.approx(0.5)
    json.dumps(exact, allow_nan=False)


def test_a_catalogue_smaller_than_the_list_is_measured_at_its_size() -> None:
    assert index_summary(exact_index(40), np.ones((2, 6), np.float32))["recall@100_vs_exact"] == 1.0


def test_sample_queries_are_a_seeded_choice_of_validation_queries(
    model: RecallModel, prepared_data: PreparedData
) -> None:
    everything = sample_queries(model, prepared_data, seed=1)
    assert everything.shape == (prepared_data.manifest["counts"]["examples"]["validation"], 9)
    few = sample_queries(model, prepared_data, seed=1, limit=5)
    assert few.shape == (5, 9)
    np.testing.assert_array_equal(few, sample_queries(model, prepared_data, seed=1, limit=5))
    distances = np.abs(everything[:, np.newaxis] - few).max(axis=2)  # [validation, few]
    assert distances.min(axis=0).max() < 1e-5


# The report


def test_items_of_the_report_are_as_of_the_start_of_the_test_period(
    gathered: ReportInputs, settings: Config, prepared_data: PreparedData, model: RecallModel
) -> None:
    log = pd.read_parquet(settings.data.events.path)
    past = log[log.time_ms < prepared_data.manifest["split"]["test_start_ms"]]
    catalogue = pd.read_parquet(settings.data.items.path)
    assert gathered.items.item_id.tolist() == catalogue.item_id.tolist()
    assert gathered.items.title.tolist() == catalogue.title.tolist()
    exposures = past.groupby("item_id").size().reindex(catalogue.item_id, fill_value=0)
    assert gathered.items.exposures.tolist() == exposures.tolist()
    vectors, shares = encode_items(model, prepared_data.posterior("test").stacked())
    np.testing.assert_array_equal(gathered.vectors[:, :-1], vectors[:, :-1])
    bias = gathered.metrics["index"]["cold_bias"] / (1 + exposures.to_numpy() / 5)
    np.testing.assert_allclose(gathered.vectors[:, -1], vectors[:, -1] + bias, atol=1e-6)
    np.testing.assert_array_equal(gathered.items.behaviour_share, shares)


def test_sample_lists_show_unseen_items_and_mark_what_was_clicked_later(
    gathered: ReportInputs, settings: Config, prepared_data: PreparedData
) -> None:
    log = pd.read_parquet(settings.data.events.path)
    clicks = log[log.is_click == 1]
    ids = pd.read_parquet(settings.data.items.path).set_index("title").item_id
    exposures = dict(zip(gathered.items.item_id, gathered.items.exposures, strict=True))
    start = prepared_data.manifest["split"]["test_start_ms"]
    assert 1 <= len(gathered.samples) <= 6
    for sample in gathered.samples:
        own = clicks[clicks.user_id == sample.user]
        later = set(own[own.time_ms >= start].item_id)
        history = [ids[title] for title in sample.history]
        assert 1 <= len(history) <= 8
        assert set(history) <= set(own.item_id)
        scores = [item.score for item in sample.recalled]
        assert scores == sorted(scores, reverse=True)
        for item in sample.recalled:
            row = ids[item.title]
            assert row not in history
            assert item.hit == (row in later)
            assert item.exposures == exposures[row]
            assert item.is_cold == (exposures[row] == 0)


def test_the_report_has_a_curve_per_model_and_the_counts(gathered: ReportInputs, prepared_data: PreparedData) -> None:
    assert [epoch["epoch"] for epoch in gathered.training["gated"]] == [1]
    assert gathered.counts == prepared_data.manifest["counts"]
    assert gathered.configured == "gated"
