"""`recall export`: a process that never imports recall gets the recaller's candidates out of the exported files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from recall.config.experiment import Config
from recall.core.errors import ArtifactError, ConfigError
from recall.serving.export.run import export_run
from recall.serving.recaller import Recaller
from tests.conftest import Experiment
from tests.helpers.finished_run import WITH_INTERESTS, WITH_ITEM_CODES

if TYPE_CHECKING:
    from tests.helpers.finished_run import Outcome


K = 20
SEVERAL = {"interests": WITH_INTERESTS, "item_codes": WITH_ITEM_CODES}
STRANGER = """
import json, sys
import numpy as np, tensorflow as tf
answers = {}
for folder, asked in json.load(open(sys.argv[1])).items():
    if "scann" in json.load(open(folder + "/manifest.json"))["needs"]:
        import scann
    else:
        assert "scann" not in sys.modules
    model = tf.saved_model.load(folder + "/saved_model")
    answers[folder] = []
    for signature, inputs in asked:
        function = model.signatures[signature]
        specs = function.structured_input_signature[1]
        found = function(**{name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()})
        answers[folder].append({name: found[name].numpy() for name in ("ids", "scores")})
assert "recall" not in sys.modules
plain = lambda found: {"ids": found["ids"].astype(str).tolist(), "scores": found["scores"].tolist()}
json.dump({folder: list(map(plain, found)) for folder, found in answers.items()}, open(sys.argv[2], "w"))
"""
NOW_MS = 1_700_000_000_000
Row = dict[str, Any]
Asked = list[tuple[str, dict[str, Any]]]
Answer = tuple[list[list[str]], Any]


def ask(asked: dict[Path, Asked], folder: Path) -> dict[str, list[Answer]]:
    """Ids and scores of some questions to exports, by name, from a fresh process that has only what is exported."""
    (folder / "asked.json").write_text(json.dumps({str(export): questions for export, questions in asked.items()}))
    command = [sys.executable, "-c", STRANGER, str(folder / "asked.json"), str(folder / "answers.json")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = json.loads((folder / "answers.json").read_text())
    return {
        Path(export).name: [(answer["ids"], np.array(answer["scores"])) for answer in found]
        for export, found in answers.items()
    }


@pytest.fixture(scope="module")
def rows(settings: Config) -> list[Row]:
    """Users with features and clicks: of the file, and one whom no file knows."""
    assert settings.data.users is not None
    items = pd.read_parquet(settings.data.items.path).item_id.tolist()
    listed = pd.read_parquet(settings.data.users.path).head(4)[["user_id", "age_band"]].to_dict("records")
    listed += [{"user_id": "nobody", "age_band": ""}]
    return [{**row, "history": items[5 : 5 + length]} for row, length in zip(listed, (3, 0, 11, 1, 2), strict=True)]


def columns_of(rows: list[Row]) -> dict[str, Any]:
    longest = max(len(row["history"]) for row in rows)
    padded = [[*row["history"], *[""] * (longest - len(row["history"]))] for row in rows]
    return {**{name: [row[name] for row in rows] for name in ("user_id", "age_band")}, "history": padded}


def questions(rows: list[Row], items: list[str]) -> Asked:
    columns = columns_of(rows)
    by_id = {name: columns[name] for name in ("user_id", "history")}
    return [("recall", by_id), ("recall_features", columns), ("similar", {"item_id": items})]


def assert_same(found: tuple[list[list[str]], Any], expected: Any) -> None:
    """The same items in the same places; only what scores the same to the last bits may change places."""
    ids, scores = found
    np.testing.assert_allclose(scores, expected.scores, atol=2e-5)
    for own, theirs, score in zip(ids, expected.ids, expected.scores, strict=True):
        at = {item: place for place, item in enumerate(theirs)}
        for place, item in enumerate(own):
            assert item == theirs[place] or abs(score[at.get(item, -1)] - score[place]) < 2e-5


@pytest.fixture(scope="module")
def exports(
    finished: Path, finish: Callable[[Config], Path], experiment: Experiment, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Exports of the finished run, with other settings too, and of others; those that need ScaNN come last."""
    folder = tmp_path_factory.mktemp("exports")
    export_run(finished, folder / "plain", k=K)
    export_run(finished, folder / "whole", k=10_000)
    for several, settings in SEVERAL.items():
        export_run(finish(experiment(*settings)), folder / several, k=K)
    export_run(finished, folder / "scann", k=K, index="scann")
    return {name: folder / name for name in ("plain", "whole", *SEVERAL, "scann")}


@pytest.fixture(scope="module")
def exported(exports: dict[str, Path]) -> Path:
    return exports["plain"]


@pytest.fixture(scope="module")
def items(recaller: Recaller) -> list[str]:
    """Items that similar ones are asked for."""
    return [str(item) for item in recaller.index.ids[:5]]


@pytest.fixture(scope="module")
def answers(
    exports: dict[str, Path], rows: list[Row], items: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Answer]]:
    """What a process that never imports recall gets from each export; loading TensorFlow is most of its work."""
    columns = columns_of(rows)
    ages = [[float(hours) if item else -1.0 for hours, item in enumerate(line, 1)] for line in columns["history"]]
    asked: dict[str, Asked] = {name: questions(rows, items) for name in exports}
    asked["plain"] += [("recall_features_in_full", {**columns, "history_age_hours": ages})]
    asked["whole"] = [("similar", {"item_id": [items[3]]})]
    return ask({exports[name]: asked[name] for name in exports}, tmp_path_factory.mktemp("stranger"))


