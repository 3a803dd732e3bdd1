"""Tests what reaches the log: no line that a terminal obeys, and no flood."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import structlog

from recall.serving.http.logs import RateLimit, configure_logs


@pytest.fixture
def restored() -> object:
    """Put logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["json", "text"])
def test_control_characters_are_written_as_escapes(
    form: str, restored: object, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(form)  # type: ignore[arg-type]
    hostile = "\x1b[31mred\x9b2J\x00\x07\r\n\u2028\u202etxt\ud800"
    structlog.get_logger("test").info("request", path=hostile)
    logging.getLogger("other").warning("of another library: %s", hostile)
    try:
        raise ValueError(hostile)
    except ValueError:
        structlog.get_logger("test").exception("failed", token="kept")
    printed = capsys.readouterr().out
    assert "red" in printed
    assert not [one for one in printed if not one.isprintable() and one not in "\n"]
    if form == "json":
        lines = [json.loads(line) for line in printed.splitlines()]
        assert lines[0]["path"].startswith("\\x1b[31mred\\x9b2J\\x00\\x07\\r\\n")
        assert "Traceback" in lines[2]["exception"]


def test_a_kind_of_warning_is_written_so_often_in_a_while_and_then_counted() -> None:
    seconds = [0.0]
    limit = RateLimit(clock=lambda: seconds[0])

    def written(text: str, level: int = logging.WARNING, *values: object) -> logging.LogRecord | None:
        record = logging.LogRecord("name", level, "file", 1, text, values, None)
        return record if limit.filter(record) else None

    assert sum(written("no HTTP from %s", logging.WARNING, number) is not None for number in range(1_000)) == 20
    assert written("something else")
    assert all(written("a request", logging.INFO) for _ in range(100))
    seconds[0] = 11
    again = written("no HTTP from %s", logging.WARNING, 7)
    assert again
    assert again.getMessage() == "no HTTP from 7 (980 more of these in the 10 s before)"


def test_a_run_whose_name_is_no_utf8_is_logged(
    restored: object, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    configure_logs("json")
    structlog.get_logger("test").info("listening", run=str(tmp_path / "\udcff"))
    assert json.loads(capsys.readouterr().out)["run"].endswith("/\\udcff")
