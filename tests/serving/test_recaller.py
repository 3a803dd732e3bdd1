"""Serving: candidates agree with brute force on what the run exported, and what was seen never comes back."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import tensorflow as tf

from recall.config.experiment import Config
from recall.core.artifacts import read_json, write_json
from recall.core.errors import ArtifactError, DataError
from recall.data.prepared import PreparedData
from recall.index import build_index
from recall.runs.run import Run
from recall.serving.items.served import ServedItems
from recall.serving.recaller import Recaller
from recall.serving.search.candidates import Candidates
from recall.serving.users.from_log import LoggedUsers
from recall.serving.users.queries import UserQueries
from recall.serving.users.vectors import QueryVectors
from recall.training.published import load_model
from tests.conftest import Experiment

HISTORY = 8  # data.history of the experiment
Matrix = npt.NDArray[np.float32]


class Exported(SimpleNamespace):
    """What other programs read of a run: ids, vectors with the index's bias, the query model, and the raw clicks."""

    ids: list[str]
    vectors: Matrix
    clicks: pd.DataFrame
    last_ms: int
    query: Any

    def user_query(self, user: str, history: Sequence[str], ages_hours: Sequence[float] | None = None) -> Matrix:
        inputs = {"user_id": tf.constant([user]), "history": tf.constant([list(history) or [""]])}
        if ages_hours is None:
            return self.query.signatures["user"](**inputs)["vector"].numpy()[0]
        inputs["history_age_hours"] = tf.constant([list(ages_hours) or [-1]], tf.float32)
        return self.query.signatures["user_in_full"](**inputs)["vector"].numpy()[0]

    def clicked_hours_ago(self, user: str, now_ms: int) -> list[float]:
        own = self.clicks[self.clicks.user_id == user]
        return list((now_ms - own.sort_values(["time_ms", "item_id"]).time_ms) / 3.6e6)

    def clicked(self, user: str) -> list[str]:
        own = self.clicks[self.clicks.user_id == user]
        return list(own.sort_values(["time_ms", "item_id"]).item_id)

    def best(self, query: Matrix, *, without: Sequence[str], k: int) -> tuple[list[str], list[float]]:
        scores = pd.Series(self.vectors @ query, index=self.ids).drop(list(set(without)))
        scores = scores.sort_values(ascending=False, kind="stable")[:k]
        return list(scores.index), list(scores)


def biased(table: pd.DataFrame, bias: float) -> Matrix:
    """The vectors of the exported table as an index with this cold bias holds them."""
    vectors = np.stack(list(table.vector))
    vectors[:, -1] += bias / (1 + table.exposures.to_numpy() / 5)
    return vectors


@pytest.fixture(scope="module")
def exported(finished: Path, settings: Config) -> Exported:
    table = pd.read_parquet(finished / "vectors" / "vectors.parquet")
    log = pd.read_parquet(settings.data.events.path)
    bias = json.loads((finished / "metrics.json").read_text())["index"]["cold_bias"]
    return Exported(
        ids=table.item_id.tolist(),
        vectors=biased(table, bias),
        clicks=log[log.is_click == 1],
        last_ms=int(log.time_ms.max()),
        query=tf.saved_model.load(str(finished / "model" / "query")),
    )


@pytest.fixture(scope="module")
def active(exported: Exported) -> list[str]:
    """The users who clicked most."""
    return exported.clicks.user_id.value_counts().index[:5].tolist()


def assert_same_candidates(ids: Any, scores: Any, expected: tuple[list[str], list[float]]) -> None:
    assert scores == pytest.approx(expected[1], abs=1e-5)
    differing = [place for place, (one, other) in enumerate(zip(ids, expected[0], strict=True)) if one != other]
    for place in differing:  # only what scores the same may change places
        assert scores[place] == pytest.approx(expected[1][expected[0].index(ids[place])], abs=1e-6)


# Users


