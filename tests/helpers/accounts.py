"""Keeps account of what was broken and what was thrown at the service; pytest prints it as a table at its end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_rows: list[tuple[str, int, str, str]] = []


@pytest.fixture(scope="session")
def account() -> Callable[..., None]:
    """Notes a fault that was survived: `account("prepare, kill -9", 20, "nothing")`; a failed test notes nothing."""

    def note(fault: str, times: int, lost: str, found: str = "") -> None:
        _rows.append((fault, times, lost, found))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table."""
    if not _rows:
        return
    terminalreporter.section("faults and fuzz")
    width = max(len(row[0]) for row in _rows)
    terminalreporter.write_line(f"{'what':{width}}  {'times':>6}  {'lost':8}  found afterwards")
    for fault, times, lost, found in sorted(_rows):
        terminalreporter.write_line(f"{fault:{width}}  {times:6,}  {lost:8}  {found}")
