"""Checks that tables are whole where nobody looks at a screen."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from recall.core.terminal import open_console

HEADERS = [f"a long header number {number}" for number in range(12)]


def printed(monkeypatch: pytest.MonkeyPatch) -> str:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    table = Table(*HEADERS)
    table.add_row(*(f"0.1234{number:04d}" for number in range(12)))
    open_console().print(table)
    return stream.getvalue()


def test_a_table_in_a_pipe_keeps_every_header_and_digit_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = printed(monkeypatch).splitlines()
    assert any(all(name in line for name in HEADERS) for line in lines)
    assert any(all(f"0.1234{number:04d}" in line for number in range(12)) for line in lines)


def test_a_width_that_was_asked_for_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, printed(monkeypatch).splitlines())) <= 60
