"""Tests validation: the metric is exact, and it is the metric of the weights that are published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.training_data import prepare
from recall.core.artifacts import read_manifest
from recall.core.errors import DataError
from recall.data.prepared import PreparedData
from recall.training.published import load_model, read_history
from recall.training.train import train
from tests.conftest import Experiment
from tests.training.conftest import SMALL, recall_at, validation_vectors


def test_the_published_model_is_the_best_epoch_and_its_metric_is_exact(trained: Path, prepared: PreparedData) -> None:
    history = read_history(trained)
    values = [entry["val_recall@20"] for entry in history]
    assert read_manifest(trained, made_by="")["best_epoch"] == 1 + int(np.argmax(values))
    assert recall_at(load_model(trained, prepared), prepared, 20) == pytest.approx(max(values))


def test_the_averaged_weights_are_judged_and_published(
    experiment: Experiment, prepared: PreparedData, tmp_path: Path
) -> None:
    settings = (*SMALL, "training.learning_rate=0.05", "training.metric_k=20")
    vectors = {}
    for name, overrides in {
        "last": ["training.ema=null"],
        "just last": ["training.ema=1e-9"],
        "average": ["training.ema=0.9"],
    }.items():
        directory = tmp_path / name
        train(experiment(*settings, *overrides), prepared, directory, saved_models=False)
        model = load_model(directory, prepared)
        best = max(entry["val_recall@20"] for entry in read_history(directory))
        assert recall_at(model, prepared, 20) == pytest.approx(best)
        vectors[name] = validation_vectors(model, prepared)
    np.testing.assert_array_equal(vectors["just last"], vectors["last"])
    assert np.abs(vectors["average"] - vectors["last"]).max() > 0.01


def test_an_i2i_model_without_validation_triggers_is_refused(experiment: Experiment, tmp_path: Path) -> None:
    config = experiment("data.trigger.window=0", "model.query=trigger")
    prepare(config, tmp_path / "data")
    with pytest.raises(DataError, match=r"no validation click has a trigger.*widen data.trigger.window"):
        train(config, PreparedData.load(tmp_path / "data"), tmp_path / "run" / "model")
    assert not (tmp_path / "run" / "model").exists()
