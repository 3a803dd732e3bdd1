"""`recall content train` on a simulated community: what it makes, what it refuses, and that it helps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from recall.config.content import ContentConfig
from recall.config.experiment import Config, load_config
from recall.content.judge.evaluation import JudgeSettings, judge_content
from recall.content.teach.artifact import TrainedContent
from recall.content.teach.criterion import LastNCriterion
from recall.content.teach.crowd import ClickPairs
from recall.content.teach.encoder import inputs_of
from recall.content.teach.losses import agreement_weights
from recall.content.teach.modalities import group_modalities
from recall.content.teach.trainer import ContentTrainer, TrainingSet
from recall.content.teach.training import ShuffledPasses, collect_training_set, train_content
from recall.content.vectors import ContentVectors, prepared_vectors, read_vectors
from recall.core.errors import ArtifactError, ConfigError, DataError
from recall.data.datasets import simulate
from recall.data.features.embeddings import read_npy, vector_array
from recall.data.prepared import PreparedData
from recall.runs.content_step import run_content_training
from recall.runs.run import Run
from tests.conftest import Experiment

if TYPE_CHECKING:
    from tests.helpers.finished_run import Outcome


Command = Callable[..., "Outcome"]
SMALL = ("content.dim=16", "content.hidden=[16]", "content.clusters=[4,16]", "content.training.batch_size=128")
QUICK = (
    *SMALL, "content.training.epochs=2", "content.training.epoch_steps=10", "content.noisy_pairs.warmup_epochs=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def settings(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The small community with text and image; three items have neither."""
    config = experiment(*QUICK)
    path = tmp_path_factory.mktemp("items") / "items.parquet"
    items = pd.read_parquet(config.data.items.path)
    items.loc[[3, 40, 149], ["text", "image"]] = None
    items.to_parquet(path)
    image = {"name": "image", "type": "embedding"}
    features = config.features.model_dump(mode="json")
    named = {**config.data.items.model_dump(mode="json"), "path": str(path)}
    return config.replaced(features={"meta": [*features["meta"], image]}, data={"items": named})


