"""Tests the table as which a notebook shows a run: the state of its parts, and what to do next."""

from __future__ import annotations

import shutil
from pathlib import Path

from recall.runs.run import Run
from tests.conftest import Experiment
from tests.core.test_html import Reader


def states(run: Run) -> dict[str, str]:
    _, *rows = Reader(run._repr_html_()).rows
    return {part: state for part, state, _ in rows}


PARTS = ("data", "model", "vectors", "index", "metrics.json", "report.html")


def test_every_part_of_a_finished_run_is_done(copied: Path) -> None:
    assert states(Run.open(copied)) == dict.fromkeys(PARTS, "done")


def test_a_part_of_other_settings_is_out_of_date_and_so_is_what_was_made_of_it(copied: Path) -> None:
    run = Run.open(copied, ["training.epochs=7"])
    found = states(run)
    assert [found[part] for part in PARTS[:5]] == ["done", *["out of date"] * 4]
    assert f"run `recall train --run {copied}` again" in run._repr_html_()


def test_a_part_that_was_removed_is_missing(copied: Path) -> None:
    shutil.rmtree(copied / "index")
    found = states(Run.open(copied))
    assert (found["vectors"], found["index"], found["metrics.json"]) == ("done", "missing", "out of date")


def test_a_run_that_has_not_begun_says_how_to_begin(experiment: Experiment, tmp_path: Path) -> None:
    run = Run(experiment(), tmp_path / "<new>")
    assert set(states(run).values()) == {"missing"}
    text = run._repr_html_()
    assert "recall prepare" in text
    assert "&lt;new&gt;" in text
    assert "<new>" not in text