def test_candidates_of_users_are_the_best_unseen_by_brute_force(
    recaller: Recaller, exported: Exported, active: list[str]
) -> None:
    found = recaller.recall(active, k=10)
    for row, user in enumerate(active):
        clicked = exported.clicked(user)
        assert len(clicked) > HISTORY, "so that history and seen items differ"
        ages = exported.clicked_hours_ago(user, exported.last_ms)
        query = exported.user_query(user, clicked[-HISTORY:], ages[-HISTORY:])
        assert_same_candidates(found.ids[row], found.scores[row], exported.best(query, without=clicked, k=10))


def test_the_same_clicks_say_something_else_a_month_later(
    recaller: Recaller, exported: Exported, active: list[str]
) -> None:
    later_ms, user = exported.last_ms + 30 * 24 * 3_600_000, active[0]
    clicked, ages = exported.clicked(user), exported.clicked_hours_ago(user, later_ms)
    found = recaller.recall([user], k=10, now_ms=later_ms)
    query = exported.user_query(user, clicked[-HISTORY:], ages[-HISTORY:])
    assert_same_candidates(found.ids[0], found.scores[0], exported.best(query, without=clicked, k=10))
    assert np.abs(found.scores - recaller.recall([user], k=10).scores).max() > 1e-5


def test_a_fresh_history_may_bring_its_times(recaller: Recaller, exported: Exported) -> None:
    fresh, now_ms = ["i010", "gone from the catalogue", "i020"], exported.last_ms
    times = {"nobody": [now_ms - 7_200_000, now_ms - 3_600_000, now_ms]}
    found = recaller.recall(["nobody"], k=10, histories={"nobody": fresh}, history_times_ms=times)
    query = exported.user_query("nobody", ["i010", "i020"], [2, 0])
    assert_same_candidates(found.ids[0], found.scores[0], exported.best(query, without=fresh[::2], k=10))
    for histories in ({"nobody": fresh[:2]}, None):
        with pytest.raises(
            DataError, match=r"history_times_ms\['nobody'\]: expected one time for each of the [02] items"
        ):
            recaller.recall(["nobody"], histories=histories, history_times_ms=times)


def test_seen_items_never_come_back_and_every_list_is_full(
    recaller: Recaller, exported: Exported, settings: Config
) -> None:
    users = pd.read_parquet(settings.data.users.path).user_id.tolist() if settings.data.users else []
    found = recaller.recall(users, k=40)
    assert found.ids.shape == found.scores.shape == (120, 40)
    for user, ids in zip(users, found.ids, strict=True):
        assert len(set(ids) - {None}) == 40
        assert not set(ids) & set(exported.clicked(user))


def test_seen_items_come_back_when_asked_for(recaller: Recaller, exported: Exported, active: list[str]) -> None:
    found = recaller.recall(active[:1], k=150, exclude_seen=False)
    assert sorted(found.ids[0]) == sorted(exported.ids)


def test_a_user_gets_the_same_alone_as_among_others(recaller: Recaller, active: list[str]) -> None:
    together = recaller.recall([*active, "nobody"], k=10)
    alone = recaller.recall([active[2]], k=10)
    assert_same_candidates(alone.ids[0], alone.scores[0], (list(together.ids[2]), list(together.scores[2])))


def test_unknown_users_get_the_answer_to_an_empty_history(recaller: Recaller, exported: Exported) -> None:
    found = recaller.recall(["nobody", "somebody"], k=10)
    expected = exported.best(exported.user_query("nobody", []), without=[], k=10)
    for row in (0, 1):
        assert_same_candidates(found.ids[row], found.scores[row], expected)


def test_a_fresh_history_takes_the_place_of_the_logs(recaller: Recaller, exported: Exported, active: list[str]) -> None:
    user, fresh = active[0], ["i010", "gone from the catalogue", "i020", "i030"]
    found = recaller.recall([user, "nobody", active[1]], k=10, histories={user: fresh, "nobody": iter(fresh)})
    known = [item for item in fresh if item in exported.ids]
    # What the user clicked in the log stays excluded: it has been clicked all the same.
    for row, name in ((0, user), (1, "nobody")):
        expected = exported.best(exported.user_query(name, known), without=[*known, *exported.clicked(name)], k=10)
        assert_same_candidates(found.ids[row], found.scores[row], expected)
    assert list(found.ids[2]) == list(recaller.recall([active[1]], k=10).ids[0])