@pytest.fixture(scope="module")
def data(settings: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of it with the data prepared."""
    directory = tmp_path_factory.mktemp("taught") / "run"
    Run(settings, directory).prepare()
    return directory


@pytest.fixture(scope="module")
def trained(data: Path, settings: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run with content vectors."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    shutil.copytree(data, directory)
    run_content_training(settings, directory)
    return directory


def changed(config: Config, *overrides: str, tmp_path: Path) -> Config:
    (tmp_path / "experiment.yaml").write_text(config.to_yaml())
    return load_config(tmp_path / "experiment.yaml", overrides)


# What it makes


def test_every_item_with_a_base_vector_gets_one_unit_vector_in_the_order_of_the_items_file(
    trained: Path, settings: Config
) -> None:
    items = pd.read_parquet(settings.data.items.path)
    has_base = (items.text.notna() | items.image.notna()).to_numpy()
    assert np.flatnonzero(~has_base).tolist() == [3, 40, 149]
    found = TrainedContent.load(trained / "content")
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), has_base, atol=1e-5)
    column = read_npy(trained / "content" / "vectors.npy", rows=len(items), key="path", table="items.parquet")
    np.testing.assert_array_equal(column.is_valid().to_numpy(zero_copy_only=False), has_base)
    table = found.items.to_pandas()
    assert table.item_id.tolist() == items.item_id.tolist()
    np.testing.assert_array_equal(table.vector.notna(), has_base)
    np.testing.assert_array_equal(np.stack(table.vector[has_base]), found.vectors[has_base])


def test_virtual_ids_are_those_of_the_tree_and_refine_each_other(trained: Path) -> None:
    found = TrainedContent.load(trained / "content")
    table = found.items.to_pandas()
    has = table.vector.notna()
    assert table.cluster_0[has].between(0, 3).all()
    assert (table.cluster_1[has] // 4 == table.cluster_0[has]).all()
    assert table.cluster_0[~has].isna().all()
    assert found.clusters is not None
    np.testing.assert_array_equal(found.clusters.assign(found.vectors[has])[:, 1], table.cluster_1[has])


def test_new_items_are_encoded_as_those_of_the_catalogue(trained: Path, settings: Config) -> None:
    items = pd.read_parquet(settings.data.items.path)
    found = TrainedContent.load(trained / "content")
    base = {
        name: np.stack([np.zeros(32) if vector is None else vector for vector in items[name]]).astype(np.float32)
        for name in ("text", "image")
    }
    np.testing.assert_allclose(found.encode(base), found.vectors, atol=1e-5)
    text_alone = found.encode({"text": base["text"][:5]})
    assert text_alone.shape == (5, 16)
    with pytest.raises(DataError, match=r"base vectors sound \[5, 3\]: expected finite numbers of text \[items, 32\]"):
        found.encode({"sound": np.ones((5, 3), np.float32)})


def test_the_vectors_are_an_embedding_of_another_experiment(trained: Path, settings: Config, tmp_path: Path) -> None:
    feature = {"name": "content", "type": "embedding", "path": str(trained / "content" / "vectors.npy")}
    config = settings.replaced(features={"meta": [*settings.features.model_dump(mode="json")["meta"], feature]})
    Run(config, tmp_path / "run").prepare()
    prepared = PreparedData.load(tmp_path / "run" / "data")
    [content] = [one for one in prepared_vectors(prepared) if one.name == "content"]
    np.testing.assert_allclose(content.unit, TrainedContent.load(trained / "content").vectors, atol=1e-5)


def test_both_files_can_be_judged_and_mean_the_same(trained: Path) -> None:
    prepared = PreparedData.load(trained / "data")
    one, other = (
        read_vectors("x", trained / "content" / name, prepared, id_column="item_id")
        for name in ("vectors.npy", "items.parquet")
    )
    np.testing.assert_array_equal(one.unit, other.unit)


def test_the_history_starts_before_the_first_step_and_names_every_loss(trained: Path) -> None:
    found = TrainedContent.load(trained / "content")
    assert [entry["epoch"] for entry in found.history] == [0, 1, 2]
    assert set(found.history[1]) == {"epoch", "val_last_n_auc", "loss", "modalities", "shared_tags", "crowd", "tags"}
    best = max(entry["val_last_n_auc"] for entry in found.history)
    assert found.history[found.manifest["best_epoch"]]["val_last_n_auc"] == best


# The command


def test_the_command_shows_whether_it_helped_and_is_skipped_when_nothing_changed(
    command: Command, trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    outcome = command("content", "train", "--run", run, "--set", "content.loss.tags=0", "--set", "content.dim=8")
    assert outcome.code == 0, outcome.err
    for shown in ("text", "image", "joined", "trained", "recall@50", "cold"):
        assert shown in outcome.out
    assert "epoch 2: val_last_n_auc" in outcome.err
    found = TrainedContent.load(run / "content")
    assert found.manifest["loss"]["tags"] == 0 < found.manifest["loss"]["crowd"]
    assert found.vectors.shape[1] == 8
    assert load_config(run / "config.yaml").content.loss.tags == 0, "the run's own settings from now on"
    again = command("content", "train", "--run", run)
    assert "content train: done before, inputs unchanged" in again.err
    assert again.out == outcome.out
    assert TrainedContent.load(run / "content").manifest == found.manifest


def test_the_same_seed_gives_the_same_vectors(trained: Path, settings: Config) -> None:
    again = train_content(settings, PreparedData.load(trained / "data"))
    np.testing.assert_allclose(again.vectors, TrainedContent.load(trained / "content").vectors, atol=1e-4)


@pytest.mark.slow
def test_a_step_with_a_queue_keeps_the_keys_of_what_is_there(data: Path, settings: Config, tmp_path: Path) -> None:
    only = ("content.queue={size: 128, momentum: 0.9}", "content.loss.crowd=0", "content.loss.tags=0",
            "content.loss.shared_tags=0")  # fmt: skip
    config = changed(settings, *only, tmp_path=tmp_path)
    training_set = collect_training_set(config, PreparedData.load(data / "data"))
    trainer = ContentTrainer(training_set, config.content, seed=1)
    batch, start = training_set.rows[:40], trainer.encoder.get_weights()
    first = trainer.step(batch, np.zeros(0, np.intp), trust=True)
    assert set(first) == {"loss", "modalities"}
    for queue, modality in zip(trainer.queues, training_set.modalities, strict=True):
        keys, items = queue.entries()
        np.testing.assert_array_equal(items, batch[modality.present[batch].any(axis=1)])
        np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1, atol=1e-5)
    assert trainer.slow is not None
    for old, fast, slow in zip(start, trainer.encoder.get_weights(), trainer.slow.get_weights(), strict=True):
        np.testing.assert_allclose(slow, 0.9 * old + 0.1 * fast, atol=1e-6)
    second = trainer.step(training_set.rows[40:80], np.zeros(0, np.intp), trust=True)
    assert float(second["modalities"]) > float(first["modalities"]), "more keys to tell the own one from"


@pytest.mark.slow
def test_pairs_that_do_not_belong_together_are_found_out() -> None:
    rng = np.random.default_rng(1)
    text = rng.normal(size=(200, 6)).astype(np.float32)
    of = np.arange(200)
    of[:50] = np.roll(of[:50], 1)  # the first fifty have the image of another
    image = text[of] @ np.linalg.qr(rng.normal(size=(6, 6)))[0].astype(np.float32)
    modalities = group_modalities(
        [ContentVectors.checked(name, vector_array(base)) for name, base in (("text", text), ("image", image))],
        {"text": "text", "image": "image"},
    )
    nothing, weights = np.zeros(0, np.int32), {"modalities": 1.0, "shared_tags": 0.0, "crowd": 0.0, "tags": 0.0}
    training_set = TrainingSet(
        modalities, np.arange(200), ClickPairs(nothing, nothing), sparse.csr_array((200, 0)), None, weights
    )
    settings = {"hidden": [], "dim": 12, "input_dropout": 0, "training": {"learning_rate": 0.02}}
    trainer = ContentTrainer(training_set, ContentConfig.model_validate(settings), seed=1)
    for step in range(60):
        trainer.step(rng.permutation(200)[:100], np.zeros(0, np.intp), trust=step < 20)
    sides = trainer.encoder(inputs_of(modalities, np.arange(200))).modalities
    found = agreement_weights(sides[:, 0], sides[:, 1], items=np.arange(200), strength=1.0).numpy()
    assert found[50:].mean() > 0.9
    assert found[:50].mean() < 0.4


def test_the_criterion_is_the_judges_auc_and_gives_unlearned_items_half_a_say(data: Path) -> None:
    prepared = PreparedData.load(data / "data")
    text = prepared_vectors(prepared)[0]
    judged = judge_content([text], prepared, JudgeSettings(split="validation"))["vectors"]["text"]["last_n"]["mean"]
    everything = np.ones(len(text.present), bool)
    found = LastNCriterion(prepared, text.present, learned_from=everything)(text.unit)
    assert found == pytest.approx((judged["all"]["auc_random"] + judged["all"]["auc_popular"]) / 2, abs=0.01)
    some = np.random.default_rng(1).random(len(everything)) < 0.8
    both, known, new = (
        LastNCriterion(prepared, text.present, learned_from=learned) for learned in (some, everything, ~everything)
    )
    assert known(text.unit) == pytest.approx(new(text.unit)), "where all are of one kind, that kind decides"
    assert both(text.unit) != pytest.approx(known(text.unit))


# Point in time, and what is held out


def test_nothing_of_the_held_out_periods_or_items_is_learned_from(data: Path, settings: Config) -> None:
    prepared = PreparedData.load(data / "data")
    training_set = collect_training_set(settings, prepared)
    log = pd.read_parquet(settings.data.events.path)
    shown = set(log[log.time_ms < prepared.manifest["split"]["validation_start_ms"]].item_id)
    ids = np.array(prepared.item_ids.to_pylist())
    assert set(ids[training_set.rows]) < shown
    assert set(training_set.pairs.before) | set(training_set.pairs.after) <= set(training_set.rows)
    every = changed(settings, "content.training.held_out=0", tmp_path=data)
    assert len(training_set.rows) < len(collect_training_set(every, prepared).rows)


def test_a_deck_deals_every_number_once_before_any_comes_again() -> None:
    passes = ShuffledPasses(10, np.random.default_rng(1))
    first = np.concatenate([passes.take(5), passes.take(5)])
    assert sorted(first.tolist()) == list(range(10))
    assert sorted(passes.take(20).tolist()) == list(range(10))
    assert len(ShuffledPasses(0, np.random.default_rng(1)).take(5)) == 0


# Bad input


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("content.features=[sound]",), "content.features: sound is no embedding of features.meta with its vector; "),
        (("content.tags=[text]",), "content.tags: text is no feature of type tags or category"),
        (("content.features=[text]", "content.loss.modalities=1"), "content.loss.modalities 1.0 compares modalities"),
        (("content.tags=[]", "content.loss.tags=0.5"), "content.loss.tags 0.5 needs tags, and features.meta has none"),
        (("content.clusters=[4,10]",), "10 has to be a multiple of 4"),
        (("content.queue.size=100",), "queue.size 100 is less than training.batch_size 128"),
        (("content.loss.crowd=-1",), "content.loss.crowd: expected auto or a number of at least 0, e.g. 0.1, found -1"),
        (("content.loss.magic=1",), "content.loss.magic: unknown key"),
    ],
)
def test_settings_that_cannot_be_are_errors(
    settings: Config, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        changed(settings, *overrides, tmp_path=tmp_path)
    assert message in str(error.value)


def test_without_any_loss_or_base_vector_there_is_nothing_to_train(
    data: Path, settings: Config, tmp_path: Path
) -> None:
    prepared = PreparedData.load(data / "data")
    weights = ("modalities", "shared_tags", "crowd", "tags")
    with pytest.raises(DataError, match="no loss is left to train by"):
        train_content(changed(settings, *(f"content.loss.{name}=0" for name in weights), tmp_path=tmp_path), prepared)
    with pytest.raises(DataError, match="there are no base vectors to start from"):
        train_content(changed(settings, "content.features=[]", tmp_path=tmp_path), prepared)


def test_a_run_that_is_not_prepared_or_reads_its_own_vectors_says_so(
    trained: Path, settings: Config, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="not there yet; run `recall prepare"):
        run_content_training(settings, tmp_path / "run")
    run = Path(shutil.copytree(trained, tmp_path / "again"))
    feature = {"name": "content", "type": "embedding", "path": str(run / "content" / "vectors.npy")}
    config = settings.replaced(features={"meta": [feature]}, content={"loss": {"tags": "auto"}})
    Run(config, run).prepare()
    with pytest.raises(ConfigError, match="which this command writes; name the base vectors"):
        run_content_training(config, run)


def test_what_fails_leaves_nothing_behind(data: Path, settings: Config, tmp_path: Path) -> None:
    run = Path(shutil.copytree(data, tmp_path / "run"))
    with pytest.raises(DataError):
        run_content_training(changed(settings, "content.features=[]", tmp_path=tmp_path), run)
    assert not (run / "content").exists()


# Whether it helps


@pytest.mark.slow
def test_trained_vectors_know_more_of_taste_than_base_vectors_do(tmp_path: Path) -> None:
    # Half of each base vector is noise that no one clicks for, which clicks can teach to ignore.
    dataset = simulate(users=400, items=400, days=6, authors=60, topics=8, exposures=40_000, published_before=0.9)
    dataset.write(tmp_path)
    items = pd.read_parquet(tmp_path / "items.parquet")
    rng = np.random.default_rng(1)
    text = np.stack([np.zeros(32) if vector is None else vector for vector in items.text])
    misled = np.concatenate([text, 2 * rng.normal(size=text.shape) / np.sqrt(32)], axis=1)
    np.save(tmp_path / "misled.npy", misled)
    content: dict[str, Any] = {
        "data": {
            "events": {"path": "events.parquet", "time": "time_ms", "time_unit": "ms", "click": "is_click"},
            "items": {"path": "items.parquet"},
        },
        "features": {
            "behaviour": [{"name": "item_id", "type": "id"}],
            "meta": [{"name": "misled", "type": "embedding", "path": "misled.npy"}],
        },
        "content": {"training": {"epochs": 12, "learning_rate": 0.001}},
    }
    (tmp_path / "experiment.yaml").write_text(json.dumps(content))
    config = load_config(tmp_path / "experiment.yaml")
    Run(config, tmp_path / "run").prepare()
    run_content_training(config, tmp_path / "run")
    prepared = PreparedData.load(tmp_path / "run" / "data")
    trained = read_vectors("trained", tmp_path / "run" / "content" / "vectors.npy", prepared, id_column="item_id")
    found = judge_content([*prepared_vectors(prepared), trained], prepared)["vectors"]  # on test clicks
    for kind in ("auc_random", "auc_popular"):
        assert found["trained"]["last_n"]["mean"]["all"][kind] > found["misled"]["last_n"]["mean"]["all"][kind] + 0.03
