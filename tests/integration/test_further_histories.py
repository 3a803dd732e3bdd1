"""Further histories: from the log and from another file, through the job, the records, the model and to serving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from pipelines.training_data import prepare
from recall.config.experiment import Config
from recall.core.errors import ConfigError, DataError
from recall.core.ragged import Ragged
from recall.data.further_histories import FurtherHistory
from recall.data.prepared import PreparedData
from recall.index.exact import ExactIndex
from recall.index.items import Items
from recall.model.batches.dataset import read_examples, training_dataset
from recall.model.inference import encode_items, encode_queries, encode_users
from recall.model.objectives.retrieval import retrieval_terms
from recall.model.recall_model import RecallModel
from recall.model.saved_model import QueryModule
from recall.serving.items.served import ServedItems
from recall.serving.recaller import Recaller
from recall.serving.users.from_log import LoggedItemIds, LoggedUsers
from recall.serving.users.queries import UserQueries
from recall.serving.users.vectors import QueryVectors
from tests.conftest import Experiment
from tests.helpers import oracle

HOUR = 3_600_000
PLAIN = ("model.dropout=0", "model.cold_simulation.enabled=false", "model.loss.uniform_negatives=8")
# Everything that was shown is one further history, genres of another shop the other.
SHOWN = "data.histories.shown={column: is_click, at_least: 0, length: 5}"


@pytest.fixture(scope="module")
def shop(community: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another domain: authors in place of items, in seconds, with a stranger and a row without user."""
    events = pq.read_table(community / "events.parquet").to_pandas()
    authors = pd.read_parquet(community / "items.parquet").set_index("item_id").author_id
    visits = pd.DataFrame(
        {"user_id": events.user_id, "thing": events.item_id.map(authors), "at": events.time_ms // 1000}
    )[::3]
    extra = {"user_id": ["stranger", None], "thing": ["a001", "a002"], "at": [visits["at"].min()] * 2}
    path = tmp_path_factory.mktemp("shop") / "visits.parquet"
    pd.concat([visits, pd.DataFrame(extra)]).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def settings(experiment: Experiment, shop: Path) -> Callable[..., Config]:
    visits = f"data.histories.visits={{path: {shop}, item: thing, time: at, time_unit: s, domain: own, min_count: 5}}"
    return lambda *overrides: experiment(SHOWN, visits, *overrides)


@pytest.fixture(scope="module")
def data(settings: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    directory = tmp_path_factory.mktemp("further") / "data"
    prepare(settings(), directory)
    return PreparedData.load(directory, verify=True)


def as_lists(ragged: Ragged) -> list[list[int]]:
    return [ragged.values[slice(*ends)].tolist() for ends in np.c_[ragged.offsets[:-1], ragged.offsets[1:]]]


def test_examples_carry_what_the_oracle_finds_before_them(
    data: PreparedData, settings: Callable[..., Config], community: Path, shop: Path
) -> None:
    log, visits = pq.read_table(community / "events.parquet").to_pandas(), pq.read_table(shop).to_pandas()
    items = {item: row for row, item in enumerate(data.item_ids.to_pylist())}
    shown = [oracle.Entry(*row) for row in zip(log.user_id, log.item_id, log.time_ms, strict=True)]
    visited = [
        oracle.Entry(*row)
        for row in zip(visits.user_id, visits.thing, visits["at"] * 1000, strict=True)
        if row[0] is not None
    ]
    start = data.manifest["split"]["validation_start_ms"]
    counts = pd.Series([entry.item for entry in set(visited) if entry.time < start]).value_counts()
    codes = {item: code for code, item in enumerate(data.history_vocabularies["visits"].values.to_pylist(), start=2)}
    assert set(codes) == set(counts[counts >= 5].index)
    assert len(codes) < len({entry.item for entry in visited}), "some are too rare for an embedding of their own"
    for split in ("train", "validation", "test"):
        examples = read_examples(data.shards(split))
        asked = list(zip(examples.users, examples.times_ms, strict=True))
        expected = oracle.entries_before(shown, asked, length=5)
        assert as_lists(examples.further["shown"]) == [[items[entry.item] for entry in own] for own in expected]
        expected = oracle.entries_before(visited, asked, length=8)  # as data.history
        assert as_lists(examples.further["visits"]) == [[codes.get(entry.item, 1) for entry in own] for own in expected]
    assert any(len(own) == 8 for own in expected)


def test_the_manifest_counts_entries_and_what_was_set_aside(data: PreparedData, community: Path, shop: Path) -> None:
    described = data.manifest["histories"]
    assert described["shown"] == {
        "length": 5,
        "domain": "catalogue",
        "entries": len(
            pq.read_table(community / "events.parquet").to_pandas().drop_duplicates(["user_id", "item_id", "time_ms"])
        ),
        "rejected": {},
    }
    assert described["visits"]["rejected"] == {"history visits: user is missing": 1}
    assert data.manifest["counts"]["rejected"] == {}
    [row] = pq.read_table(data.directory / "rejected.parquet").to_pylist()
    assert (row["file"], row["reason"], row["item"]) == (str(shop), "history visits: user is missing", "a002")


def test_the_number_of_shards_never_shows(data: PreparedData, settings: Callable[..., Config], tmp_path: Path) -> None:
    prepare(settings("data.shards=1"), tmp_path / "data")
    other = PreparedData.load(tmp_path / "data")
    assert other.manifest["histories"] == data.manifest["histories"]
    for split in ("train", "validation", "test"):
        one, another = (
            sorted(record.numpy() for record in tf.data.TFRecordDataset([str(path) for path in found.shards(split)]))
            for found in (data, other)
        )
        assert one == another
    for name, histories in data.further_histories.items():
        for user in ("u001", "u002", "stranger"):
            assert histories.recent(user).tolist() == other.further_histories[name].recent(user).tolist()


def test_users_of_another_file_are_served_though_the_log_lacks_them(data: PreparedData) -> None:
    [code] = data.history_vocabularies["visits"].encode(pa.array(["a001"])).tolist()
    assert data.further_histories["visits"].recent("stranger").tolist() == [code]
    assert data.further_histories["shown"].recent("stranger").tolist() == []
    assert data.histories.recent("stranger").tolist() == []


def test_entries_of_one_moment_and_of_other_users_stay_out() -> None:
    entries = pa.table({"user": ["a", "a", "a", "c"], "item": ["x", "y", "z", "x"], "time_ms": [5, 5, 9, 1]})
    history = FurtherHistory.of(entries, np.array([4, -1, 6, 7]), length=2)
    users, user = pa.array(["a", "b", "c"]), np.array([0, 0, 0, 1, 2, 2])
    before = history.before(users, user, np.array([5, 6, 10, 10, 1, 2]))
    found = [history.codes[start:stop].tolist() for start, stop in zip(before.starts, before.stops, strict=True)]
    assert found == [[], [4], [4, 6], [], [], [7]]
    assert history.recent().to_pylist()[0] == {"user_id": "a", "recent": [4, 6], "recent_time_ms": [5, 9]}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["data.histories.likes={}"], "name a column of the log"),
        (["data.histories.likes={column: like, domain: own}"], "domain: own needs a path"),
        (["data.histories.likes={column: like, item: thing}"], "item describes another file; add its path"),
        (["data.histories.Likes={column: like}"], "data.histories.Likes"),
        (["data.histories={likes: {column: like, lenght: 3}}"], "unknown key"),
        (["data.layout=user", "data.histories.likes={column: like}"], "histories need one record per click"),
    ],
)
def test_a_history_that_makes_no_sense_is_refused(overrides: list[str], told: str, experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match=told):
        experiment(*overrides)