def test_only_the_last_known_items_of_a_long_history_count(recaller: Recaller, exported: Exported) -> None:
    history = [*exported.ids[:20], *["unknown"] * 30]
    query = recaller.user_vectors(["nobody"], [history])
    np.testing.assert_allclose(query[0], exported.user_query("nobody", exported.ids[20 - HISTORY : 20]), atol=1e-5)


# Items


def test_similar_items_are_the_best_for_the_trigger_and_never_the_item_itself(
    recaller: Recaller, exported: Exported
) -> None:
    asked = exported.ids[:6]
    found = recaller.similar(asked, k=149)
    queries = exported.query.signatures["trigger"](item_id=tf.constant(asked))["vector"].numpy()
    for row, item in enumerate(asked):
        assert item not in found.ids[row]
        assert_same_candidates(
            found.ids[row], found.scores[row], exported.best(queries[row], without=[item], k=149)
        )  # fmt: skip


def test_without_a_trigger_tower_similar_items_have_similar_vectors(
    recaller: Recaller, exported: Exported, without_query_towers: Recaller
) -> None:
    item = exported.ids[3]
    found = without_query_towers.similar([item], k=10)
    # What is popular, new, or has a long vector is not thereby similar: appeal, bias and length have no say.
    taste = exported.vectors[:, :-1].astype(float)
    unit = taste / np.linalg.norm(taste, axis=1, keepdims=True)
    cosine = pd.Series(unit @ unit[3], exported.ids).drop(item).sort_values(ascending=False)[:10]
    assert_same_candidates(found.ids[0], found.scores[0], (list(cosine.index), list(cosine)))
    np.testing.assert_allclose(without_query_towers.vectors([item])[0], exported.vectors[3], atol=1e-6)


def test_an_item_with_a_long_vector_is_not_like_everything(exported: Exported, without_query_towers: Recaller) -> None:
    vectors = exported.vectors.copy()
    vectors[0] *= 100
    index = build_index(exported.ids, vectors)
    with_a_hub = Recaller(ServedItems(index, titles={}), without_query_towers.user_queries)
    everything = exported.ids[1:]
    found = with_a_hub.similar(everything, k=10)
    assert (found.ids == without_query_towers.similar(everything, k=10).ids).all()
    assert np.mean([exported.ids[0] in row for row in found.ids]) < 0.5
    by_inner_product = index.search(vectors[1:] * ([1.0] * (vectors.shape[1] - 1) + [0.0]), 11)
    assert np.mean([exported.ids[0] in row for row in by_inner_product.ids]) > 0.5  # what it was


def test_without_a_user_tower_the_error_says_what_to_ask(without_query_towers: Recaller) -> None:
    with pytest.raises(ArtifactError, match=r"no user tower .* ask with similar\(items=\.\.\.\)"):
        without_query_towers.recall(["u001"], k=3)


@pytest.fixture
def without_query_towers(recaller: Recaller, finished: Path) -> Recaller:
    """A recaller whose query model has neither tower."""
    prepared = PreparedData.load(finished / "data")
    logged = LoggedUsers(prepared.histories, prepared.item_ids.to_pylist())
    users = UserQueries(logged, QueryVectors(SimpleNamespace(signatures={})))
    return Recaller(ServedItems(recaller.index, titles={}), users)


def test_vectors_are_those_of_the_exported_table(recaller: Recaller, exported: Exported) -> None:
    asked = [exported.ids[row] for row in (7, 0, 7)]
    np.testing.assert_allclose(recaller.vectors(asked), exported.vectors[[7, 0, 7]], atol=1e-6)
    assert recaller.vectors([]).shape == (0, exported.vectors.shape[1])


@pytest.mark.parametrize("ask", [Recaller.vectors, Recaller.similar])
def test_an_unknown_item_is_an_error_that_says_what_to_do(recaller: Recaller, ask: Any) -> None:
    with pytest.raises(DataError, match=r"2 of 3 ids are not in the index: x, y; .* ask new_item_vectors"):
        ask(recaller, ["x", "i001", "y"])


# New items


