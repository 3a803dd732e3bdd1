"""A run with several interests per user: what is exported, served and measured is the best of all interests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import tensorflow as tf

from recall.config.experiment import Config
from recall.data.prepared import PreparedData
from recall.evaluation.cold_bias import with_cold_bias
from recall.model.batches.dataset import pad, read_examples
from recall.model.inference import encode_items, encode_queries, encode_triggers, encode_users
from recall.model.recall_model import RecallModel
from recall.runs.assessment import sample_queries
from recall.serving.recaller import Recaller
from tests.conftest import Experiment
from tests.helpers.finished_run import WITH_INTERESTS

INTERESTS, WIDTH, HISTORY = 3, 8 + 1, 8
Matrix = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def settings(experiment: Experiment) -> Config:
    return experiment(*WITH_INTERESTS)


@pytest.fixture(scope="module")
def table(finished: Path) -> pd.DataFrame:
    """Items with the vectors that the index holds."""
    table = pd.read_parquet(finished / "vectors" / "vectors.parquet")
    bias = json.loads((finished / "metrics.json").read_text())["index"]["cold_bias"]
    vectors = np.stack(list(table.vector))
    return table.assign(vector=list(with_cold_bias(vectors, table.exposures.to_numpy(), bias)))


def test_the_exported_model_gives_the_interests_of_the_model(finished: Path, model: RecallModel) -> None:
    query = tf.saved_model.load(str(finished / "model" / "query"))
    ids = np.array(PreparedData.load(finished / "data").item_ids.to_pylist(), object)
    users = np.array(["u001", "u002", "nobody"], object)
    rows = np.array([[4, 9, 2], [7, -1, -1], [-1, -1, -1]], np.int32)
    history = tf.constant(np.where(rows >= 0, ids[rows], ""), tf.string)
    found = query.signatures["user"](user_id=tf.constant(users), history=history)["vector"]
    assert found.shape == (3, INTERESTS, WIDTH)
    np.testing.assert_allclose(found, encode_users(model, users, rows), atol=1e-5)
    np.testing.assert_array_equal(found[..., -1], 1)  # asks for the appeal
    trigger = query.signatures["trigger"](item_id=tf.constant(ids[:5]))["vector"]
    np.testing.assert_allclose(trigger, encode_triggers(model, np.arange(5, dtype=np.int32)), atol=1e-5)
    assert trigger.shape == (5, WIDTH)


@pytest.mark.parametrize("k", [5, 40])
def test_candidates_are_the_best_unseen_items_of_any_interest(
    recaller: Recaller, table: pd.DataFrame, settings: Config, k: int
) -> None:
    log = pd.read_parquet(settings.data.events.path)
    clicks = log[log.is_click == 1].sort_values(["time_ms", "item_id"])
    users = clicks.user_id.value_counts().index[:8].tolist()
    found = recaller.recall([*users, "nobody"], k=k)
    assert found.ids.shape == (9, k)
    for row, user in enumerate(found.queries):
        clicked = clicks[clicks.user_id == user].item_id.tolist()
        interests = recaller.user_vectors([user], [clicked[-HISTORY:]])[0]
        assert interests.shape == (INTERESTS, WIDTH)
        scores = pd.Series((np.stack(list(table.vector)) @ interests.T).max(axis=1), index=table.item_id)
        scores = scores.drop(list(set(clicked))).sort_values(ascending=False)
        assert len(set(found.ids[row]) - {None}) == k, "every list is full, and no item is in it twice"
        np.testing.assert_allclose(found.scores[row], scores[:k], atol=1e-5)
        np.testing.assert_allclose(scores[found.ids[row]], found.scores[row], atol=1e-5)


def test_a_list_holds_all_there_is_and_then_nothing(recaller: Recaller, table: pd.DataFrame) -> None:
    found = recaller.recall(["nobody"], k=200)
    assert sorted(found.ids[0, : len(table)]) == sorted(table.item_id)
    assert set(found.ids[0, len(table) :]) == {None}


def test_similar_items_have_one_vector_each(recaller: Recaller) -> None:
    found = recaller.similar(["i001", "i002"], k=7)
    assert all(len(set(ids) - {None}) == 7 for ids in found.ids)


def test_nobody_asked_has_no_interests(recaller: Recaller, model: RecallModel) -> None:
    assert recaller.recall([], k=4).ids.shape == (0, 4)
    assert recaller.user_vectors([], []).shape == (0, INTERESTS, WIDTH)
    assert encode_users(model, np.zeros(0, object), np.zeros((0, HISTORY), np.int32)).shape == (0, INTERESTS, WIDTH)


def test_metrics_rank_by_the_best_interest(finished: Path, model: RecallModel, prepared_data: PreparedData) -> None:
    examples = read_examples(prepared_data.shards("test"))
    metrics = json.loads((finished / "metrics.json").read_text())
    posterior = prepared_data.posterior("test")
    vectors, _ = encode_items(model, posterior.stacked())
    vectors = with_cold_bias(vectors, posterior.exposures, metrics["test"]["gated"]["cold_bias"])
    queries = encode_users(model, examples.users, pad(examples.history, width=HISTORY))
    np.testing.assert_array_equal(queries, encode_queries(model, examples))
    scores = np.stack([(vectors @ interests.T).max(axis=1) for interests in queries])
    hits = 0
    for row, target in enumerate(examples.targets):
        others = np.setdiff1d(np.arange(len(vectors)), [target, *examples.seen[row]])
        hits += np.count_nonzero(scores[row, others] >= scores[row, target]) < 10
    # Sums in another order differ in the last digit, which may move a target across the cut.
    assert metrics["test"]["gated"]["all"]["recall@10"] * len(examples) == pytest.approx(hits, abs=1.5)
    assert metrics["test"]["gated_trigger"]["all"]["examples"] < len(examples)
    assert (finished / "report.html").stat().st_size > 10_000


def test_an_index_is_tuned_with_every_interest_as_a_query(model: RecallModel, prepared_data: PreparedData) -> None:
    examples = read_examples(prepared_data.shards("validation"))
    everything = encode_queries(model, examples).reshape(-1, WIDTH)
    queries = sample_queries(model, prepared_data, seed=1, limit=10**6)
    np.testing.assert_allclose(queries, everything, atol=1e-6)
    some = sample_queries(model, prepared_data, seed=1, limit=20)
    assert some.shape == (20, WIDTH)
    distances = np.abs(some[:, np.newaxis] - everything).max(axis=-1).min(axis=1)
    np.testing.assert_allclose(distances, 0, atol=1e-5)
