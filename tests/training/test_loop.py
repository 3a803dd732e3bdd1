"""Training: it learns, keeps its best epoch, survives a kill, and publishes nothing before it is done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipelines.training_data import prepare
from recall.core.artifacts import read_manifest
from recall.core.errors import ArtifactError, DataError
from recall.data.prepared import PreparedData
from recall.model.batches.dataset import read_examples
from recall.model.inference import encode_items, encode_queries
from recall.model.recall_model import RecallModel
from recall.training import loop as training
from recall.training.loop import load_model, read_history, train
from tests.conftest import Experiment
from tests.helpers.dying import train_until_killed

# A model that is quickly traced, for what does not depend on what is learned.
SMALL = ("model.structure=behaviour_only", "model.loss.negatives=none", "training.epochs=3", "training.batch_size=256")
LEARNING = ("training.epochs=5", "training.batch_size=64", "training.metric_k=20")


@pytest.fixture(scope="module")
def trained(experiment: Experiment, prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trained") / "model"
    train(experiment(*LEARNING), prepared, directory, fingerprint="this", saved_models=False)
    return directory


@pytest.fixture(scope="module")
def killed(community: Path, prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a training was that was killed in its second epoch."""
    folder = tmp_path_factory.mktemp("killed")
    train_until_killed(community / "experiment.yaml", prepared.directory, folder / "model", SMALL, validation=2)
    return folder


@pytest.fixture
def interrupted(killed: Path, tmp_path: Path) -> Path:
    """The model directory of a killed training of one's own."""
    shutil.copytree(killed, tmp_path / "run")
    return tmp_path / "run" / "model"


def validation_vectors(model: RecallModel, prepared: PreparedData) -> np.ndarray:
    return encode_items(model, prepared.posterior("validation").stacked())[0]


def recall_at(model: RecallModel, prepared: PreparedData, k: int) -> float:
    """Share of the validation clicks among the k best items; seen ones do not count, ties count against.

    Items that nobody had been shown compete with each other alone, and so do the others.
    """
    examples = read_examples(prepared.shards("validation"))
    cold = prepared.posterior("validation").exposures == 0
    scores = encode_queries(model, examples) @ validation_vectors(model, prepared).T
    hits = []
    for row, target in enumerate(examples.targets):
        seen = examples.seen.values[slice(*examples.seen.offsets[row : row + 2])]
        rivals = np.setdiff1d(np.flatnonzero(cold == cold[target]), [*seen, target])
        hits.append((scores[row, rivals] >= scores[row, target]).sum() < k)
    return float(np.mean(hits))


def script_metric(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> list[float]:
    """Replaces the validation metric by given values; returns those used so far."""
    used: list[float] = []

    def next_value(*arguments: Any, **keywords: Any) -> float:
        used.append(values[len(used)])
        return used[-1]

    monkeypatch.setattr(training, "validation_metric", next_value)
    return used


# What training is for


def test_training_finds_more_held_out_clicks_than_an_untrained_model(
    trained: Path, experiment: Experiment, prepared: PreparedData
) -> None:
    tf.keras.utils.set_random_seed(1)
    untrained = RecallModel(experiment(*LEARNING), prepared)
    untrained.build_layers()
    best = max(entry["val_recall@20"] for entry in read_history(trained))
    # 84 clicks: one standard deviation of a recall of 0.2 is 0.04.
    assert best > recall_at(untrained, prepared, 20) + 0.08


def test_the_published_model_is_the_best_epoch_and_its_metric_is_exact(trained: Path, prepared: PreparedData) -> None:
    history = read_history(trained)
    values = [entry["val_recall@20"] for entry in history]
    assert read_manifest(trained, made_by="")["best_epoch"] == 1 + int(np.argmax(values))
    assert recall_at(load_model(trained, prepared), prepared, 20) == pytest.approx(max(values))


def test_the_history_tells_every_epoch(trained: Path) -> None:
    history = read_history(trained)
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4, 5][: len(history)]
    terms = {"loss", "item_loss", "behaviour_loss", "meta_loss", "triplet_loss"}
    assert all(set(entry) == {"epoch", "seconds", "val_recall@20", *terms} for entry in history)
    assert history[-1]["loss"] < history[0]["loss"]
    assert json.loads((trained / "history.json").read_text()) == history


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
    """Equal up to the order in which threads add up; on one machine that is mostly bit by bit."""
    losses = [[entry["loss"] for entry in read_history(directory)] for directory in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    vectors = [validation_vectors(load_model(directory, prepared), prepared) for directory in (one, other)]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-3)


