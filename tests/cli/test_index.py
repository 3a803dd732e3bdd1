"""Tests `recall index` and its commands on a finished run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recall.core.artifacts import read_json, write_json
from recall.index import load_index, save_index

if TYPE_CHECKING:
    from tests.helpers.finished_run import Outcome


Command = Callable[..., "Outcome"]


@pytest.fixture
def again(copied: Path) -> Path:
    """Return the finished run with its index published a second time."""
    directory = copied / "index"
    fingerprint = json.loads((copied / "model" / "manifest.json").read_text())["fingerprint"]
    save_index(load_index(directory), directory, fingerprint=fingerprint)
    return copied


def current(run: Path) -> str:
    return (run / "index" / "CURRENT").read_text().strip()


def test_the_step_itself_is_as_it_was(copied: Path, command: Command) -> None:
    outcome = command("index", "--run", copied)
    assert (outcome.code, "index: done before, inputs unchanged" in outcome.err) == (0, True)
    shutil.rmtree(copied / "index")
    outcome = command("index", "--run", copied)
    assert (outcome.code, current(copied)) == (0, "0001")
    outcome = command("index")
    assert outcome.code == 2
    assert "Missing option '--run'" in outcome.err


def test_list_tells_which_version_is_current_and_whose_it_is(again: Path, command: Command) -> None:
    save_index(load_index(again / "index"), again / "index", fingerprint="abc")
    outcome = command("index", "list", "--run", again, "--json")
    found = json.loads(outcome.out)
    assert [(version["number"], version["is_current"], version["of_this_model"]) for version in found["versions"]] == [
        ("0002", False, True),
        ("0003", True, False),
    ]
    assert found["versions"][0]["recall"] == 1.0
    shown = command("index", "list", "--run", again).out
    assert "0003 *" in shown
    assert "another" in shown


def test_rollback_and_gc(again: Path, command: Command) -> None:
    outcome = command("index", "rollback", "--run", again)
    assert (outcome.code, current(again)) == (0, "0001")
    assert "version 0001 is current" in outcome.err
    assert command("index", "rollback", "--run", again, "--to", "0002").code == 0
    outcome = command("index", "gc", "--run", again, "--keep", "1")
    assert outcome.err.startswith("removed 0001: 0.")
    assert (os.listdir(again / "index" / "versions"), current(again)) == (["0002"], "0002")
    assert command("index", "gc", "--run", again).err.startswith("removed no version: 0.0 MB")


def test_an_index_of_another_model_is_one_clear_line(again: Path, command: Command) -> None:
    manifest = again / "model" / "manifest.json"
    write_json(manifest, {**read_json(manifest), "fingerprint": "abc"}, checksummed=True)
    outcome = command("index", "rollback", "--run", again)
    assert (outcome.code, current(again)) == (1, "0002")
    assert outcome.err.startswith("error: ")
    assert "but the model is abc; choose another version" in outcome.err


def test_vectors_of_another_model_are_not_indexed(copied: Path, command: Command) -> None:
    manifest = copied / "vectors" / "_manifest.json"
    write_json(manifest, {**read_json(manifest), "fingerprint": "abc"}, checksummed=True)
    outcome = command("index", "--run", copied)
    assert (outcome.code, current(copied)) == (1, "0001")
    assert "vectors: was made by another model; run `recall vectors" in outcome.err


@pytest.mark.parametrize("name", ["list", "rollback", "gc", "new-journal"])
def test_without_an_index_the_step_to_run_is_named(copied: Path, command: Command, name: str) -> None:
    shutil.rmtree(copied / "index")
    outcome = command("index", name, "--run", copied)
    assert outcome.code == 1
    assert "holds no index yet; run `recall index` first" in outcome.err
    assert not (copied / "index").exists()
