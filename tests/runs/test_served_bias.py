"""Which cold bias a run is served with: chosen as of the start of validation, or as of the hours of its clicks."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recall.config.experiment import Config
from recall.data.prepared import PreparedData
from recall.evaluation.cold_bias import ColdBias, choose_cold_bias
from recall.evaluation.scorers import VectorScorer
from recall.model.batches.dataset import read_examples
from recall.model.inference import encode_items, encode_queries
from recall.model.recall_model import RecallModel
from recall.runs import served_bias
from recall.runs.judging import Judge, ModelItems
from recall.runs.served_bias import cold_bias
from tests.conftest import Experiment


def first_events(settings: Config, prepared: PreparedData) -> np.ndarray:
    """Return the time of each item's first event in the raw log; NaN without events."""
    log = pd.read_parquet(settings.data.events.path)
    return log.groupby("item_id").time_ms.min().reindex(prepared.item_ids.to_pylist()).to_numpy()


def test_bias_is_chosen_on_validation_without_the_items_that_came_later(
    variant: Experiment, prepared_data: PreparedData, model: RecallModel
) -> None:
    settings = variant("evaluation.refresh=none")
    examples, before = read_examples(prepared_data.shards("validation")), prepared_data.posterior("validation")
    scorer = VectorScorer(encode_queries(model, examples), encode_items(model, before)[0])
    absent = first_events(settings, prepared_data) >= prepared_data.manifest["split"]["test_start_ms"]
    assert absent.any()
    chosen_by = {"temperature": float(model.temperature), "tolerance": 0.01}
    expected = choose_cold_bias(scorer, examples, exposures=before.exposures, absent=absent, **chosen_by)
    assert cold_bias(settings, prepared_data, model) == expected
    assert len(expected.curve) > 1
    # A split without a common clock does not say what came later.
    clockless = dataclasses.replace(prepared_data, manifest={**prepared_data.manifest, "split": {"by": "last_click"}})
    everything = choose_cold_bias(scorer, examples, exposures=before.exposures, **chosen_by)
    assert cold_bias(settings, clockless, model) == everything


def test_bias_is_chosen_on_a_seeded_part_of_many_examples(
    settings: Config, prepared_data: PreparedData, model: RecallModel
) -> None:
    few = cold_bias(settings, prepared_data, model, limit=20)
    assert few == cold_bias(settings, prepared_data, model, limit=20)
    for point in few.curve:
        assert point["recall@50"] * 20 == pytest.approx(round(point["recall@50"] * 20))


def test_bias_that_the_experiment_gives_is_taken_as_it_is(
    variant: Experiment, prepared_data: PreparedData, model: RecallModel
) -> None:
    for number in (0.07, 0.0, -0.3):
        assert cold_bias(variant(f"index.cold_bias={number}"), prepared_data, model) == ColdBias(number)


@pytest.fixture
def any_clicks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one click on a new item be enough."""
    monkeypatch.setattr(served_bias, "FEWEST", 1)


@pytest.mark.usefixtures("any_clicks")
def test_rolling_choice_says_of_each_bias_what_rolling_evaluation_measures(
    settings: Config, prepared_data: PreparedData, model: RecallModel
) -> None:
    assert settings.refresh_ms == 3_600_000
    # Without a common clock nothing is known to come later, and all items are candidates in both.
    clockless = dataclasses.replace(prepared_data, manifest={**prepared_data.manifest, "split": {"by": "last_click"}})
    found = cold_bias(settings, clockless, model)
    examples = read_examples(prepared_data.shards("validation"))
    judge, queries = Judge(settings, prepared_data, "validation"), encode_queries(model, examples)
    biases = [point["bias"] for point in found.curve]
    assert min(biases) < 0 < max(biases)
    for point in found.curve[::6]:
        judge(
            "it", ModelItems(model, prepared_data, judge.posterior, cold_bias=point["bias"]).answer(queries), examples
        )
        measured: dict[str, Any] = judge.metrics["it"]["rolling"]["all"]
        assert point["recall@50"] == pytest.approx(measured["recall@50"])
    best = max(point["recall@50"] for point in found.curve)
    within = {point["bias"]: point["cold_recall@50"] for point in found.curve if point["recall@50"] >= 0.99 * best}
    assert within[found.bias] == max(within.values())


def test_few_clicks_on_new_items_leave_the_choice_to_the_start_of_the_period(
    variant: Experiment, prepared_data: PreparedData, model: RecallModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolling, frozen = (
        cold_bias(variant(f"evaluation.refresh={refresh}"), prepared_data, model) for refresh in ("1h", "none")
    )
    assert rolling.cold_clicks > 0
    for fewest, expected in ((rolling.cold_clicks, rolling), (rolling.cold_clicks + 1, frozen)):
        monkeypatch.setattr(served_bias, "FEWEST", fewest)
        assert cold_bias(variant("evaluation.refresh=1h"), prepared_data, model) == expected


@pytest.mark.usefixtures("any_clicks")
def test_items_that_came_after_validation_are_no_candidates_of_the_rolling_choice(
    settings: Config, prepared_data: PreparedData, model: RecallModel
) -> None:
    clockless = dataclasses.replace(prepared_data, manifest={**prepared_data.manifest, "split": {"by": "last_click"}})
    fewer, all_items = (cold_bias(settings, data, model).curve for data in (prepared_data, clockless))
    assert all(few["recall@50"] >= many["recall@50"] for few, many in zip(fewer, all_items, strict=True))
    assert fewer != all_items
