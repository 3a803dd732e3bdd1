"""Tests `train`: it learns, gives the same model for a seed, and publishes nothing before it is done."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from recall.core.artifacts import read_manifest
from recall.data.prepared import PreparedData
from recall.model.recall_model import RecallModel
from recall.training.published import load_model, read_history
from recall.training.train import train
from tests.conftest import Experiment
from tests.training.conftest import LEARNING, SMALL, recall_at, script_metric, validation_vectors


def test_training_finds_more_held_out_clicks_than_an_untrained_model(
    trained: Path, experiment: Experiment, prepared: PreparedData
) -> None:
    tf.keras.utils.set_random_seed(1)
    untrained = RecallModel(experiment(*LEARNING), prepared)
    untrained.build_layers()
    best = max(entry["val_recall@20"] for entry in read_history(trained))
    # 84 clicks: one standard deviation of a recall of 0.2 is 0.04.
    assert best > recall_at(untrained, prepared, 20) + 0.08


def test_a_finished_training_leaves_its_model_and_nothing_else(trained: Path) -> None:
    assert [path.name for path in trained.parent.iterdir()] == ["model"]
    assert read_manifest(trained, made_by="", verify=True)["fingerprint"] == "this"
    assert list(trained.glob("tensorboard/**/events.out.*"))


def test_a_seed_gives_the_same_model(
    trained: Path, experiment: Experiment, prepared: PreparedData, tmp_path: Path
) -> None:
    train(experiment(*LEARNING), prepared, tmp_path / "again", saved_models=False)
    assert_same_training(trained, tmp_path / "again", prepared)


def test_a_seed_gives_the_same_windows_and_model(
    experiment: Experiment, prepared_by_user: PreparedData, tmp_path: Path
) -> None:
    config = experiment("data.layout=user", *SMALL, "training.batch_size=16", "training.epochs=2")
    for name in ("one", "other"):
        train(config, prepared_by_user, tmp_path / name, saved_models=False)
    assert_same_training(tmp_path / "one", tmp_path / "other", prepared_by_user)


def assert_same_training(one: Path, other: Path, prepared: PreparedData) -> None:
    """Compare two trainings up to the order in which threads add; on one machine they are mostly equal bit by bit."""
    losses = [[entry["loss"] for entry in read_history(directory)] for directory in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    vectors = [validation_vectors(load_model(directory, prepared), prepared) for directory in (one, other)]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-3)


def test_a_failing_training_leaves_the_model_that_was_there(
    trained: Path,
    experiment: Experiment,
    prepared: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(trained, directory)
    script_metric(monkeypatch, [])
    with pytest.raises(IndexError):
        train(experiment(*SMALL), prepared, directory, fingerprint="other")
    assert read_manifest(directory, made_by="", verify=True)["fingerprint"] == "this"
    np.testing.assert_array_equal(
        validation_vectors(load_model(directory, prepared), prepared),
        validation_vectors(load_model(trained, prepared), prepared),
    )
