"""Tests `train`: it learns, gives the same model for a seed, and publishes nothing before it is done."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from recall.core.artifacts import read_manifest
from recall.data.prepared import PreparedData
from recall.model.batches.dataset import training_dataset
from recall.model.recall_model import RecallModel
from recall.training.published import load_model, read_history
from recall.training.train import train
from tests.conftest import Experiment
from tests.helpers.trained_models import SMALL
from tests.training.conftest import LEARNING, recall_at, script_metric, validation_vectors


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


def test_a_seed_gives_the_same_windows_and_model(experiment: Experiment, prepared_by_user: PreparedData) -> None:
    """`train` begins like this; two whole trainings are compared above."""
    config = experiment("data.layout=user")

    def begun() -> tuple[list[dict[str, tf.Tensor]], list[dict[str, tf.Tensor]], np.ndarray]:
        tf.keras.utils.set_random_seed(config.seed)
        model = RecallModel(config, prepared_by_user)
        model.prepare_optimizers()
        windows = training_dataset(
            prepared_by_user, model.user_rows, batch_size=16, history=8, shuffle_buffer=10_000, seed=config.seed
        )
        epochs = [batch for _ in range(2) for batch in windows]  # the second one has other windows
        return epochs, [model.train_step(batch) for batch in epochs[:2]], validation_vectors(model, prepared_by_user)

    (batches, losses, vectors), (again, losses_again, vectors_again) = begun(), begun()
    for one, other in zip(batches, again, strict=True):
        assert one.keys() == other.keys()
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)
    half = len(batches) // 2
    firsts = [np.sort(np.concatenate([batch["items"].numpy().ravel() for batch in part])) for part in
              (batches[:half], batches[half:])]  # fmt: skip
    assert not np.array_equal(*firsts)
    for one, other in zip(losses, losses_again, strict=True):
        assert {name: float(term) for name, term in one.items()} == pytest.approx(
            {name: float(term) for name, term in other.items()}, rel=1e-4
        )
    np.testing.assert_allclose(vectors, vectors_again, atol=1e-3)


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