def contents(settings: Config) -> pd.DataFrame:
    return pd.read_parquet(settings.data.items.path).drop(columns=["item_id"])


def test_a_new_item_lies_where_its_content_puts_it(recaller: Recaller, finished: Path, settings: Config) -> None:
    rows = contents(settings)[:40]
    new = recaller.new_item_vectors(rows.drop(columns=["author_id"]))
    assert new.shape == (40, 9)
    new = new[:, :-1] / np.linalg.norm(new[:, :-1], axis=1, keepdims=True)
    model = load_model(finished / "model", PreparedData.load(finished / "data"))
    features = model.item_table.gather(tf.range(40))
    meta = model.item_vectors_of(features, tf.ones([40, model.items.posterior_width])).meta.numpy()
    cosines = new @ (meta / np.linalg.norm(meta, axis=1, keepdims=True)).T  # [new, items]
    assert np.diag(cosines).min() > 0.85  # the author is unknown, and gates differ
    assert np.median((cosines > np.diag(cosines)[:, np.newaxis]).sum(axis=1)) == 0, "no other content is nearer"


def test_a_new_item_does_not_borrow_the_behaviour_of_an_id_that_exists(recaller: Recaller, settings: Config) -> None:
    rows = contents(settings)[:5]
    anonymous = recaller.new_item_vectors(rows)
    np.testing.assert_array_equal(recaller.new_item_vectors(rows.assign(item_id="i001")), anonymous)
    np.testing.assert_array_equal(recaller.new_item_vectors(rows.assign(item_id="brand new")), anonymous)


def test_new_items_come_as_frame_or_as_dictionaries_with_missing_values(recaller: Recaller, settings: Config) -> None:
    frame = contents(settings)[:30]
    assert frame.text.isna().any(), "some items have no text vector"
    records = [{name: value for name, value in row.items() if value is not None} for row in frame.to_dict("records")]
    np.testing.assert_allclose(recaller.new_item_vectors(records), recaller.new_item_vectors(frame), atol=1e-6)
    nothing = recaller.new_item_vectors([{}])
    assert np.isfinite(nothing).all()


def test_a_new_item_can_be_asked_for_its_neighbours(recaller: Recaller, settings: Config) -> None:
    vectors = recaller.new_item_vectors(contents(settings)[:3])
    found = recaller.index.search(vectors, 5)
    assert found.ids.shape == (3, 5)
    assert (np.diff(found.scores, axis=1) <= 0).all()


