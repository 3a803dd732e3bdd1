"""Configures structured logs: one JSON object a line on standard output, for the service and its libraries alike."""

from __future__ import annotations

import io
import logging
import re
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Literal

import structlog

LogFormat = Literal["json", "text"]

# Control characters, those of C1 (0x9b begins an escape code like ESC [), and what turns the direction of text.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_MANY_LINES = ("exception", "stack")  # keys whose text keeps its line ends
_LINES, _SECONDS = 20, 10.0  # of one kind of warning or error at most, in so many seconds
_KINDS = 1000  # kinds that are counted at a time


def configure_logs(form: LogFormat) -> None:
    """Send all logs of this process to standard output in one form.

    Args:
      form: `json` for machines, `text` for a person at a terminal.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: Any = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    if form == "json":
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of another encoding loses no line
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(RateLimit())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Tracebacks as plain text: the console's own show local variables, a token among them.
                structlog.processors.format_exc_info,
                escape_control_characters,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def escape_control_characters(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    r"""Write characters that a terminal or a reader of lines obeys as escapes: ESC becomes `\x1b`.

    Paths, and messages of errors with values in them, come from outside.
    """
    for key, value in event.items():
        if isinstance(value, str):
            text = _UNSAFE.sub(_escaped, value)
            event[key] = text if key in _MANY_LINES else text.replace("\n", "\\n").replace("\t", "\\t")
    return event


def _escaped(found: re.Match[str]) -> str:
    return ascii(found.group())[1:-1]


class RateLimit(logging.Filter):
    """Let through so many warnings and errors of one kind in a while; the next one after says how many were left out.

    Whoever can cause a warning from outside, as with requests that are no HTTP, could fill the disk with them. Lines
    of level INFO are one a request, and pass.

    Args:
      clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, int, str], tuple[float, int]] = {}  # -> begin of the while, lines in it

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is written."""
        if record.levelno < logging.WARNING:
            return True
        kind, now = (record.name, record.levelno, _template(record)), self._clock()
        begun, lines = self._kinds.get(kind, (now, 0))
        left_out = 0
        if now - begun >= _SECONDS:
            left_out, begun, lines = max(0, lines - _LINES), now, 0
        if len(self._kinds) >= _KINDS and kind not in self._kinds:
            self._kinds.clear()
        self._kinds[kind] = (begun, lines + 1)
        if left_out:
            _append(record, f" ({left_out:,} more of these in the {_SECONDS:g} s before)")
        return lines < _LINES


def _template(record: logging.LogRecord) -> str:
    """Return the part of a message that is the same for all of its kind."""
    message = record.msg
    return str(message.get("event", "") if isinstance(message, dict) else message)[:100]


def _append(record: logging.LogRecord, text: str) -> None:
    if isinstance(record.msg, dict):
        record.msg["left_out"] = text.strip(" ()")
    else:
        record.msg, record.args = record.getMessage() + text, None