def test_a_column_that_the_log_lacks_is_named_where_it_is_asked_for(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.histories\.likes\.column: .* has no column is_like"):
        prepare(experiment("data.histories.likes={column: is_like}"), tmp_path / "data")


# The model


@pytest.fixture(scope="module")
def model(data: PreparedData, settings: Callable[..., Config]) -> RecallModel:
    tf.keras.utils.set_random_seed(7)
    model = RecallModel(settings("model.history_time=both", *PLAIN), data)
    model.prepare_optimizers()
    return model


def test_training_asks_as_serving_does(data: PreparedData, model: RecallModel, monkeypatch: Any) -> None:
    dataset = training_dataset(
        data, model.user_rows, batch_size=30, history=8, shuffle_buffer=1000, seed=1
    )  # fmt: skip
    batch = next(iter(dataset))
    asked: list[tf.Tensor] = []
    monkeypatch.setattr(
        "recall.model.objectives.retrieval.retrieval_terms",
        lambda queries, *rest, **named: asked.append(queries) or retrieval_terms(queries, *rest, **named),
    )
    model.compute_loss(batch)
    age_ms = batch["time_ms"][:, tf.newaxis] - batch["history_time_ms"]
    further = {name: batch[f"history.{name}"] for name in ("shown", "visits")}
    served = model.user_queries(batch["user"], batch["history"], age_ms, further)
    np.testing.assert_allclose(asked[0], served, atol=1e-5)
    for name in further:
        less = model.user_queries(batch["user"], batch["history"], age_ms, {**further, name: further[name][:, :0]})
        assert np.abs(less - served).max() > 1e-3, f"{name} matters"


def test_every_weight_of_the_fusion_is_trained(data: PreparedData, model: RecallModel) -> None:
    batch = next(iter(training_dataset(data, model.user_rows, batch_size=200, history=8, shuffle_buffer=1000, seed=1)))
    before = [variable.numpy() for variable in model.user_tower.fusion.trainable_variables]
    model.train_step(batch)
    for variable, start in zip(model.user_tower.fusion.trainable_variables, before, strict=True):
        unused = variable.name.startswith("empty")  # absent histories have no weight
        assert (variable.numpy() != start).any() or unused, f"{variable.name} is never trained"


def test_evaluation_asks_with_all_histories(data: PreparedData, model: RecallModel) -> None:
    examples = read_examples(data.shards("test"))
    examples = examples.select(np.arange(20))
    rows = model.user_rows(tf.constant(examples.users.tolist()))
    for place, found in enumerate(encode_queries(model, examples)):
        history = as_lists(examples.history)[place]
        clicked = examples.history_times_ms.values[slice(*examples.history_times_ms.offsets[place : place + 2])]
        expected = model.user_queries(
            rows[place : place + 1],
            tf.constant([history or [-1]]),
            tf.constant([(examples.times_ms[place] - clicked).tolist() or [-1]], tf.int64),
            {name: tf.constant([as_lists(lists)[place] or [-1]]) for name, lists in examples.further.items()},
        )
        np.testing.assert_allclose(found, expected[0], atol=1e-5)


# Serving


@pytest.fixture(scope="module")
def recaller(data: PreparedData, model: RecallModel, tmp_path_factory: pytest.TempPathFactory) -> Recaller:
    query = QueryModule(model, data.item_ids, data.history_vocabularies)
    folder = str(tmp_path_factory.mktemp("query"))
    tf.saved_model.save(query, folder, signatures=query.functions)
    ids = data.item_ids.to_pylist()
    things = np.array(["\0", "\0", *data.history_vocabularies["visits"].values.to_pylist()], dtype=object)
    further = {
        "shown": LoggedItemIds(data.further_histories["shown"], np.array(ids, dtype=object)),
        "visits": LoggedItemIds(data.further_histories["visits"], things),
    }
    index = ExactIndex(Items(data.item_ids, encode_items(model, data.posterior("serving").stacked())[0]))
    vectors = QueryVectors(tf.saved_model.load(folder), further=tuple(further))
    users = UserQueries(LoggedUsers(data.histories, ids, further=further), vectors)
    return Recaller(ServedItems(index, titles={}), users, now_ms=data.manifest["last_time_ms"])


def test_users_are_served_with_what_the_log_and_the_other_file_hold(
    recaller: Recaller, data: PreparedData, model: RecallModel
) -> None:
    users = ["u001", "stranger", "nobody"]
    further = {
        name: [histories.recent(user).tolist() for user in users] for name, histories in data.further_histories.items()
    }
    assert all(further[name][0] for name in further)
    rows = [data.histories.recent(user).tolist() for user in users]
    ages = [
        (data.manifest["last_time_ms"] - np.asarray(data.histories.recent_times_ms(user))).tolist() for user in users
    ]

    def padded(lists: list[list[int]], dtype: Any) -> Any:
        width = max(1, *map(len, lists))
        return np.array([[*own, *[-1] * (width - len(own))] for own in lists], dtype)

    queries = encode_users(
        model,
        np.array(users, dtype=object),
        padded(rows, np.int32),
        age_ms=padded(ages, np.int64),
        further={name: padded(lists, np.int32) for name, lists in further.items()},
    )
    found = recaller.recall(users, k=5)
    for row, user in enumerate(users):
        scores = pd.Series(recaller.index.vectors(data.item_ids.to_pylist()) @ queries[row], data.item_ids.to_pylist())
        seen = data.item_ids.take(pa.array(data.histories.seen(user))).to_pylist()
        np.testing.assert_allclose(found.scores[row], scores.drop(seen).nlargest(5), atol=1e-4)
    assert np.abs(queries[1] - queries[2]).max() > 1e-3, "a stranger to the log is known by what he did elsewhere"


def test_further_histories_may_be_given_and_unknown_ones_are_refused(recaller: Recaller) -> None:
    stored = recaller.recall(["nobody"], k=5)
    given = recaller.recall(["nobody"], k=5, further_histories={"visits": {"nobody": ["a001", "never heard of"]}})
    assert np.abs(stored.scores - given.scores).max() > 1e-5
    with pytest.raises(DataError, match="the model has no likes; it has shown, visits"):
        recaller.recall(["nobody"], further_histories={"likes": {}})
