"""Content vectors of a prepared run judged: the command, its errors, and that real content beats noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recall.content.judge.evaluation import JudgeSettings, judge_content, tag_matrices
from recall.content.vectors import ContentVectors, on_common_items, prepared_vectors, read_vectors
from recall.core.errors import DataError
from recall.data.prepared import PreparedData
from recall.runs.run import Run
from tests.conftest import Experiment

if TYPE_CHECKING:
    from tests.helpers.finished_run import Outcome


Command = Callable[..., "Outcome"]


@pytest.fixture(scope="module")
def run(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its first step done."""
    directory = tmp_path_factory.mktemp("judged") / "run"
    Run(experiment(), directory).prepare()
    return directory


@pytest.fixture(scope="module")
def data(run: Path) -> PreparedData:
    return PreparedData.load(run / "data")


@pytest.fixture(scope="module")
def items(experiment: Experiment) -> pd.DataFrame:
    """The items file as it is."""
    return pd.read_parquet(experiment().data.items.path)


@pytest.fixture
def noise(tmp_path: Path, items: pd.DataFrame) -> Path:
    """Random vectors of every item."""
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).normal(size=(len(items), 16)))
    return tmp_path / "noise.npy"


def column_of(vectors: Any) -> pa.Array:
    return pa.array([None if vector is None else list(map(float, vector)) for vector in vectors])


