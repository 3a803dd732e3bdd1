"""Tests the commands that come before a first run, and shell completion."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recall.config.data import ClickRule
from recall.config.experiment import load_config

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


# init


@pytest.fixture
def tables(community: Path, tmp_path: Path) -> tuple[str, ...]:
    """Return the options that name the files of the community, and an experiment file to write."""
    options = [("--events", "events.parquet"), ("--items", "items.parquet"), ("--users", "users.parquet")]
    files = [str(part) for option, name in options for part in (option, community / name)]
    return (*files, "--out", str(tmp_path / "experiment.yaml"))


def test_init_writes_an_experiment_its_schema_and_a_short_table(
    tables: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    outcome = command("init", *tables)
    assert outcome.code == 0
    assert load_config(tmp_path / "experiment.yaml").data.events.click == ClickRule(column="is_click")
    assert json.loads((tmp_path / "experiment.schema.json").read_text())["title"] == "recall experiment"
    shown = outcome.out.splitlines()
    assert any(line.split()[:2] == ["events.time", "time_ms"] for line in shown)
    assert len(shown) < 25
    assert f"recall run {tmp_path / 'experiment.yaml'}" in outcome.err


def test_init_writes_over_a_file_only_when_told(tables: tuple[str, ...], command: Command, tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text("mine")
    outcome = command("init", *tables)
    assert (outcome.code, "is there already" in outcome.err, "--force" in outcome.err) == (1, True, True)
    assert (tmp_path / "experiment.yaml").read_text() == "mine"
    assert command("init", *tables, "--force").code == 0
    assert (tmp_path / "experiment.yaml").read_text() != "mine"


def test_init_takes_what_it_is_told_and_says_in_a_line_what_is_not_there(
    tables: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    assert command("init", *tables, "--click", "none").code == 0
    assert load_config(tmp_path / "experiment.yaml").data.events.click is None
    outcome = command("init", *tables, "--user", "who", "--force")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "--user who" in outcome.err
    assert "its columns are user_id, item_id, time_ms" in outcome.err
