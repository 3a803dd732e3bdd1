"""Keeps how each day's model did on clicks that it had not learned from: the entry `days` of metrics.json.

A run that goes on from another one takes over its days and adds its own: progressive validation (Blum, Kalai &
Langford, COLT 1999), test then train.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from recall.data.prepared import PreparedData
from recall.runs.parts import METRICS
from recall.runs.steps import read_run_json

_KEPT = 400


def day_of(prepared: PreparedData, judged: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Describe the test period of a run and how each model did in it.

    Args:
      prepared: the data.
      judged: model -> its part of metrics.json.

    Returns:
      `from` and `until` of the test period, ISO 8601 in UTC, None for a log without a clock; and in `models`, by name,
      the metrics of all clicks, rolling where there is a rolling evaluation.
    """
    models = {name: dict((found.get("rolling") or found)["all"]) for name, found in judged.items()}
    has_clock = prepared.manifest["time_unit"] != "order"
    times_ms = prepared.manifest["split"].get("test_start_ms"), prepared.manifest["last_time_ms"]
    start, end = (_iso(time_ms) if has_clock and time_ms is not None else None for time_ms in times_ms)
    return {"from": start, "until": end, "models": models}


def days_of(run: Path) -> list[dict[str, Any]]:
    """Read the days of a finished run, the latest 400; none of a run from before there were days."""
    days: list[dict[str, Any]] = read_run_json(run / METRICS).get("days", [])
    return days[-_KEPT:]


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1_000, timezone.utc).isoformat(timespec="seconds")
