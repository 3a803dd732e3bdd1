"""Users that no file knows: asked by features they get what a user with those features and clicks would get."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recall.config.experiment import Config
from recall.core.artifacts import write_json
from recall.core.errors import ArtifactError, DataError
from recall.serving.recaller import Recaller
from tests.conftest import Experiment
from tests.helpers.finished_run import WITH_STUDENT

Row = dict[str, Any]


@pytest.fixture(scope="module")
def listed(settings: Config) -> list[Row]:
    """Rows of the users file, of users who are known by id too."""
    assert settings.data.users is not None
    return pd.read_parquet(settings.data.users.path).head(6).to_dict("records")


@pytest.fixture(scope="module")
def clicks(settings: Config) -> list[list[str]]:
    """A history for each of them, from none to more than the model reads."""
    items = pd.read_parquet(settings.data.items.path).item_id.tolist()
    return [items[10 : 10 + length] for length in (0, 1, 3, 8, 11, 2)]


def test_a_user_of_the_file_is_asked_for_alike_by_id_and_by_features(
    recaller: Recaller, listed: list[Row], clicks: list[list[str]]
) -> None:
    rows = [{**row, "history": history} for row, history in zip(listed, clicks, strict=True)]
    by_id = recaller.user_vectors([row["user_id"] for row in listed], clicks)
    np.testing.assert_allclose(recaller.user_vectors_of(rows), by_id, atol=1e-6)


def test_who_tells_nothing_is_an_unknown_user(recaller: Recaller) -> None:
    expected = recaller.user_vectors(["nobody has this id"], [[]])
    np.testing.assert_allclose(recaller.user_vectors_of([{}]), expected, atol=1e-6)


def test_a_profile_without_an_id_has_a_say(recaller: Recaller, listed: list[Row]) -> None:
    bands = sorted({row["age_band"] for row in listed})[:2]
    vectors = recaller.user_vectors_of([{"age_band": band} for band in bands])
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-4


def test_candidates_are_the_best_unseen_by_brute_force(recaller: Recaller, clicks: list[list[str]]) -> None:
    rows = [{"age_band": "no such band", "history": history} for history in clicks]
    found = recaller.recall(features=rows, k=10)
    assert found.queries == ["0", "1", "2", "3", "4", "5"]
    catalogue = np.array(recaller.index.ids)
    scores = recaller.user_vectors_of(rows) @ recaller.vectors(catalogue).T
    for own, history, ids, best in zip(scores, clicks, found.ids, found.scores, strict=True):
        unseen = ~np.isin(catalogue, history)
        order = np.argsort(-own[unseen], kind="stable")[:10]
        np.testing.assert_allclose(best, own[unseen][order], atol=1e-5)
        assert set(ids) == set(catalogue[unseen][order])
    assert clicks[1][0] in recaller.recall(features=rows[1:2], k=150, exclude_seen=False).ids[0]


def test_a_known_id_leaves_out_what_its_user_clicked_in_the_log(recaller: Recaller, settings: Config) -> None:
    log = pd.read_parquet(settings.data.events.path)
    user = log[log.is_click == 1].user_id.value_counts().index[0]
    clicked = set(log[(log.is_click == 1) & (log.user_id == user)].item_id)
    assert not clicked & set(recaller.recall(features=[{"user_id": user}], k=150).ids[0])


def test_times_of_clicks_count_from_the_moment_of_the_query(recaller: Recaller, clicks: list[list[str]]) -> None:
    now, hour = 1_700_000_000_000, 3_600_000
    times = [now - 5 * hour, now - 3 * hour, now - hour]
    row = {"user_id": "u", "history": clicks[2], "history_times_ms": times}
    expected = recaller.user_vectors(["u"], [clicks[2]], ages_hours=[[5, 3, 1]])
    np.testing.assert_allclose(recaller.user_vectors_of([row], now_ms=now), expected, atol=1e-6)
    assert np.abs(recaller.user_vectors_of([row], now_ms=now + 24 * 30 * hour) - expected).max() > 1e-5


def test_rows_whose_values_differ_in_type_are_answered_as_each_alone(recaller: Recaller) -> None:
    rows: list[Row] = [{"age_band": "18-24"}, {"age_band": 3}, {"age_band": None}]
    alone = np.concatenate([recaller.user_vectors_of([row]) for row in rows])
    for together in (rows, pd.DataFrame(rows)):
        np.testing.assert_allclose(recaller.user_vectors_of(together), alone, atol=1e-6)


def test_a_data_frame_is_as_good_as_rows(recaller: Recaller, listed: list[Row], clicks: list[list[str]]) -> None:
    rows: list[Row] = [{**listed[0], "history": clicks[2]}, {"history": clicks[0]}]
    frame = pd.DataFrame(rows)  # the second row's features are NaN
    np.testing.assert_allclose(recaller.user_vectors_of(frame), recaller.user_vectors_of(rows), atol=1e-6)


def test_content_starts_from_the_clicks_given(recaller: Recaller, clicks: list[list[str]]) -> None:
    by_features = recaller.recall(features=[{"history": clicks[2]}, {}], k=5, by="content")
    by_id = recaller.recall(["nobody"], histories={"nobody": clicks[2]}, k=5, by="content")
    assert by_features.ids[0].tolist() == by_id.ids[0].tolist()
    assert by_features.ids[1].tolist() == [None] * 5


def test_nobody_gets_nothing(recaller: Recaller) -> None:
    assert recaller.recall(features=[], k=3).ids.shape == (0, 3)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([{"history": "i1"}], r"features\[0\]\['history'\]: expected a list of ids, found the text 'i1'"),
        ([{}, {"history": [None]}], r"features\[1\]\['history'\]: 1 of 1 ids are missing"),
        (
            [{"history": ["i1"], "history_times_ms": []}],
            r"features\[0\]\['history_times_ms'\]: expected one time for each of the 1 items",
        ),
        ([{"age_band": ["a", "list"]}], r"age_band.*expected ids, found values of type list"),
        ({"age_band": "18-24"}, r"expected a list of rows, found one row"),
    ],
)
def test_wrong_rows_are_named(recaller: Recaller, features: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        recaller.recall(features=features)


def test_users_and_features_together_or_neither_is_an_error(recaller: Recaller) -> None:
    with pytest.raises(DataError, match="remove users, histories and times"):
        recaller.recall(["u1"], features=[{}])
    with pytest.raises(DataError, match="remove users, histories and times"):
        recaller.recall(features=[{}], histories={"u1": []})
    with pytest.raises(DataError, match="found neither"):
        recaller.recall()


def test_a_run_from_before_says_to_train_again(copied: Path) -> None:
    shutil.rmtree(copied / "model" / "user_encoder")
    manifest = copied / "model" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"] = {name: entry for name, entry in content["files"].items() if "user_encoder/" not in name}
    write_json(manifest, content, checksummed=True)
    older = Recaller.load(copied)
    assert older.recall(["u1"], k=3).ids.shape == (1, 3), "everything else works"
    with pytest.raises(ArtifactError, match="remove the folder model of the run and train again"):
        older.recall(features=[{}])


def test_the_student_answers_by_features_too(
    finish: Callable[[Config], Path], experiment: Experiment, listed: list[Row], clicks: list[list[str]]
) -> None:
    student = Recaller.load(finish(experiment(*WITH_STUDENT)), query="student")
    rows = [{**row, "history": history} for row, history in zip(listed, clicks, strict=True)]
    expected = student.user_vectors([row["user_id"] for row in listed], clicks)
    np.testing.assert_allclose(student.user_vectors_of(rows), expected, atol=1e-6)
