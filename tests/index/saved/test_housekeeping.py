"""Checks that versions are listed, rolled back and removed while other processes save and read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recall.config.index import IndexConfig
from recall.core.errors import ArtifactError
from recall.index import ExactIndex, Index, build_index, collect, list_versions, load_index, roll_back, save_index
from recall.index.items import Items
from recall.index.saved.store import load_version

QUERIES = np.random.default_rng(4).normal(size=(20, 8)).astype(np.float32)


def exact(items: int) -> Index:
    vectors = np.random.default_rng(items).normal(size=(items, 8)).astype(np.float32)
    return ExactIndex(Items.checked([f"i{row}" for row in range(items)], vectors))


@pytest.fixture(scope="module")
def kinds() -> dict[str, Index]:
    vectors = np.random.default_rng(5).normal(size=(3000, 8)).astype(np.float32)
    ids = [f"i{row}" for row in range(3000)]
    settings = {"exact": {"kind": "exact"}, "scann": {"kind": "scann"}, "sharded": {"kind": "exact", "shards": 2}}
    return {kind: build_index(ids, vectors, config=IndexConfig(**config)) for kind, config in settings.items()}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Save an index as version 1 of 10 items and version 2, the current one, of 20."""
    save_index(exact(10), tmp_path / "index", fingerprint="abc")
    save_index(exact(20), tmp_path / "index", fingerprint="abc")
    return tmp_path / "index"


# Listing


def test_versions_are_listed_with_what_they_hold(tmp_path: Path, kinds: dict[str, Index]) -> None:
    save_index(kinds["scann"], tmp_path, fingerprint="older")
    version = save_index(kinds["exact"], tmp_path, fingerprint="newer")
    first, second = list_versions(tmp_path)
    assert (first.number, first.is_current, first.items, first.kind, first.fingerprint) == (
        "0001", False, 3000, "scann", "older",
    )  # fmt: skip
    assert 0.9 < (first.recall or 0) <= 1
    assert (second.number, second.is_current, second.kind, second.fingerprint, second.recall, second.problem) == (
        "0002", True, "exact", "newer", 1.0, None,
    )  # fmt: skip
    assert second.bytes == sum(path.stat().st_size for path in version.rglob("*"))
    assert second.created == json.loads((version / "manifest.json").read_text())["created"]


@pytest.mark.parametrize("damage", ["no file", "no manifest", "empty manifest", "other manifest"])
def test_a_damaged_version_is_listed_as_such(two: Path, damage: str) -> None:
    manifest = two / "versions" / "0001" / "manifest.json"
    if damage == "no file":
        (manifest.parent / "vectors.npy").unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text("" if damage == "empty manifest" else "[]")
    first, second = list_versions(two)
    assert first.problem
    assert second.problem is None


def test_there_is_nothing_to_list_before_the_first_save(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no index yet; run `recall index` first"):
        list_versions(tmp_path / "index")


# Rolling back


@pytest.mark.parametrize("kind", ["exact", "scann", "sharded"])
def test_rolled_back_index_is_the_one_that_is_loaded(tmp_path: Path, kinds: dict[str, Index], kind: str) -> None:
    save_index(kinds[kind], tmp_path, fingerprint="abc")
    save_index(exact(10), tmp_path, fingerprint="abc")
    assert roll_back(tmp_path, fingerprint="abc") == "0001"
    found = load_index(tmp_path, fingerprint="abc").search(QUERIES, 10)
    np.testing.assert_array_equal(found.rows, kinds[kind].search(QUERIES, 10).rows)
    assert roll_back(tmp_path, fingerprint="abc", to="2") == "0002", "and forward again"
    assert len(load_index(tmp_path)) == 10


def test_no_version_is_lost_by_saving_after_a_rollback(two: Path) -> None:
    roll_back(two, fingerprint="abc")
    assert save_index(exact(30), two, fingerprint="abc").name == "0003"
    assert [version.number for version in list_versions(two)] == ["0002", "0003"]
    assert len(load_index(two)) == 30


@pytest.mark.parametrize("name", ["vectors.npy", "ids.parquet"])
def test_a_version_with_one_wrong_byte_does_not_become_current(two: Path, name: str) -> None:
    path = two / "versions" / "0001" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="its checksum differs"):
        roll_back(two, fingerprint="abc")
    assert len(load_index(two)) == 20


def test_a_version_that_lost_a_shard_does_not_become_current(tmp_path: Path, kinds: dict[str, Index]) -> None:
    version = save_index(kinds["sharded"], tmp_path, fingerprint="abc")
    save_index(exact(10), tmp_path, fingerprint="abc")
    shutil.rmtree(version / "shards" / "00001")
    with pytest.raises(ArtifactError, match="shard 1 of 2 is missing"):
        roll_back(tmp_path, fingerprint="abc")
    assert len(load_index(tmp_path)) == 10