# Which epoch is kept, and when to stop


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


def test_training_stops_after_patience_and_keeps_the_best_epoch(
    experiment: Experiment, prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = script_metric(monkeypatch, [0.1, 0.5, 0.4, 0.5, 0.9])
    vectors_of_epoch = []

    def encode_and_note(model: RecallModel, posterior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        vectors, shares = encode_items(model, posterior)
        vectors_of_epoch.append(vectors)
        return vectors, shares

    monkeypatch.setattr(training, "encode_items", encode_and_note)
    config = experiment(*SMALL, "training.epochs=9", "training.patience=2")
    returned = train(config, prepared, tmp_path / "model", saved_models=False)
    # The second epoch is the best; an equal value later is no improvement, so two epochs after it are enough.
    assert used == [0.1, 0.5, 0.4, 0.5]
    assert len(read_history(tmp_path / "model")) == 4
    assert np.abs(vectors_of_epoch[1] - vectors_of_epoch[-1]).max() > 1e-3
    for model in (returned, load_model(tmp_path / "model", prepared)):
        np.testing.assert_array_equal(validation_vectors(model, prepared), vectors_of_epoch[1])


# Kills, and what comes after


@pytest.mark.slow
def test_a_killed_training_publishes_nothing(killed: Path) -> None:
    assert [path.name for path in killed.iterdir()] == [".model-training"]
    with pytest.raises(ArtifactError, match="recall train"):
        read_manifest(killed / "model", made_by="recall train")


@pytest.mark.slow
def test_resume_continues_with_the_epoch_that_was_killed(
    interrupted: Path, experiment: Experiment, prepared: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads((interrupted.parent / ".model-training" / "state.json").read_text())["history"]
    assert [entry["epoch"] for entry in first] == [1]
    used = script_metric(monkeypatch, [0.98, 0.99])
    model = train(experiment(*SMALL), prepared, interrupted, fingerprint="this", resume=True, saved_models=False)
    history = read_history(interrupted)
    assert used == [0.98, 0.99]
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert history[:1] == first
    assert history[1]["loss"] < first[0]["loss"]
    steps = 3 * (prepared.training_records // 256)
    assert int(model.optimizer.iterations) == steps
    assert [int(count) for count in model.table_optimizer.steps] == [steps] * len(model.tables)
    assert [path.name for path in interrupted.parent.iterdir()] == ["model"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fingerprint", "override"), [("other", "training.patience=3"), ("this", "training.learning_rate=0.5")]
)
def test_resume_with_other_data_or_settings_is_refused(
    fingerprint: str, override: str, interrupted: Path, experiment: Experiment, prepared: PreparedData
) -> None:
    with pytest.raises(ArtifactError, match="other settings or data; train without --resume"):
        train(experiment(*SMALL, override), prepared, interrupted, fingerprint=fingerprint, resume=True)
    assert (interrupted.parent / ".model-training" / "state.json").exists()


@pytest.mark.slow
def test_without_resume_training_starts_over(
    interrupted: Path, experiment: Experiment, prepared: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = script_metric(monkeypatch, [0.3, 0.2, 0.1])
    train(experiment(*SMALL), prepared, interrupted, fingerprint="this", saved_models=False)
    assert used == [0.3, 0.2, 0.1]
    assert len(read_history(interrupted)) == 3


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


# Errors before the long work


def test_an_i2i_model_without_validation_triggers_is_refused(experiment: Experiment, tmp_path: Path) -> None:
    config = experiment("data.trigger.window=0", "model.query=trigger")
    prepare(config, tmp_path / "data")
    with pytest.raises(DataError, match=r"no validation click has a trigger.*widen data.trigger.window"):
        train(config, PreparedData.load(tmp_path / "data"), tmp_path / "run" / "model")
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_not_there_says_how_to_make_it(prepared: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="recall train"):
        load_model(tmp_path / "model", prepared)


def test_a_truncated_model_is_refused(trained: Path, prepared: PreparedData, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "model")
    weights = next(tmp_path.glob("model/checkpoint/*.data*"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="recall train"):
        load_model(tmp_path / "model", prepared)


def test_a_model_of_other_data_is_refused(trained: Path, experiment: Experiment, tmp_path: Path) -> None:
    # Half as many training clicks: fewer users have an own row.
    prepare(experiment("data.split={validation: 0.4, test: 0.1}"), tmp_path / "data")
    with pytest.raises(ArtifactError, match="do not fit the prepared data"):
        load_model(trained, PreparedData.load(tmp_path / "data"))
