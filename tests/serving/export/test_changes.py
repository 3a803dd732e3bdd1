"""`recall export --since`: another engine that applies the changes holds what is served."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from recall.config.experiment import Config
from recall.core.artifacts import read_json, write_json
from recall.core.errors import ArtifactError, ConfigError
from recall.index import build_index, carry_index, load_index, save_index
from recall.serving.export.changes import export_changes
from recall.serving.recaller import Recaller
from tests.helpers.raw_items import raw

if TYPE_CHECKING:
    from tests.helpers.finished_run import Outcome

Engine = dict[str, np.ndarray]
STEP = np.float32(0.25)


def publish_moved(run: Path, *, fingerprint: str, without: str) -> None:
    """Publish the index of a model that went on: an item is gone, one moved by a quarter of its length."""
    index = load_index(run / "index")
    ids = [name for name in index.ids if name != without]
    vectors = index.vectors(ids)
    vectors[ids.index("i020")] *= 1 + STEP
    manifest = read_json(run / "model" / "manifest.json")
    write_json(run / "model" / "manifest.json", {**manifest, "fingerprint": fingerprint}, checksummed=True)
    save_index(build_index(ids, vectors), run / "index", fingerprint=fingerprint)


@pytest.fixture(scope="module")
def days(finished: Path, settings: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Yesterday's run and today's: i030 left the catalogue, i031 was deleted, "kept" added, "short" added and gone."""
    folder = tmp_path_factory.mktemp("days")
    yesterday, today = (Path(shutil.copytree(finished, folder / name)) for name in ("yesterday", "today"))
    recaller = Recaller.load(yesterday, living=True)
    recaller.add_items([raw(settings, 3, "kept"), raw(settings, 4, "short")])
    recaller.delete_items(["i031", "short"])
    recaller.close()
    publish_moved(today, fingerprint="today", without="i030")
    carry_index(yesterday / "index", today / "index", fingerprint="today")
    return yesterday, today


def served(run: Path) -> Engine:
    index = Recaller.load(run, living="read_only").index
    ids = [name for name in index.ids if name is not None]
    return dict(zip(ids, index.vectors(ids), strict=True))


def built(run: Path) -> Engine:
    index = load_index(run / "index")
    return dict(zip(index.ids, index.vectors(index.ids), strict=True))


def applied(engine: Engine, changes: Path) -> Engine:
    """Delete, then upsert, as another engine does."""
    gone = set(pd.read_parquet(changes / "deletions.parquet").item_id)
    upserts = pd.read_parquet(changes / "upserts.parquet")
    left = {name: vector for name, vector in engine.items() if name not in gone}
    return left | dict(zip(upserts.item_id, np.stack(upserts.vector), strict=True))


def assert_same(engine: Engine, expected: Engine) -> None:
    assert engine.keys() == expected.keys()
    np.testing.assert_array_equal(np.stack([engine[name] for name in expected]), np.stack(list(expected.values())))


def test_an_engine_that_applies_the_changes_holds_what_is_served(
    days: tuple[Path, Path], command: Callable[..., Outcome], tmp_path: Path
) -> None:
    yesterday, today = days
    outcome = command("export", "--run", today, "--since", yesterday, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "1 new, 1 changed" in outcome.err
    assert "3 deletions, from version 0001 to 0002" in outcome.err
    assert set(pd.read_parquet(tmp_path / "out" / "upserts.parquet").item_id) == {"kept", "i020"}
    expected = served(today)
    for engine in (built(yesterday), served(yesterday)):  # filled from the version, or with what was served
        assert_same(applied(engine, tmp_path / "out"), expected)
    manifest = read_json(tmp_path / "out" / "manifest.json")
    assert (manifest["to"]["fingerprint"], manifest["moved"]["max"]) == ("today", pytest.approx(STEP, abs=1e-4))
    assert manifest["unchanged"] == len(expected) - 2


def test_a_version_of_the_run_itself_by_number_and_by_folder(days: tuple[Path, Path], tmp_path: Path) -> None:
    yesterday, today = days
    for since in ("1", "0001", today / "index" / "versions" / "0001"):
        export_changes(today, tmp_path / "out", since=since)
        assert_same(applied(built(yesterday), tmp_path / "out"), served(today))


def test_what_moved_within_the_tolerance_is_left_out_but_no_change_over_the_api(
    days: tuple[Path, Path], tmp_path: Path
) -> None:
    yesterday, today = days
    for tolerance, changed in ((0.2, 1), (0.3, 0)):
        found = export_changes(today, tmp_path / "out", since=yesterday, tolerance=tolerance)
        assert found["upserts"] == {"new": 1, "changed": changed}
        assert found["deletions"] == 3
    found = export_changes(yesterday, tmp_path / "out", since="1")
    assert found["upserts"] == {"new": 1, "changed": 0}
    assert set(pd.read_parquet(tmp_path / "out" / "deletions.parquet").item_id) == {"i031", "short"}


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        ({"since": "7"}, ArtifactError, r"--since 7: is no version any more; .*index has 0001, 0002. Name one"),
        ({"since": "runs/none"}, ArtifactError, r"--since runs/none: is no version any more; .* has 0001, 0002"),
        ({"since": "1", "tolerance": float("nan")}, ConfigError, "tolerance: expected at least 0, found nan"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_nothing_is_written(
    wanted: Any, error: type[Exception], message: str, days: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        export_changes(days[1], tmp_path / "out", **wanted)
    assert not (tmp_path / "out").exists()


def test_vectors_of_another_shape_are_refused(days: tuple[Path, Path], tmp_path: Path) -> None:
    save_index(build_index(["a"], np.eye(1, 3)), tmp_path / "run" / "index", fingerprint="m")
    with pytest.raises(ArtifactError, match=r"version 0001 has 1 vectors of 3 numbers per item, the index now 1 of 9"):
        export_changes(days[1], tmp_path / "out", since=tmp_path / "run")


def test_options_that_do_not_fit_are_refused(
    days: tuple[Path, Path], command: Callable[..., Outcome], tmp_path: Path
) -> None:
    given = ("export", "--run", days[1], "--out", tmp_path / "out")
    assert "--tolerance: says which changes count" in command(*given, "--tolerance", "0.1").err
    assert "--index: is the search of a SavedModel" in command(*given, "--since", "1", "--index", "exact").err
