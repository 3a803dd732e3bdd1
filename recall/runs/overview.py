"""Shows a run in a notebook: which of its parts are there and of today's inputs, and which step comes next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from recall.core.errors import RecallError
from recall.core.html import html_table
from recall.runs.parts import JUDGED
from recall.runs.steps import Steps


def run_html(steps: Steps) -> str:
    """Write the state of every part of a run as an HTML table.

    A part is `done`, `out of date` (made of other inputs or settings than today's), or `missing`. Files are not read
    whole: damage inside one is told by the step that reads it.
    """
    states = run_states(steps)
    rows = [[name, state, _changed(steps, name)] for name, state, _ in states]
    advice = next((found for _, _, found in states if found), "")
    return html_table(f"Run {steps.directory}", ["part", "state", "written"], rows, note=advice)


def run_states(steps: Steps) -> list[tuple[str, str, str]]:
    """List the parts of a run: name, state as in `run_html`, and what to do where that is not `done`."""
    parts: dict[str, Callable[[], object]] = {
        "data": lambda: steps.data().published(),
        **({JUDGED: lambda: steps.model().published()} if steps.config.learns_from_all else {}),
        "model": lambda: steps.served().published(),
        "vectors": lambda: steps.vectors().published(),
        "index": lambda: steps.index().published(),
        "metrics.json": steps.published_metrics,
    }
    states = []
    for name, read in parts.items():
        try:
            read()
            states.append((name, "done", ""))
        except RecallError as error:
            state = "out of date" if (steps.directory / name).exists() else "missing"
            states.append((name, state, str(error)))
    report = steps.directory / "report.html"
    return [*states, ("report.html", "done" if report.exists() else "missing", "")]


def _changed(steps: Steps, name: str) -> str:
    """Return when a part was written, in local time; empty where it is missing."""
    path = steps.directory / name
    return f"{datetime.fromtimestamp(path.stat().st_mtime):%Y-%m-%d %H:%M}" if path.exists() else ""
