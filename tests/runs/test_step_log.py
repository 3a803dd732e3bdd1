"""Checks what a run notes of its steps."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from recall.config.experiment import Config
from recall.runs.step_log import StepLog


def test_the_time_of_a_resumed_step_counts_what_was_done_before(settings: Config, tmp_path: Path) -> None:
    shown = io.StringIO()
    log = StepLog(settings, tmp_path, Console(file=shown, width=200))
    with log.running("train gated", spinner=False, seconds_before=3600.0):
        pass
    timing = json.loads((tmp_path / "timing.json").read_text())
    assert 3600 <= timing["train_gated_seconds"] < 3660
    assert "3600.0 s of them before it was resumed" in shown.getvalue()
    with log.running("train gated", spinner=False):
        pass
    assert json.loads((tmp_path / "timing.json").read_text())["train_gated_seconds"] < 60
    assert shown.getvalue().count("before it was resumed") == 1
