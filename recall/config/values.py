"""Defines types of settings that YAML has no type for: durations, `auto` or a number, local paths."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from recall.core.tables import is_uri
from recall.core.times import is_time_zone

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*"
# What editors are told: `Field` alone would have them refuse 1h.
DURATION_SCHEMA = [
    {"type": "string", "pattern": f"^{_DURATION}$", "examples": ["30m", "1h", "7d"]},
    {"type": "integer", "minimum": 0},
]


def parse_duration_ms(value: Any) -> int:
    """Convert '500ms', '90s', '30m', '1h' or '7d' to milliseconds; whole numbers are milliseconds already."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(_DURATION, str(value))
    if not match:
        raise ValueError("expected a duration like 30m, 1h or 7d")
    return round(float(match[1]) * _UNITS_MS[match[2]])


def parse_refresh(value: Any) -> int | Literal["auto", "none"]:
    """Accept 'auto', 'none' (or null), or a duration above zero, which becomes milliseconds."""
    if value in ("auto", "none", None):
        return value or "none"
    duration = parse_duration_ms(value)
    if duration <= 0:
        raise ValueError("expected none, or a duration above zero like 30m, 1h or 1d")
    return duration


def duration_text(ms: int) -> str:
    """Write a duration as an experiment file has it: `90m`, `1h`, `7d`."""
    unit = max((unit for unit, size in _UNITS_MS.items() if ms % size == 0), key=_UNITS_MS.__getitem__)
    return f"{ms // _UNITS_MS[unit]}{unit}"


def parse_auto_or_number(value: Any) -> float | Literal["auto"]:
    """Accept 'auto' or a finite number."""
    if value == "auto":
        return "auto"
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("expected auto or a finite number, e.g. 0.05")
    return number


def parse_decay(value: Any) -> float | Literal["auto"] | None:
    """Accept 'auto', None, or a number between 0 and 1."""
    if value is None or value == "auto":
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < 1:
        raise ValueError("expected auto, null, or a number between 0 and 1, e.g. 0.99")
    return number


def parse_held_out(value: Any) -> float:
    """Accept a fraction between 0 and 1, or a duration of a minute and more, which becomes whole milliseconds."""
    if isinstance(value, str) and re.fullmatch(_DURATION, value):
        value = parse_duration_ms(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not (0 < value < 1 or (isinstance(value, int) and value >= _UNITS_MS["m"])):
        raise ValueError("expected a fraction between 0 and 1 like 0.1, or a duration of a minute or more like 1d")
    return value


def parse_local_path(value: Any) -> Any:
    """Accept a path that is no URI."""
    if is_uri(str(value)):
        raise ValueError("expected a local path; only logs (events, histories) can be read by URI. Copy the file here")
    return value


def parse_time_zone(value: Any) -> Any:
    """Accept the IANA name of a time zone that this machine knows."""
    if not isinstance(value, str) or not is_time_zone(value):
        raise ValueError("expected the IANA name of a time zone, such as UTC or Europe/Berlin")
    return value


GIVEN = "<given to recall.Run>"
"""The path of an input that the experiment file does not name, as the table is given from Python."""

DurationMs = Annotated[int, BeforeValidator(parse_duration_ms), Field(ge=0), WithJsonSchema({"anyOf": DURATION_SCHEMA})]
Refresh = Annotated[
    int | Literal["auto", "none"],
    BeforeValidator(parse_refresh),
    WithJsonSchema({"anyOf": [{"enum": ["auto", "none", None]}, *DURATION_SCHEMA]}),
]
AutoOrNumber = Annotated[Literal["auto"] | float, BeforeValidator(parse_auto_or_number)]
Decay = Annotated[Literal["auto"] | float | None, BeforeValidator(parse_decay)]
TimeZone = Annotated[str, BeforeValidator(parse_time_zone)]
LocalPath = Annotated[Path, BeforeValidator(parse_local_path)]
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
HeldOut = Annotated[
    float | int,
    BeforeValidator(parse_held_out),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, *DURATION_SCHEMA]}),
]
HistoryName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
HistoryTime = Literal["none", "gap", "age", "both"]
