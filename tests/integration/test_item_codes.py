"""A run with several vectors per item: what is trained, exported, served and measured is an item's best vector."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import tensorflow as tf

from recall.config.experiment import Config
from recall.core.artifacts import read_manifest, seal
from recall.core.errors import ConfigError
from recall.data.prepared import PreparedData
from recall.evaluation.cold_bias import with_cold_bias
from recall.index import build_index
from recall.model.batches.dataset import read_examples, training_dataset
from recall.model.inference import encode_items, encode_queries
from recall.model.recall_model import RecallModel
from recall.model.vector_table import ItemVectorTable
from recall.serving.recaller import Recaller
from recall.training.published import load_model
from tests.conftest import Experiment
from tests.helpers.finished_run import WITH_ITEM_CODES

CODES, WIDTH, HISTORY = 3, 8 + 1, 8
FUSED = "model.fusion={kind: weighted_sum, modality_dropout: 0}"
PLAIN = ("model.dropout=0", "model.cold_simulation.enabled=false", FUSED)
Matrix = npt.NDArray[np.float32]


# Settings


def test_a_count_alone_is_short_for_a_section(experiment: Experiment) -> None:
    short = experiment(FUSED, "model.item_codes=3")
    assert short == experiment(FUSED, "model.item_codes={count: 3, pick: highest}")
    assert short.model.item_codes is not None
    assert short.replaced(seed=3).model.item_codes == short.model.item_codes
    assert experiment().model.item_codes is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("model.item_codes=3",), "fusion: concat makes one vector"),
        ((FUSED, "model.item_codes=3", "model.structure=single"), "structure: single has no meta tower"),
        ((FUSED, "model.item_codes=3", "model.structure=behaviour_only"), "has no meta tower"),
        ((FUSED, "model.item_codes=3", "model.interests.count=2"), "either users or items"),
        ((FUSED, "model.item_codes={count: 3, pick: mean, index: all}"), "pick: mean trains their mean alone"),
        ((FUSED, "model.item_codes=0"), "count"),
        ((FUSED, "model.item_codes=true"), "item_codes"),
        ((FUSED, "model.item_codes.pick=best"), "item_codes.pick"),
    ],
)
def test_what_cannot_be_is_told(settings: tuple[str, ...], message: str, experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment(*settings)


def test_several_vectors_on_both_sides_are_fine_where_one_side_is_averaged(experiment: Experiment) -> None:
    experiment(FUSED, "model.item_codes={count: 3, pick: mean}", "model.interests.count=2")


def test_structures_that_are_compared_go_without_codes_where_they_have_no_meta_tower(experiment: Experiment) -> None:
    config = experiment(FUSED, "model.item_codes=3")
    assert config.with_structure("single").model.item_codes is None
    assert config.with_structure("base").model.item_codes == config.model.item_codes
    assert config.with_structure("gated") == config


# Training


def ready(config: Config, prepared: PreparedData) -> RecallModel:
    tf.keras.utils.set_random_seed(11)
    model = RecallModel(config, prepared)
    model.prepare_optimizers()
    return model


@pytest.mark.parametrize(
    "settings",
    [
        ("model.item_codes=3",),
        ("model.item_codes=3", "model.structure=base", "model.similarity=cosine"),
        ("model.item_codes={count: 3, pick: attention}", "model.loss.softmax=full", "model.query=both"),
    ],
)
def test_a_small_batch_is_learned_with_all_codes(
    settings: tuple[str, ...], experiment: Experiment, prepared: PreparedData
) -> None:
    model = ready(experiment(*PLAIN, *settings, "training.learning_rate=0.02"), prepared)
    batch = next(
        iter(training_dataset(prepared, model.user_rows, batch_size=24, history=8, shuffle_buffer=10_000, seed=1))
    )
    codes = model.items.content.fusion.codes
    before = [variable.numpy() for variable in codes.trainable_variables]
    losses = [float(model.train_step(batch)["loss"]) for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0], losses
    for variable, start in zip(codes.trainable_variables, before, strict=True):
        moved = np.abs(variable.numpy() - start).max(axis=1)
        assert (moved > 1e-4).all(), f"{variable.name}: every code is some query's pick"


# A whole run


@pytest.fixture(scope="module")
def settings(experiment: Experiment) -> Config:
    return experiment(*WITH_ITEM_CODES)


@pytest.fixture(scope="module")
def table(finished: Path) -> pd.DataFrame:
    return pd.read_parquet(finished / "vectors" / "vectors.parquet").set_index("item_id")


@pytest.fixture(scope="module")
def entries(finished: Path, table: pd.DataFrame) -> Matrix:
    """The vectors that the index holds, [items, codes, width]."""
    vectors = np.array([np.stack(list(own)) for own in table.code_vectors], np.float32)
    bias = json.loads((finished / "metrics.json").read_text())["index"]["cold_bias"]
    vectors[..., -1] += (bias / (1 + table.exposures.to_numpy() / 5))[:, np.newaxis]
    return vectors


def test_the_table_has_one_row_per_item_with_the_mean_and_all_vectors(
    finished: Path, table: pd.DataFrame, model: RecallModel, prepared_data: PreparedData
) -> None:
    assert table.index.tolist() == prepared_data.item_ids.to_pylist()
    vectors = np.array([np.stack(list(own)) for own in table.code_vectors])
    assert vectors.shape == (len(table), CODES, WIDTH)
    np.testing.assert_allclose(np.stack(list(table.vector)), vectors.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(vectors, encode_items(model, prepared_data.posterior("serving").stacked())[0], atol=1e-5)
    read = ItemVectorTable.read(finished / "vectors")
    np.testing.assert_array_equal(read.vectors, vectors)
    read.write(finished.parent / "again")
    np.testing.assert_array_equal(ItemVectorTable.read(finished.parent / "again").vectors, vectors)


def test_the_exported_item_side_gives_all_vectors(
    finished: Path, model: RecallModel, prepared_data: PreparedData
) -> None:
    posterior = prepared_data.posterior("serving").stacked()
    features = model.item_table.gather(tf.range(len(posterior)))
    item_side = tf.saved_model.load(str(finished / "model" / "item"))
    served = item_side.vectors(features, tf.constant(posterior))
    assert served["vector"].shape == (len(posterior), CODES, WIDTH)
    np.testing.assert_allclose(served["vector"], encode_items(model, posterior)[0], atol=1e-5)


@pytest.mark.parametrize("k", [5, 40])
def test_candidates_are_the_unseen_items_with_the_best_vectors(
    recaller: Recaller, table: pd.DataFrame, entries: Matrix, settings: Config, k: int
) -> None:
    log = pd.read_parquet(settings.data.events.path)
    clicks = log[log.is_click == 1].sort_values(["time_ms", "item_id"])
    users = clicks.user_id.value_counts().index[:8].tolist()
    found = recaller.recall([*users, "nobody"], k=k)
    for row, user in enumerate(found.queries):
        clicked = clicks[clicks.user_id == user].item_id.tolist()
        query = recaller.user_vectors([user], [clicked[-HISTORY:]])[0]
        scores = pd.Series((entries @ query).max(axis=1), index=table.index)
        scores = scores.drop(list(set(clicked))).sort_values(ascending=False)
        assert len(set(found.ids[row]) - {None}) == k, "every list is full, and no item is in it twice"
        np.testing.assert_allclose(found.scores[row], scores[:k], atol=1e-5)
        np.testing.assert_allclose(scores[found.ids[row]], found.scores[row], atol=1e-5)


def test_items_are_similar_by_the_nearest_two_of_their_vectors(
    recaller: Recaller, table: pd.DataFrame, entries: Matrix
) -> None:
    items = table.index[[2, 9]].tolist()
    found = recaller.similar(items, k=7)
    for row, item in enumerate([2, 9]):
        # What is like an item is not what everybody likes: by cosine, and its own appeal has no say.
        taste = entries[..., :-1] / np.linalg.norm(entries[..., :-1], axis=-1, keepdims=True)
        products = np.einsum("cw,ndw->ncd", taste[item], taste)
        scores = pd.Series(products.max(axis=(1, 2)), index=table.index).drop(items[row])
        np.testing.assert_allclose(found.scores[row], scores.sort_values(ascending=False)[:7], atol=1e-5)
    by_content = recaller.similar(items, k=7, by="content")
    assert all(len(set(ids) - {None, item}) == 7 for ids, item in zip(by_content.ids, items, strict=True))


def test_served_vectors_are_those_of_the_index_also_for_new_items(
    recaller: Recaller, entries: Matrix, table: pd.DataFrame
) -> None:
    ids = table.index[:3].tolist()
    np.testing.assert_allclose(recaller.vectors(ids), entries[:3], atol=1e-5)
    new = recaller.new_item_vectors([{"tags": ["a"]}, {}])
    assert new.shape == (2, CODES, WIDTH)
    # Appeal and cold bias are an item's, not a vector's.
    assert np.ptp(new[..., -1], axis=1) == pytest.approx(np.zeros(2), abs=1e-6)


def test_metrics_rank_an_item_by_its_best_vector_as_the_index_does(
    finished: Path, model: RecallModel, prepared_data: PreparedData
) -> None:
    examples = read_examples(prepared_data.shards("test"))
    metrics = json.loads((finished / "metrics.json").read_text())
    posterior = prepared_data.posterior("test")
    vectors, _ = encode_items(model, posterior.stacked())
    vectors = with_cold_bias(vectors, posterior.exposures, metrics["test"]["gated"]["cold_bias"])
    scores = np.einsum("ew,icw->eic", encode_queries(model, examples), vectors).max(axis=2)
    hits = 0
    for row, target in enumerate(examples.targets):
        others = np.setdiff1d(np.arange(len(vectors)), [target, *examples.seen[row]])
        hits += np.count_nonzero(scores[row, others] >= scores[row, target]) < 10
    # Sums in another order differ in the last digit, which may move a target across the cut.
    assert metrics["test"]["gated"]["all"]["recall@10"] * len(examples) == pytest.approx(hits, abs=1.5)
    assert metrics["index"]["items"] == len(vectors)
    assert metrics["index"]["entries"] == CODES * len(vectors)
    assert (finished / "report.html").stat().st_size > 10_000


def test_an_index_of_means_has_one_vector_per_item(
    finished: Path, tmp_path: Path, model: RecallModel, prepared_data: PreparedData
) -> None:
    copy = Path(shutil.copytree(finished / "model", tmp_path / "model"))
    averaged = model.config.replaced(model={"item_codes": {"count": CODES, "index": "mean"}})
    manifest = read_manifest(copy, made_by="recall train")
    (copy / "config.yaml").write_text(averaged.to_yaml())
    seal(copy, manifest)
    posterior = prepared_data.posterior("serving").stacked()
    means, _ = encode_items(load_model(copy, prepared_data), posterior)
    # Lengths are free, so that the vector of the mean meta vector is the mean of the vectors.
    np.testing.assert_allclose(means, encode_items(model, posterior)[0].mean(axis=1), atol=1e-5)
    index = build_index(prepared_data.item_ids, means)
    assert (len(index), index.entries) == (len(means), len(means))