@pytest.mark.parametrize("wrong", [{"duration_s": "long"}, {"text": [1.0, 2.0]}])
def test_new_content_of_another_type_is_an_error(recaller: Recaller, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        recaller.new_item_vectors([wrong])


# The cold bias


@pytest.fixture(scope="module")
def with_bias(
    finished: Path, variant: Experiment, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[float], Recaller]:
    """Factory of recallers of the same run whose index has a given bias."""

    @functools.cache
    def build(bias: float) -> Recaller:
        directory = tmp_path_factory.mktemp("biased") / "run"
        shutil.copytree(finished, directory)
        Run(variant(f"index.cold_bias={bias}"), directory).index()
        return Recaller.load(directory)

    return build


def test_lists_are_the_exact_ones_with_the_bias_and_hold_more_new_items_the_larger_it_is(
    with_bias: Callable[[float], Recaller], finished: Path, exported: Exported, active: list[str]
) -> None:
    table = pd.read_parquet(finished / "vectors" / "vectors.parquet")
    novelty = dict(zip(table.item_id, 1 / (1 + table.exposures / 5), strict=True))
    found = []
    for bias in (-3.0, 0.0, 3.0):
        recaller = with_bias(bias)
        scored = Exported(ids=exported.ids, vectors=biased(table, bias))
        lists = recaller.recall(active, k=10)
        for row, user in enumerate(active):
            clicked = exported.clicked(user)
            ages = exported.clicked_hours_ago(user, exported.last_ms)
            query = exported.user_query(user, clicked[-HISTORY:], ages[-HISTORY:])
            assert_same_candidates(lists.ids[row], lists.scores[row], scored.best(query, without=clicked, k=10))
        found.append(np.mean([novelty[item] for item in lists.ids.ravel()]))
    assert found[0] < found[1] < found[2]


def test_a_new_item_gets_the_bias_of_the_index_in_full(
    with_bias: Callable[[float], Recaller], settings: Config
) -> None:
    rows = contents(settings)[:5]
    plain, biased = (with_bias(bias).new_item_vectors(rows) for bias in (0.0, 0.5))
    np.testing.assert_allclose(biased - plain, np.tile([*[0.0] * 8, 0.5], (5, 1)), atol=1e-6)


# What callers bring and get


def test_more_than_the_catalogue_has_is_padded_and_dropped_from_frames(
    recaller: Recaller, exported: Exported, active: list[str]
) -> None:
    found = recaller.recall(active[:1], k=500)
    unseen = set(exported.ids) - set(exported.clicked(active[0]))
    assert found.ids.shape == (1, 500)
    assert set(found.ids[0, : len(unseen)]) == unseen
    assert set(found.ids[0, len(unseen) :]) == {None}
    assert np.isneginf(found.scores[0, len(unseen) :]).all()
    assert len(found.to_pandas()) == len(unseen)


def test_frames_and_records_hold_one_candidate_a_row(recaller: Recaller, settings: Config) -> None:
    frame = recaller.recall(["u001", "u002"], k=3).to_pandas()
    assert frame.columns.tolist() == ["query", "rank", "item", "score", "title"]
    assert frame["query"].tolist() == ["u001"] * 3 + ["u002"] * 3
    assert frame["rank"].tolist() == [1, 2, 3] * 2
    titles = pd.read_parquet(settings.data.items.path).set_index("item_id").title
    assert frame.title.tolist() == titles[frame.item].tolist()


def test_items_without_a_title_give_valid_json() -> None:
    ids = np.array([["a", "b", None]], dtype=object)
    found = Candidates(["u"], ids, np.array([[2.0, 1.0, -np.inf]], np.float32), titles={"a": "A"})
    assert json.loads(json.dumps(found.records(), allow_nan=False)) == [
        {"query": "u", "rank": 1, "item": "a", "score": 2.0, "title": "A"},
        {"query": "u", "rank": 2, "item": "b", "score": 1.0, "title": None},
    ]


def test_nobody_asked_is_nothing_found(recaller: Recaller) -> None:
    assert recaller.recall([], k=4).ids.shape == (0, 4)
    assert recaller.similar([], k=4).ids.shape == (0, 4)
    assert recaller.recall([], k=4).to_pandas().columns.tolist() == ["query", "rank", "item", "score", "title"]


@pytest.mark.parametrize("users", [[7], [7.0], np.array([7]), pd.Series([7]), (" 7 ",)])
def test_ids_are_read_as_those_of_the_log(recaller: Recaller, users: Any) -> None:
    assert recaller.recall(users, k=1).queries == ["7"]


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ("u001", r"users: expected a list of ids, found the text 'u001'; write \['u001'\]"),
        (["u001", None], "users: 1 of 2 ids are missing or empty"),
        (["u001", ""], "users: 1 of 2 ids are missing or empty"),
        (["u001", 7], "users: expected ids of one type"),
    ],
)
def test_what_is_no_list_of_ids_is_an_error(recaller: Recaller, users: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        recaller.recall(users, k=1)


def test_k_below_one_is_an_error(recaller: Recaller) -> None:
    for ask in (recaller.recall, recaller.similar):
        with pytest.raises(DataError, match="k: expected at least 1, found 0"):
            ask(["i001"], k=0)


def test_an_index_of_another_model_does_not_load(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "model" / "manifest.json"
    write_json(path, {**read_json(path), "fingerprint": "of another model"}, checksummed=True)
    with pytest.raises(
        ArtifactError, match=r"holds vectors of model .* but the model is of another model; run `recall"
    ):
        Recaller.load(tmp_path / "run")


def test_a_damaged_model_does_not_load(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "model" / "query" / "variables" / "variables.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"its checksum differs .* run `recall train --run .*` again"):
        Recaller.load(tmp_path / "run")