def test_vectors_of_another_model_do_not_become_current(two: Path) -> None:
    save_index(exact(30), two, fingerprint="new model")
    with pytest.raises(ArtifactError, match="holds vectors of model abc, but the model is new model; choose another"):
        roll_back(two, fingerprint="new model")
    assert len(load_index(two, fingerprint="new model")) == 30


@pytest.mark.parametrize("to", ["0007", "../0001", "", "latest", "²"])
def test_a_version_that_is_not_there_is_refused_by_name(two: Path, to: str) -> None:
    with pytest.raises(ArtifactError, match=r"no version '.*'; there are 0001, 0002"):
        roll_back(two, fingerprint="abc", to=to)


def test_before_the_first_version_there_is_none(two: Path) -> None:
    roll_back(two, fingerprint="abc")
    with pytest.raises(ArtifactError, match="no version before 0001; there are 0001, 0002"):
        roll_back(two, fingerprint="abc")


# Clearing up


def test_the_current_version_is_never_removed(two: Path) -> None:
    roll_back(two, fingerprint="abc")
    (two / "versions" / ".0003.half").mkdir()
    (two / "versions" / ".0003.half" / "vectors.npy").write_bytes(bytes(1000))
    (two / "journal").mkdir()
    (two / "journal" / "segment").write_bytes(bytes(10))
    removed = collect(two, keep=1)
    assert (removed.versions, removed.leftovers, removed.bytes) == ((), 1, 1000)
    assert sorted(os.listdir(two / "versions")) == ["0001", "0002"]
    roll_back(two, fingerprint="abc", to="2")
    size = sum(path.stat().st_size for path in (two / "versions" / "0001").iterdir())
    removed = collect(two, keep=1)
    assert (removed.versions, removed.leftovers, removed.bytes) == (("0001",), 0, size)
    assert os.listdir(two / "versions") == ["0002"]
    assert (two / "journal" / "segment").exists()
    assert len(load_index(two)) == 20


def test_nothing_is_removed_where_it_is_unclear_what_is_current(two: Path) -> None:
    (two / "CURRENT").write_text("0009\n")
    with pytest.raises(ArtifactError, match="expected the number of a version"):
        collect(two, keep=1)
    assert sorted(os.listdir(two / "versions")) == ["0001", "0002"]


@pytest.mark.parametrize("kind", ["exact", "scann", "sharded"])
def test_who_has_loaded_a_version_searches_on_after_its_files_are_gone(
    tmp_path: Path, kinds: dict[str, Index], kind: str
) -> None:
    version = save_index(kinds[kind], tmp_path, fingerprint="abc")
    loaded = load_index(tmp_path)
    save_index(exact(10), tmp_path, fingerprint="abc")
    collect(tmp_path, keep=1)
    assert not version.exists()
    expected, found = kinds[kind].search(QUERIES, 50), loaded.search(QUERIES, 50)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(loaded.vectors(["i7"]), kinds[kind].vectors(["i7"]))


# Several at a time

SAVE_AND_CLEAR_UP = """
import sys
from recall.index import (collect, load_index, save_index)
index = load_index(sys.argv[1])
for _ in range(8):
    save_index(index, sys.argv[1], fingerprint="abc")
    collect(sys.argv[1], keep=1)
"""


@pytest.mark.slow
def test_two_publishers_at_a_time_lose_nothing_and_no_reader_fails(tmp_path: Path) -> None:
    save_index(exact(500), tmp_path, fingerprint="abc")
    command = [sys.executable, "-c", SAVE_AND_CLEAR_UP, str(tmp_path)]
    publishers = [subprocess.Popen(command) for _ in range(2)]
    loaded = 0
    while any(publisher.poll() is None for publisher in publishers):
        assert len(load_index(tmp_path, fingerprint="abc")) == 500
        loaded += 1
    assert [publisher.returncode for publisher in publishers] == [0, 0]
    assert loaded > 0
    assert (tmp_path / "CURRENT").read_text() == "0017\n", "each of 1 + 2 * 8 saves got a number of its own"
    assert os.listdir(tmp_path / "versions") == ["0017"]
    load_version(tmp_path / "versions" / "0017")


def test_a_version_is_on_the_disk_before_current_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.path.realpath(f"/proc/self/fd/{descriptor}"))

    def switch(source: Path, target: Path) -> None:
        if Path(target).name == "CURRENT":
            before.extend(synced)
        replace(source, target)

    before: list[str] = []
    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", switch)
    version = save_index(exact(10), tmp_path, fingerprint="abc")
    # They were written under a scratch name; links of /proc follow it to the final place.
    names = {Path(path).name for path in before}
    assert {path.name for path in version.iterdir()} - {"manifest.json"} <= names
    assert any(name.startswith(".manifest.json") for name in names)
    assert str(version.parent) in before, "the rename of the version itself"
    assert str(tmp_path) in synced[len(before) :], "and then that of CURRENT"
