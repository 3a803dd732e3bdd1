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
from recall.training.validation import Validation
from tests.conftest import Experiment
from tests.helpers.trained_models import TRAINED_SMALL
from tests.training.conftest import recall_at, validation_vectors


def test_the_published_model_is_the_best_epoch_and_its_metric_is_exact(trained: Path, prepared: PreparedData) -> None:
    history = read_history(trained)
    values = [entry["val_recall@20"] for entry in history]
    assert read_manifest(trained, made_by="")["best_epoch"] == 1 + int(np.argmax(values))
    assert recall_at(load_model(trained, prepared), prepared, 20) == pytest.approx(max(values))


def test_the_averaged_weights_are_judged_and_published(
    trained_small: Path, experiment: Experiment, prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw: list[np.ndarray] = []

    def measure_and_note(validation: Validation) -> float:
        raw.append(validation_vectors(validation._judged, prepared))
        return measured(validation)

    measured = Validation._measure
    monkeypatch.setattr(Validation, "_measure", measure_and_note)
    train(experiment(*TRAINED_SMALL, "training.ema=0.9"), prepared, tmp_path / "model", saved_models=False)
    published, best = {}, {}
    for name, directory in (("last", trained_small), ("average", tmp_path / "model")):
        model, values = load_model(directory, prepared), [entry["val_recall@20"] for entry in read_history(directory)]
        assert recall_at(model, prepared, 20) == pytest.approx(max(values))
        published[name], best[name] = validation_vectors(model, prepared), int(np.argmax(values))
    # Averaging leaves the weights that are trained as they are without it, and publishes others.
    np.testing.assert_array_equal(raw[best["last"]], published["last"])
    assert np.abs(raw[best["average"]] - published["average"]).max() > 0.01


def test_an_i2i_model_without_validation_triggers_is_refused(experiment: Experiment, tmp_path: Path) -> None:
    config = experiment("data.trigger.window=0", "model.query=trigger")
    prepare(config, tmp_path / "data")
    with pytest.raises(DataError, match=r"no validation click has a trigger.*widen data.trigger.window"):
        train(config, PreparedData.load(tmp_path / "data"), tmp_path / "run" / "model")
    assert not (tmp_path / "run" / "model").exists()
