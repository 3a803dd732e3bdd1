"""Tests the loop: when it stops, and which epoch it keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recall.data.prepared import PreparedData
from recall.model.inference import encode_items
from recall.model.recall_model import RecallModel
from recall.training import validation
from recall.training.published import load_model, read_history
from recall.training.train import train
from tests.conftest import Experiment
from tests.helpers.trained_models import SMALL
from tests.training.conftest import script_metric, validation_vectors


def test_training_starts_over_without_resume_stops_after_patience_and_keeps_the_best_epoch(
    interrupted: Path, experiment: Experiment, prepared: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (interrupted.parent / ".model-training" / "state.json").exists()  # of a training that was killed
    used = script_metric(monkeypatch, [0.1, 0.5, 0.4, 0.5, 0.9])
    vectors_of_epoch = []

    def encode_and_note(model: RecallModel, posterior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        vectors, shares = encode_items(model, posterior)
        vectors_of_epoch.append(vectors)
        return vectors, shares

    monkeypatch.setattr(validation, "encode_items", encode_and_note)
    config = experiment(*SMALL, "training.epochs=9", "training.patience=2")
    returned = train(config, prepared, interrupted, fingerprint="this", saved_models=False)
    # The second epoch is the best; an equal value later is no improvement, so two epochs after it are enough.
    assert used == [0.1, 0.5, 0.4, 0.5]
    assert [entry["epoch"] for entry in read_history(interrupted)] == [1, 2, 3, 4]
    assert np.abs(vectors_of_epoch[1] - vectors_of_epoch[-1]).max() > 1e-3
    for model in (returned, load_model(interrupted, prepared)):
        np.testing.assert_array_equal(validation_vectors(model, prepared), vectors_of_epoch[1])