def test_text_of_the_community_knows_more_of_taste_than_noise_does(command: Command, run: Path, noise: Path) -> None:
    outcome = command("content", "evaluate", "--run", run, "--vectors", f"noise={noise}", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert list(found["vectors"]) == ["text", "noise"]
    text, nothing = found["vectors"]["text"], found["vectors"]["noise"]
    for similarity in ("mean", "max"):
        for kind in ("auc_random", "auc_popular"):
            assert nothing["last_n"][similarity]["all"][kind] == pytest.approx(0.5, abs=0.05)
            assert text["last_n"][similarity]["all"][kind] > nothing["last_n"][similarity]["all"][kind] + 0.03
    assert text["tags"]["tags"]["share@10"] > text["tags"]["tags"]["chance"] + 0.1
    assert nothing["tags"]["tags"]["share@10"] == pytest.approx(nothing["tags"]["tags"]["chance"], abs=0.05)
    assert text["alignment"]["value"] < text["alignment"]["random"]


def test_the_table_shows_sets_side_by_side_and_the_file_holds_the_same(
    command: Command, run: Path, noise: Path, tmp_path: Path
) -> None:
    arguments = ("content", "evaluate", "--run", run, "--vectors", f"noise={noise}")
    outcome = command(*arguments, "--out", tmp_path / "deep" / "found.json")
    assert outcome.code == 0, outcome.err
    for shown in ("text", "noise", "AUC, random, mean", "recall@50, max", "tags: common@10", "uniformity"):
        assert shown in outcome.out
    assert json.loads((tmp_path / "deep" / "found.json").read_text()) == json.loads(command(*arguments, "--json").out)


def test_cold_clicks_and_coverage_are_those_of_the_log(
    data: PreparedData, items: pd.DataFrame, experiment: Experiment
) -> None:
    log = pd.read_parquet(experiment().data.events.path)
    start_ms = data.manifest["split"]["test_start_ms"]
    shown = set(log[log.time_ms < start_ms].item_id)
    has_text = set(items[items.text.notna()].item_id)
    clicks = log[log.is_click == 1].sort_values(["time_ms"])
    asked = cold = 0
    for _, own in clicks.groupby("user_id"):
        for time_ms, item in own[own.time_ms >= start_ms][["time_ms", "item_id"]].itertuples(index=False):
            before = own[own.time_ms < time_ms].item_id.tolist()
            if item in has_text and item not in before and set(before[-8:]) & has_text:  # data.history is 8
                asked, cold = asked + 1, cold + (item not in shown)
    found = judge_content(prepared_vectors(data), data)["vectors"]["text"]
    assert found["coverage"] == pytest.approx(len(has_text) / len(items))
    assert 0 < found["coverage"] < 1, "some items have no text"
    for similarity in ("mean", "max"):
        assert found["last_n"][similarity]["all"]["examples"] == asked
        assert found["last_n"][similarity]["cold"]["examples"] == cold
    assert asked + sum(found["left_out"].values()) == len(clicks[clicks.time_ms >= start_ms])


def test_judging_again_gives_the_same_and_another_seed_other_draws(data: PreparedData) -> None:
    vectors = prepared_vectors(data)
    one, again, other = (judge_content(vectors, data, JudgeSettings(seed=seed, limit=50)) for seed in (1, 1, 2))
    assert one == again
    assert one["clicks"]["asked"] == 50
    assert one["vectors"] != other["vectors"]


def test_tags_are_those_of_the_items_file(data: PreparedData, items: pd.DataFrame) -> None:
    matrices = tag_matrices(data)
    assert list(matrices) == ["tags", "category"], "clusters and buckets are no tags"
    has = [set(value) if isinstance(value, list | np.ndarray) else set(str(value).split(",")) for value in items.tags]
    common = (matrices["tags"] @ matrices["tags"].T).toarray() > 0
    for row, column in ((0, 1), (3, 80), (5, 5), (149, 20), (7, 7)):
        assert common[row, column] == bool(has[row] & has[column])
    assert matrices["category"].sum() == items.category.notna().sum()


# Vectors from files


def test_parquet_is_placed_by_id_and_may_cover_a_part(data: PreparedData, items: pd.DataFrame, tmp_path: Path) -> None:
    ids = [items.item_id[40], "not in the catalogue", items.item_id[2]]
    table = pa.table({"item_id": ids, "clip": column_of([[3, 4], [9, 9], [0, 2]]), "note": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "clip.parquet")
    found = read_vectors("clip", tmp_path / "clip.parquet", data, id_column="item_id")
    assert np.flatnonzero(found.present).tolist() == [2, 40]
    np.testing.assert_allclose(found.unit[[2, 40]], [[0, 1], [0.6, 0.8]], atol=1e-6)


def test_sets_can_be_judged_on_what_all_of_them_cover(command: Command, run: Path, noise: Path) -> None:
    arguments = ("content", "evaluate", "--run", run, "--vectors", f"noise={noise}", "--json")
    alone, common = (json.loads(command(*arguments, *flags).out)["vectors"] for flags in ((), ("--common",)))
    assert alone["noise"]["coverage"] == 1 > alone["text"]["coverage"]
    assert common["noise"]["coverage"] == common["text"]["coverage"] == alone["text"]["coverage"]
    asked = [common[name]["last_n"]["mean"]["all"]["examples"] for name in ("noise", "text")]
    assert asked[0] == asked[1]


def test_sets_without_common_items_are_an_error() -> None:
    one, other = (ContentVectors.checked(name, column_of(vectors)) for name, vectors in (
        ("a", [[1, 0], [0, 1], None]), ("b", [None, [1, 0], [0, 1]])
    ))  # fmt: skip
    with pytest.raises(DataError, match="vectors a, b: 1 items have one in every set"):
        on_common_items([one, other])


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((150, 3)), "vectors x: all 150 point into one direction"),
        (np.ones((149, 3)), "has 149 rows but"),
        (np.zeros((150, 3)), "vectors x: 0 of 150 items have a vector"),
        (np.full((150, 3), np.nan), "NaN or infinity in 150 rows"),
        (np.ones(150), "expected one array of numbers [150, dim]"),
    ],
    ids=["constant", "rows", "zeros", "nan", "flat"],
)
def test_vectors_that_cannot_be_judged_are_one_clear_line(
    command: Command, run: Path, tmp_path: Path, vectors: Any, message: str
) -> None:
    np.save(tmp_path / "x.npy", vectors)
    outcome = command("content", "evaluate", "--run", run, "--vectors", f"x={tmp_path / 'x.npy'}")
    assert outcome.code == 1
    [line] = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--vectors", "x.npy"), "--vectors x.npy: expected name=path, e.g."),
        (("--vectors", "x={tmp}/x.npy"), "x.npy: no such file"),
        (("--vectors", "x={tmp}/x.csv"), "expected a file that ends in .npy, .parquet or .pq"),
        (("--vectors", "text={tmp}/ok.npy"), "vectors text: the name is used twice"),
        (("--vectors", "x={tmp}/ids.parquet"), "expected a column item_id and one column of lists"),
        (("--vectors", "x={tmp}/other.parquet"), "none of the 2 item ids"),
        (("--vectors", "x={tmp}/twice.parquet"), "1 items more than once"),
        (("--split", "train"), "split: found train, expected test or validation"),
    ],
)
def test_what_cannot_be_asked_is_one_clear_line(
    command: Command, run: Path, items: pd.DataFrame, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "x.csv").write_text("item_id\n")
    np.save(tmp_path / "ok.npy", np.random.default_rng(0).normal(size=(150, 3)))
    first, two = items.item_id[0], column_of([[1, 0], [0, 1]])
    pq.write_table(pa.table({"item_id": [first]}), tmp_path / "ids.parquet")
    pq.write_table(pa.table({"item_id": ["x1", "x2"], "vector": two}), tmp_path / "other.parquet")
    pq.write_table(pa.table({"item_id": [first, first], "vector": two}), tmp_path / "twice.parquet")
    outcome = command("content", "evaluate", "--run", run, *(part.format(tmp=tmp_path) for part in arguments))
    assert outcome.code == 1
    [line] = outcome.err.splitlines()
    assert message in line


def test_a_run_that_is_not_prepared_says_what_to_do(command: Command, run: Path, tmp_path: Path) -> None:
    outcome = command("content", "evaluate", "--run", tmp_path)
    assert "holds no run; start one with" in outcome.err
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    outcome = command("content", "evaluate", "--run", tmp_path)
    assert f"not there yet; run `recall prepare --run {tmp_path}` first" in outcome.err


def test_settings_out_of_range_are_errors() -> None:
    with pytest.raises(DataError, match="last: expected at least 1, found 0"):
        JudgeSettings(last=0)


def test_vectors_are_scaled_to_unit_length() -> None:
    found = ContentVectors.checked("x", column_of([[3, 4], None, [0, -7]]))
    np.testing.assert_allclose(found.unit, [[0.6, 0.8], [0, 0], [0, -1]], atol=1e-6)
    assert found.present.tolist() == [True, False, True]
    assert found.coverage == pytest.approx(2 / 3)
