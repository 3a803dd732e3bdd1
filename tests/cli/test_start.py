"""Tests the commands that come before a first run, and shell completion."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.helpers.finished_run import Outcome

Command = Callable[..., "Outcome"]
HEAVY = {"tensorflow", "apache_beam", "scann", "pyarrow", "pandas", "numpy"}


def complete(words: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], set[str]]:
    """Ask for completion as bash does; returns the words it offers, and the heavy modules that were loaded."""
    monkeypatch.setenv("_RECALL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    code = (
        "import atexit, sys\n"
        "from recall.cli.main import main\n"
        "atexit.register(lambda: print(*{m.split('.')[0] for m in sys.modules}, file=sys.stderr))\n"
        "sys.argv = ['recall']; main()"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return finished.stdout.split(), HEAVY & set(finished.stderr.split())


def test_completion_offers_commands_and_loads_nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    offered, loaded = complete("recall ", monkeypatch)
    assert {"run", "prepare", "query", "schema", "content"} <= set(offered)
    assert not loaded & {"tensorflow", "apache_beam", "scann"}


def test_completion_offers_the_options_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    offered, _ = complete("recall query --", monkeypatch)
    assert {"--run", "--user", "--item", "--filter"} <= set(offered)


def test_schema_is_printed_or_written(command: Command, tmp_path: Path) -> None:
    printed = command("schema")
    assert json.loads(printed.out)["required"] == ["data", "features"]
    assert command("schema", "--out", tmp_path / "new" / "schema.json").code == 0
    assert (tmp_path / "new" / "schema.json").read_text() == printed.out


def test_a_schema_that_cannot_be_written_is_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = command("schema", "--out", tmp_path / "file" / "schema.json")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "choose another --out" in outcome.err