def test_a_stranger_gets_the_candidates_of_the_recaller(
    answers: dict[str, list[Answer]], recaller: Recaller, rows: list[Row], items: list[str]
) -> None:
    timed = [
        {**row, "history_times_ms": [NOW_MS - 3_600_000 * (place + 1) for place in range(len(row["history"]))]}
        for row in rows
    ]
    by_id, by_features, similar, by_time = answers["plain"]
    histories = {row["user_id"]: row["history"] for row in rows}
    assert_same(by_id, recaller.recall(list(histories), histories=histories, k=K, exclude_seen=False))
    assert_same(by_features, recaller.recall(features=rows, k=K, exclude_seen=False))
    assert_same(similar, recaller.similar(items, k=K))
    assert_same(by_time, recaller.recall(features=timed, k=K, exclude_seen=False, now_ms=NOW_MS))
    assert np.abs(by_time[1] - by_features[1]).max() > 1e-5


def test_vectors_are_those_of_the_index_with_its_bias(exported: Path, recaller: Recaller) -> None:
    ids, vectors = (np.load(exported / name, allow_pickle=False) for name in ("ids.npy", "vectors.npy"))
    np.testing.assert_array_equal(vectors, recaller.vectors(ids.tolist()))
    table = pd.read_parquet(exported / "vectors.parquet")
    assert table.item_id.tolist() == ids.tolist() == list(recaller.index.ids)
    np.testing.assert_array_equal(np.stack(list(table.vector)), vectors)
    bias = json.loads((exported / "manifest.json").read_text())["cold_bias"]
    assert bias == recaller.index.report["cold_bias"]


def test_the_manifest_tells_what_every_signature_takes(exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    assert (manifest["index"], manifest["needs"], manifest["k"]) == ("exact", ["tensorflow"], K)
    assert manifest["signatures"]["recall"] == {
        "user_id": {"dtype": "string", "shape": [None]},
        "history": {"dtype": "string", "shape": [None, None]},
    }
    assert set(manifest["signatures"]["recall_features"]) == {"user_id", "age_band", "history"}
    assert {"saved_model/saved_model.pb", "vectors.npy", "ids.npy", "vectors.parquet"} <= set(manifest["files"])


@pytest.mark.parametrize("several", SEVERAL)
def test_several_interests_or_item_vectors_are_merged_in_the_graph(
    finish: Callable[[Config], Path], experiment: Experiment, exports: dict[str, Path],
    answers: dict[str, list[Answer]], rows: list[Row], items: list[str], several: str,
) -> None:  # fmt: skip
    recaller = Recaller.load(finish(experiment(*SEVERAL[several])))
    assert (recaller.user_vectors(["u"], [[]]).ndim, recaller.vectors(items).ndim) == (
        (3, 2) if several == "interests" else (2, 3)
    )
    by_id, by_features, similar = answers[several]
    histories = {row["user_id"]: row["history"] for row in rows}
    assert_same(by_id, recaller.recall(list(histories), histories=histories, k=K, exclude_seen=False))
    assert_same(by_features, recaller.recall(features=rows, k=K, exclude_seen=False))
    assert_same(similar, recaller.similar(items, k=K))
    vectors = np.load(exports[several] / "vectors.npy")
    assert len(vectors) == len(np.load(exports[several] / "ids.npy")) == recaller.index.entries


def test_scann_is_built_where_the_run_searches_exactly(
    exports: dict[str, Path], answers: dict[str, list[Answer]], recaller: Recaller, rows: list[Row]
) -> None:
    assert json.loads((exports["scann"] / "manifest.json").read_text())["needs"] == ["tensorflow", "scann"]
    _, (ids, _), _ = answers["scann"]
    expected = recaller.recall(features=rows, k=K, exclude_seen=False).ids
    assert np.mean([len({*own} & {*theirs}) / K for own, theirs in zip(ids, expected, strict=True)]) >= 0.9


def test_k_is_at_most_the_catalogue_and_a_list_without_its_own_item_ends_empty(
    exports: dict[str, Path], answers: dict[str, list[Answer]], recaller: Recaller, items: list[str]
) -> None:
    assert json.loads((exports["whole"] / "manifest.json").read_text())["k"] == len(recaller.index) == 150
    ((ids, scores),) = answers["whole"]
    assert items[3] not in ids[0]
    assert (ids[0][-1], scores[0][-1]) == ("", -np.inf)
    assert len(set(ids[0][:-1])) == 149


# What is refused


def test_an_export_replaces_an_earlier_one_and_nothing_else(finished: Path, exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "out")
    assert export_run(finished, tmp_path / "out", k=6)["k"] == 6
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("ten years")
    with pytest.raises(ArtifactError, match="home: is there already and is no earlier export"):
        export_run(finished, tmp_path / "home")
    with pytest.raises(ArtifactError, match="is no earlier export"):
        export_run(finished, finished / "model")
    assert (tmp_path / "home" / "thesis.tex").exists()


def test_wrong_settings_are_errors(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="k: expected at least 1, found 0"):
        export_run(finished, tmp_path / "out", k=0)
    with pytest.raises(ConfigError, match="index: expected exact or scann, found faiss"):
        export_run(finished, tmp_path / "out", index="faiss")  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="run `recall train"):
        export_run(tmp_path / "nothing", tmp_path / "out")


def test_the_command_exports(copied: Path, command: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = command("export", "--run", copied, "--out", tmp_path / "out", "--k", 7, "--index", "exact")
    assert outcome.code == 0, outcome.err
    assert "150 items, exact search, signatures recall, recall_features" in outcome.err
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["k"] == 7
