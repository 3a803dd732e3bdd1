"""Tests training in stages: which clicks count, how the meta tower is initialised, and what a stage hands on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from recall.config.training import StageData
from recall.content.vectors import ContentVectors, prepared_vectors
from recall.core.errors import ConfigError, DataError
from recall.data.prepared import PreparedData
from recall.model.batches.dataset import of_stage, read_examples, training_dataset
from recall.model.recall_model import RecallModel
from recall.training.loop import fit
from recall.training.published import load_model, read_history
from recall.training.stages import MetaInitialisation, initialise_meta
from recall.training.train import train
from tests.conftest import Experiment
from tests.helpers.dying import train_until_killed

# A model that is quickly traced.
SMALL = ("model.loss.negatives=none", "training.batch_size=256")


def batches(prepared: PreparedData, config: Any, data: StageData, **columns: Any) -> dict[str, np.ndarray]:
    """Return the one batch of all training records after the selection of a stage; `columns` replace own columns."""
    model = RecallModel(config, prepared)
    dataset = training_dataset(
        prepared, model.user_rows, batch_size=prepared.training_records, history=50, shuffle_buffer=1, seed=1
    )  # fmt: skip
    dataset = dataset.map(lambda batch: {**batch, **{name: make(batch) for name, make in columns.items()}})
    until = prepared.manifest["split"]["validation_start_ms"]
    return {name: values.numpy() for name, values in next(iter(of_stage(dataset, data, until_ms=until))).items()}


# Weights by the last digit of the moment, so that the test can tell them without the code.
def digit(batch: dict[str, tf.Tensor]) -> tf.Tensor:
    return tf.cast(batch["time_ms"] % 4, tf.float32)


@pytest.mark.parametrize("layout", ["click", "user"])
def test_clicks_of_too_little_weight_count_nothing_and_stay_in_the_batch(
    experiment: Experiment, prepared: PreparedData, prepared_by_user: PreparedData, layout: str
) -> None:
    data = prepared if layout == "click" else prepared_by_user
    found = batches(data, experiment(f"data.layout={layout}"), StageData(min_weight=2), weight=digit)
    given = (found["time_ms"] % 4).astype(np.float32)
    np.testing.assert_array_equal(found["weight"], np.where(given >= 2, given, 0))
    everything = batches(data, experiment(f"data.layout={layout}"), StageData(), weight=digit)
    items = "item" if layout == "click" else "items"
    assert sorted(found[items].ravel().tolist()) == sorted(everything[items].ravel().tolist())


def test_equal_weights_forget_what_a_click_was_worth(experiment: Experiment, prepared: PreparedData) -> None:
    found = batches(prepared, experiment(), StageData(weights="equal", min_weight=1), weight=digit)
    np.testing.assert_array_equal(found["weight"], found["time_ms"] % 4 >= 1)


def test_recent_counts_back_from_the_validation_period(experiment: Experiment, prepared: PreparedData) -> None:
    day_ms = 86_400_000
    found = batches(prepared, experiment(), StageData(recent="1d"))  # type: ignore[arg-type]
    validation = read_examples(prepared.shards("validation")).times_ms.min()
    counted = found["time_ms"][found["weight"] > 0]
    assert 0 < len(counted) < len(found["weight"])
    assert counted.min() >= prepared.manifest["split"]["validation_start_ms"] - day_ms
    assert counted.min() > validation - 2 * day_ms
    assert found["time_ms"][found["weight"] == 0].max() < counted.min()


# Initialisation


@pytest.fixture
def model(experiment: Experiment, prepared: PreparedData) -> RecallModel:
    built = RecallModel(experiment(), prepared)
    built.build_layers()
    return built


@pytest.fixture
def vectors(prepared: PreparedData) -> ContentVectors:
    return prepared_vectors(prepared)[0]


def test_alignment_loss_is_infonce_in_both_directions(model: RecallModel, vectors: ContentVectors) -> None:
    initialisation = MetaInitialisation(model, vectors, temperature=0.2)
    rows = np.array([3, 11, 42, 7], np.int32)
    found = initialisation.alignment_loss(tf.constant(rows)).numpy()
    meta = model.items.content_of(model.item_table.gather(rows)).meta.numpy()
    kernel, bias = (weight.numpy() for weight in initialisation.projection.weights)
    seen = meta @ kernel + bias
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    logits = seen @ vectors.unit[rows].T / 0.2
    there = [np.log(np.exp(logits[i]).sum()) - logits[i, i] for i in range(4)]
    back = [np.log(np.exp(logits[:, i]).sum()) - logits[i, i] for i in range(4)]
    assert found == pytest.approx((np.mean(there) + np.mean(back)) / 2, rel=1e-4)


def test_only_the_meta_tower_is_initialised_and_it_learns(model: RecallModel, vectors: ContentVectors) -> None:
    meta = {variable.ref() for variable in model.items.meta_variables}
    before = {variable.ref(): variable.numpy() for variable in model.trainable_variables}
    losses = initialise_meta(model, vectors, temperature=0.1, learning_rate=0.01, epochs=8, batch_size=64, seed=1)
    moved = {ref for ref, value in before.items() if not np.array_equal(ref.deref().numpy(), value)}
    assert moved
    assert moved <= meta
    assert losses[-1] < 0.8 * losses[0]


def test_items_without_a_vector_are_not_asked_about(model: RecallModel, vectors: ContentVectors) -> None:
    half = vectors.only(np.arange(len(vectors.present)) % 2 == 0)
    dataset = MetaInitialisation(model, half, temperature=0.1).dataset(batch_size=10, seed=1)
    rows = np.concatenate([batch.numpy() for batch in dataset])
    assert len(rows) >= len(np.flatnonzero(half.present)) - 9
    assert (rows % 2 == 0).all()


# Stages in a row


class Staged(NamedTuple):
    """Hold a training in stages: its directory, and the meta vectors before it and before each stage of clicks."""

    directory: Path
    untrained: np.ndarray
    meta: list[np.ndarray]


@pytest.fixture(scope="module")
def staged(experiment: Experiment, prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Staged:
    """Train in stages of all kinds."""
    folder = tmp_path_factory.mktemp("staged")
    np.save(folder / "content.npy", prepared_vectors(prepared)[0].unit)
    initialise = {"path": str(folder / "content.npy")}
    stages = [
        {"name": "content", "initialise": initialise, "epochs": 30, "learning_rate": 0.01},
        {"name": "clicks", "epochs": 3},
        # So slow that nothing changes: what it starts with is what it ends with.
        {"name": "idle", "epochs": 1, "learning_rate": 1e-12, "table_learning_rate": 1e-12},
    ]
    begun_with: list[np.ndarray] = []

    def fit_and_note(model: RecallModel, *arguments: Any, **keywords: Any) -> None:
        begun_with.append(meta_vectors(model))
        fit(model, *arguments, **keywords)

    config = experiment(*SMALL, "model.structure=meta_only", f"training.stages={json.dumps(stages)}")
    untrained = RecallModel(config, prepared)
    untrained.build_layers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recall.training.stages.fit", fit_and_note)
        train(config, prepared, folder / "model", saved_models=False)
    return Staged(folder / "model", meta_vectors(untrained), begun_with)


def meta_vectors(model: RecallModel) -> np.ndarray:
    """Return the meta vectors of the catalogue, [items, dim]."""
    vectors: np.ndarray = model.items.content_of(model.item_table.gather(tf.range(model.item_table.size))).meta.numpy()
    return vectors


def test_each_stage_starts_where_the_one_before_was_best(staged: Staged, prepared: PreparedData) -> None:
    history = read_history(staged.directory)
    assert [entry["stage"] for entry in history] == ["clicks"] * 3 + ["idle"]
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
    values = [entry["val_recall@50"] for entry in history]
    assert values[3] == pytest.approx(max(values[:3]))
    assert json.loads((staged.directory / "manifest.json").read_text())["best_epoch"] == 4
    model = load_model(staged.directory, prepared)
    assert model.items.meta_variables
    np.testing.assert_allclose(meta_vectors(model), staged.meta[1], atol=1e-5)


def test_initialised_meta_tower_is_what_clicks_start_from(staged: Staged, vectors: ContentVectors) -> None:
    def likeness(meta: np.ndarray) -> float:
        """Correlate the cosines of items by meta vector with their cosines by the given vectors."""
        unit = meta / np.linalg.norm(meta, axis=1, keepdims=True)
        pairs = np.triu_indices(len(unit), k=1)
        return float(np.corrcoef((unit @ unit.T)[pairs], (vectors.unit @ vectors.unit.T)[pairs])[0, 1])

    assert likeness(staged.meta[0]) > likeness(staged.untrained) + 0.2


def test_stage_that_was_killed_goes_on_and_the_one_before_is_not_done_again(
    community: Path, experiment: Experiment, prepared: PreparedData, tmp_path: Path
) -> None:
    # Validation is the second for this process in the first epoch of the second stage.
    overrides = [
        *SMALL,
        "model.structure=behaviour_only",
        'training.stages=[{"name": "first", "epochs": 1}, {"name": "second", "epochs": 1}]',
    ]
    train_until_killed(
        community / "experiment.yaml", prepared.directory, tmp_path / "model", tuple(overrides), validation=2
    )
    state = json.loads((tmp_path / ".model-training" / "first" / "state.json").read_text())
    config = experiment(*overrides)
    train(config, prepared, tmp_path / "model", fingerprint="this", resume=True, saved_models=False)
    history = read_history(tmp_path / "model")
    assert [entry["stage"] for entry in history] == ["first", "second"]
    assert history[0]["seconds"] == state["history"][0]["seconds"]


# What cannot be


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ([{"name": "a"}, {"name": "a"}], "a is there twice"),
        ([{"name": "a"}, {"name": "b", "initialise": {"path": "x.npy"}}], "put it first"),
        ([{"name": "b", "initialise": {"path": "x.npy"}}], "none reads clicks"),
        ([{"name": "b", "initialise": {"path": "x.npy"}, "loss": {"item": 2}}, {"name": "c"}], "reads no clicks"),
        ([{"name": "a", "loss": {"itme": 2}}], "itme: unknown key"),
        ([{"name": "a", "loss": {"softmax": "full", "negatives": "none"}}], "leaves nothing of it"),
        ([{"name": "a", "data": {"recent": "soon"}}], "expected a duration"),
    ],
)
def test_stages_that_cannot_be_are_refused(experiment: Experiment, stages: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        experiment(f"training.stages={json.dumps(stages)}")


def test_structures_without_a_meta_tower_have_nothing_to_initialise(experiment: Experiment) -> None:
    stages = 'training.stages=[{"name": "content", "initialise": {"path": "x.npy"}}, {"name": "clicks"}]'
    with pytest.raises(ConfigError, match="which structure single does not have"):
        experiment(stages, "model.structure=single")
    compared = experiment(stages, "model.category_head=category").with_structure("single")
    assert [stage.name for stage in compared.training.stages] == ["clicks"]
    assert compared.model.category_head is None


def test_recent_clicks_need_a_split_by_time(experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match="split by last_click does not have"):
        experiment("data.split={by: last_click}", 'training.stages=[{"name": "a", "data": {"recent": "1d"}}]')


def test_vectors_of_another_catalogue_are_refused_before_any_training(
    experiment: Experiment, prepared: PreparedData, tmp_path: Path
) -> None:
    np.save(tmp_path / "short.npy", np.eye(3, dtype=np.float32))
    stages = [{"name": "content", "initialise": {"path": str(tmp_path / "short.npy")}}, {"name": "clicks"}]
    with pytest.raises(DataError, match="3 rows"):
        train(experiment(f"training.stages={json.dumps(stages)}"), prepared, tmp_path / "model")
    assert not (tmp_path / "model").exists()
