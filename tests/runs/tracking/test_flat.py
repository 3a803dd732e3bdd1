"""Tests the names and values that a tracking server gets."""

from __future__ import annotations

import re

from recall.runs.tracking.flat import LONGEST_VALUE, flat_epoch, flat_metrics, flat_settings
from tests.conftest import Experiment

TAKEN = re.compile(r"[\w\-./ ]{1,250}")  # what MLflow says when it refuses a name


def test_settings_are_text_under_dotted_keys(experiment: Experiment) -> None:
    found = flat_settings(experiment("model.dim=16").model_dump(mode="json"))
    assert found["model.dim"] == "16"
    assert found["model.structure"] == "gated"
    assert found["training.stages"] == "[]"
    assert found["data.posterior.half_lives"] == "[7200000, 86400000, 604800000]"
    assert all(TAKEN.fullmatch(key) for key in found)
    assert all(isinstance(value, str) and len(value) <= LONGEST_VALUE for value in found.values())


def test_a_long_value_is_cut_and_says_so() -> None:
    found = flat_settings({"features": {"meta": [{"name": "x" * 600}]}})["features.meta"]
    assert len(found) == LONGEST_VALUE
    assert found.endswith("...")


def test_metrics_are_numbers_under_the_place_they_have_in_the_file() -> None:
    part = {
        "all": {"examples": 4, "recall@50": 0.5},
        "cold": {"examples": 0, "recall@50": None},
        "by_exposures": [
            {"from": 0, "to": 0, "examples": 1, "recall@50": 0.1}, {"from": 10, "to": 99, "examples": 3, "mrr": 0.2},
            {"from": 1000, "to": None, "examples": 2, "mrr": 0.3}, {"from": 5, "to": 9, "examples": 0, "mrr": None},
        ],
        "cold_bias": 0.3,
    }  # fmt: skip
    metrics = {
        "configured": "gated",
        "test": {"gated": {**part, "rolling": part}, "popularity": part},
        "index": {"kind": "exact", "is_exact": True, "recall@100_vs_exact": 1.0, "curve": [1, 2]},
        "timing": {"prepare_seconds": 2.5},
    }
    found = flat_metrics(metrics)
    assert found == {
        "test/gated/all/examples": 4.0, "test/gated/all/recall_at_50": 0.5, "test/gated/cold/examples": 0.0,
        "test/gated/by_exposures/0/examples": 1.0, "test/gated/by_exposures/0/recall_at_50": 0.1,
        "test/gated/by_exposures/10-99/examples": 3.0, "test/gated/by_exposures/10-99/mrr": 0.2,
        "test/gated/by_exposures/1000-/examples": 2.0, "test/gated/by_exposures/1000-/mrr": 0.3,
        "test/gated/rolling/all/examples": 4.0, "test/gated/rolling/all/recall_at_50": 0.5,
        "test/gated/rolling/cold/examples": 0.0,
        "test/gated/rolling/by_exposures/0/examples": 1.0, "test/gated/rolling/by_exposures/0/recall_at_50": 0.1,
        "test/gated/rolling/by_exposures/10-99/examples": 3.0, "test/gated/rolling/by_exposures/10-99/mrr": 0.2,
        "test/gated/rolling/by_exposures/1000-/examples": 2.0, "test/gated/rolling/by_exposures/1000-/mrr": 0.3,
        "test/popularity/all/examples": 4.0, "test/popularity/all/recall_at_50": 0.5,
        "test/popularity/cold/examples": 0.0,
        "index/recall_at_100_vs_exact": 1.0, "timing/prepare_seconds": 2.5,
    }  # fmt: skip


def test_an_epoch_is_named_after_its_model() -> None:
    entry = {"epoch": 3, "loss": 1.5, "val_recall@50": 0.25, "stage": "clicks"}
    assert flat_epoch("gated", entry) == {"training/gated/loss": 1.5, "training/gated/val_recall_at_50": 0.25}
