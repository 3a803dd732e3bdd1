"""Checks saving and loading: versions, damage, killed and failing saves."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recall.config.index import IndexConfig
from recall.core.artifacts import checksum, write_json
from recall.core.errors import ArtifactError
from recall.index import ExactIndex, Index, ScannIndex, build_index, load_index, save_index

KINDS = {
    "exact": IndexConfig(kind="exact"),
    "scann": IndexConfig(kind="scann"),
    "sharded": IndexConfig(kind="exact", shards=3),
}
QUERIES = np.random.default_rng(8).normal(size=(30, 24)).astype(np.float32)


@pytest.fixture(scope="module")
def indexes() -> dict[str, Index]:
    vectors = np.random.default_rng(7).normal(size=(6000, 24)).astype(np.float32)
    ids = [f"é{row}" for row in range(6000)]  # 6,000 items have a tree
    return {kind: build_index(ids, vectors, config=config) for kind, config in KINDS.items()}


@pytest.fixture(params=KINDS)
def index(request: pytest.FixtureRequest, indexes: dict[str, Index]) -> Index:
    return indexes[request.param]


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_loaded_index_answers_like_the_saved_one(index, tmp_path):
    save_index(index, tmp_path / "index", fingerprint="abc")
    loaded = load_index(tmp_path / "index", fingerprint="abc")
    assert type(loaded) is type(index)
    assert loaded.settings == index.settings
    assert loaded.report == json.loads(json.dumps(index.report))
    for k in (1, 100, 700):
        expected, found = index.search(QUERIES, k), loaded.search(QUERIES, k)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(loaded.vectors(["é11"]), index.vectors([11]))
    assert loaded.ids.tolist() == index.ids.tolist()


def test_index_loads_after_its_directory_has_moved(index, tmp_path):
    save_index(index, tmp_path / "here", fingerprint="abc")
    (tmp_path / "here").rename(tmp_path / "there")
    found = load_index(tmp_path / "there").search(QUERIES, 10)
    np.testing.assert_array_equal(found.rows, index.search(QUERIES, 10).rows)


def test_loaded_index_can_be_saved_again_over_itself(index, tmp_path):
    save_index(index, tmp_path, fingerprint="abc")
    for _ in range(3):
        save_index(load_index(tmp_path), tmp_path, fingerprint="abc")
    found = load_index(tmp_path).search(QUERIES, 10)
    np.testing.assert_array_equal(found.rows, index.search(QUERIES, 10).rows)


def test_nothing_saved_is_a_pickle(index, tmp_path):
    version = save_index(index, tmp_path, fingerprint="abc")
    assert not [name for name in files(tmp_path) if name.endswith((".pkl", ".pickle"))]
    for path in version.rglob("*.npy"):
        np.load(path, allow_pickle=False)


def test_planted_pickle_is_not_executed(indexes, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    version = save_index(indexes["scann"], tmp_path / "index", fingerprint="abc")
    (version / "scann" / "scann_docids.pkl").write_bytes(pickle.dumps(Trap()))
    load_index(tmp_path / "index").search(QUERIES, 10)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("path", ["../elsewhere.npy", "/etc/hostname", "sub/dataset.npy", "missing.npy"])
def test_scann_opens_no_file_but_its_own(path, indexes, tmp_path):
    version = save_index(indexes["scann"], tmp_path / "index", fingerprint="abc")
    shutil.copy(version / "scann" / "dataset.npy", version / "elsewhere.npy")
    assets = version / "scann" / "scann_assets.pbtxt"
    assets.write_text(assets.read_text().replace("dataset.npy", path, 1))
    manifest = json.loads((version / "manifest.json").read_text())
    manifest["files"]["scann/scann_assets.pbtxt"] = {"bytes": assets.stat().st_size, "crc32c": checksum(assets)}
    write_json(version / "manifest.json", manifest, checksummed=True)
    with pytest.raises(ArtifactError, match=r"scann_assets.pbtxt: expected names of files beside it"):
        load_index(tmp_path / "index")


def test_current_and_one_earlier_version_are_kept(indexes, tmp_path):
    for number in range(1, 5):
        version = save_index(indexes["exact"], tmp_path, fingerprint=f"model {number}")
        assert version == tmp_path / "versions" / f"{number:04d}"
    assert sorted(os.listdir(tmp_path / "versions")) == ["0003", "0004"]
    assert (tmp_path / "CURRENT").read_text() == "0004\n"
    load_index(tmp_path, fingerprint="model 4")
    (tmp_path / "CURRENT").write_text("0003")
    load_index(tmp_path, fingerprint="model 3")


def test_index_of_another_model_is_refused(index, tmp_path):
    save_index(index, tmp_path, fingerprint="0123")
    with pytest.raises(ArtifactError, match=r"vectors of model 0123, but the model is 4567; run `recall index` again"):
        load_index(tmp_path, fingerprint="4567")


def test_damage_to_any_file_is_noticed(index, tmp_path):
    version = save_index(index, tmp_path, fingerprint="abc")
    for name in sorted(files(version) - {"manifest.json"}):
        path = version / name
        intact = path.read_bytes()
        flipped = bytearray(intact)
        flipped[len(flipped) // 2] ^= 1
        for damaged in (intact[:-1], bytes(flipped), b""):
            path.write_bytes(damaged)
            with pytest.raises(ArtifactError, match=path.name):
                load_index(tmp_path)
        path.unlink()
        with pytest.raises(ArtifactError, match=r"is missing"):
            load_index(tmp_path)
        path.write_bytes(intact)
    load_index(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "{}", '{"format_version": 1, "kind": "exact", "files": {}}'])
def test_damaged_manifest_is_noticed(content, indexes, tmp_path):
    version = save_index(indexes["exact"], tmp_path, fingerprint="abc")
    (version / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"recall index"):
        load_index(tmp_path, fingerprint="abc")


@pytest.mark.parametrize("content", ["", "0009", "../versions/0001", "latest", "\x00"])
def test_current_that_names_no_version_is_an_error(content, indexes, tmp_path):
    save_index(indexes["exact"], tmp_path, fingerprint="abc")
    (tmp_path / "CURRENT").write_text(content)
    with pytest.raises(ArtifactError, match=r"expected the number of a version"):
        load_index(tmp_path)


def test_loading_where_nothing_was_saved_says_what_to_run(tmp_path):
    with pytest.raises(ArtifactError, match=r"no index yet; run `recall index` first"):
        load_index(tmp_path / "index")


def test_save_that_fails_halfway_leaves_the_old_version(index, tmp_path, monkeypatch):
    save_index(index, tmp_path, fingerprint="old")
    before = files(tmp_path)

    def write_half_then_fail(self, directory):
        (directory / "half").write_bytes(b"...")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ScannIndex if index.kind == "scann" else ExactIndex, "write", write_half_then_fail)
        with pytest.raises(ArtifactError, match=r"No space left on device"):
            save_index(index, tmp_path, fingerprint="new")
    assert files(tmp_path) == before
    load_index(tmp_path, fingerprint="old")


SAVE_UNDER_A_FILE_SIZE_LIMIT = """
import resource, signal, sys
from recall.index import (load_index, save_index)
from recall.core.errors import (ArtifactError)
index = load_index(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
try:
    save_index(index, sys.argv[1], fingerprint="new")
except ArtifactError:
    sys.exit(3)
"""


@pytest.mark.slow
def test_file_that_cannot_be_written_whole_is_never_published(index, tmp_path):
    # The kernel cuts files at 150 kB, as a full disk does; the vectors alone take 576 kB.
    save_index(index, tmp_path, fingerprint="old")
    before = files(tmp_path)
    done = subprocess.run([sys.executable, "-c", SAVE_UNDER_A_FILE_SIZE_LIMIT, str(tmp_path)], capture_output=True)
    assert done.returncode == 3, done.stderr.decode()
    assert files(tmp_path) == before
    load_index(tmp_path, fingerprint="old")


SAVE_AND_BE_KILLED = """
import os, signal, sys
from recall.index import (ExactIndex, load_index, save_index)
index = load_index(sys.argv[1])
def kill_when_half_written(self, directory):
    (directory / "vectors.npy").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
ExactIndex.write = kill_when_half_written
save_index(index, sys.argv[1], fingerprint="new")
"""


def test_killed_save_leaves_the_old_version_and_is_cleaned_up_by_the_next(indexes, tmp_path):
    save_index(indexes["exact"], tmp_path, fingerprint="old")
    done = subprocess.run([sys.executable, "-c", SAVE_AND_BE_KILLED, str(tmp_path)])
    assert done.returncode == -signal.SIGKILL
    half = [name for name in os.listdir(tmp_path / "versions") if not name.endswith(".lock")]
    assert len(half) == 2  # the version and the half-written one
    load_index(tmp_path, fingerprint="old")
    save_index(indexes["exact"], tmp_path, fingerprint="new")
    assert sorted(os.listdir(tmp_path / "versions")) == ["0001", "0002"]
    load_index(tmp_path, fingerprint="new")


def test_save_killed_before_the_switch_leaves_the_old_version(indexes, tmp_path, monkeypatch):
    save_index(indexes["exact"], tmp_path, fingerprint="old")

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("recall.index.saved.store.point_to", killed)
        with pytest.raises(KeyboardInterrupt):
            save_index(indexes["exact"], tmp_path, fingerprint="new")
    load_index(tmp_path, fingerprint="old")
    assert save_index(indexes["exact"], tmp_path, fingerprint="newer").name == "0003"
    load_index(tmp_path, fingerprint="newer")


@pytest.mark.slow
def test_scann_and_tensorflow_are_imported_only_for_a_scann_index(tmp_path):
    script = """
import sys, numpy as np
from recall.core.artifacts import (checksum)
from recall.config.experiment import (IndexConfig)
from recall.index import (build_index, load_index, save_index)
index = build_index(["a", "b"], np.eye(2), config=IndexConfig())
save_index(index, sys.argv[1], fingerprint="abc")
load_index(sys.argv[1]).search(np.eye(2), 1)
assert not {"scann", "tensorflow", "apache_beam"} & set(sys.modules), "imported"
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


def test_manifest_tells_how_the_index_was_made(indexes, tmp_path):
    version = save_index(indexes["scann"], tmp_path, fingerprint="abc")
    manifest = json.loads((version / "manifest.json").read_text())
    assert (manifest["kind"], manifest["items"], manifest["dim"], manifest["fingerprint"]) == (
        "scann", 6000, 24, "abc",
    )  # fmt: skip
    assert manifest["settings"]["leaves"] == 77  # the square root of 6,000
    assert manifest["report"]["measured"]["scann"]["recall"] >= 0.95
    assert manifest["report"]["tuning"]
    assert isinstance(indexes["scann"], ScannIndex)
