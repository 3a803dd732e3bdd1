"""Keeps account of the faults and requests that tests tried; pytest prints it as a table at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Row = tuple[str, int, str, str]
_ROWS = "accounts"
_rows = pytest.StashKey[list[Row]]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin an account."""
    config.stash[_rows] = []


@pytest.fixture(scope="session")
def account(pytestconfig: pytest.Config) -> Callable[..., None]:
    """Note a fault that was survived: `account("prepare, kill -9", 20, "nothing")`; a failed test notes nothing."""
    rows = pytestconfig.stash[_rows]

    def note(fault: str, times: int, lost: str, found: str = "") -> None:
        rows.append((fault, times, lost, found))

    return note


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the rows of a process of pytest-xdist to the one that prints."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output[_ROWS] = session.config.stash[_rows]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the rows of a process that is done."""
    rows = getattr(node, "workeroutput", {}).get(_ROWS, ())
    node.config.stash[_rows].extend(tuple(row) for row in rows)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    if not (rows := config.stash[_rows]):
        return
    terminalreporter.section("faults and fuzz")
    width = max(len(row[0]) for row in rows)
    terminalreporter.write_line(f"{'what':{width}}  {'times':>6}  {'lost':8}  found afterwards")
    for fault, times, lost, found in sorted(rows):
        terminalreporter.write_line(f"{fault:{width}}  {times:6,}  {lost:8}  {found}")
