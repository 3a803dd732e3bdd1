"""Measures what a refit is worth: the last day of a log judges the model before and after it.

The log is cut one day before its end. A run on what is left trains, and refits what it serves. Both models then answer
the clicks of the last day, which neither has learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.every_day.measure import METRIC
from recall.config.experiment import Config, load_config
from recall.core.artifacts import read_json
from recall.core.errors import RecallError
from recall.data.prepared import PreparedData
from recall.runs.assessment import assess_models
from recall.runs.run import Run
from recall.training.going_on import go_on

_DAY_MS = 86_400_000


def measure_refit(
    config: Path, out: Path, overrides: Sequence[str], *, seeds: Sequence[int], console: Console
) -> dict[str, Any]:
    """Compare the model before and after its refit on the next day's clicks.

    Returns:
      {"experiment", "set", "runs": per seed {"seed", "before", "after": METRIC of the last day, "train_seconds",
      "refit_seconds", "clicks"}}.

    Raises:
      RecallError: the log is no Parquet file with times in milliseconds.
    """
    runs = [_of_seed(config, out / f"seed{seed}", [*overrides, f"seed={seed}"], console=console) for seed in seeds]
    return {"experiment": config.stem, "set": list(overrides),
            "runs": [{"seed": seed, **run} for seed, run in zip(seeds, runs, strict=True)]}  # fmt: skip


def _of_seed(path: Path, out: Path, overrides: Sequence[str], *, console: Console) -> dict[str, Any]:
    config = load_config(path, [*overrides, "training.refit=continue"])
    first, both = _cut(config, out)
    given = [*overrides, "training.refit=continue"]
    cut = Run(load_config(path, [*given, f"data.events.path={first}"]), out / "cut", console=console)
    cut.all()
    next_day = Run(
        load_config(path, [*given, f"data.events.path={both}"]), out / "next", since=cut.directory, console=console
    )
    metrics = next_day.all()
    name = metrics["configured"]
    prepared = PreparedData.load(next_day.directory / "data").judged()
    before = go_on(next_day.config, prepared, cut.directory, out / "before", part="evaluated")
    judged = assess_models(
        next_day.config, prepared, [name], load=lambda name: before, splits=("test",), with_baselines=False
    ).metrics["test"][name]
    timing = read_json(cut.directory / "timing.json")
    return {
        "before": judged["rolling"]["all"][METRIC],
        "after": metrics["test"][name]["rolling"]["all"][METRIC],
        "trending": metrics["test"]["trending"]["rolling"]["all"][METRIC],
        "train_seconds": timing[f"train_{name}_seconds"],
        "refit_seconds": timing["refit_seconds"],
        "clicks": metrics["test"][name]["all"]["examples"],
    }


def _cut(config: Config, out: Path) -> tuple[Path, str]:
    """Write the log in two files, the last day in the second; returns the first, and a glob of both."""
    events = config.data.events
    if not events.path.endswith(".parquet") or events.time_unit != "ms":
        raise RecallError(f"{events.path}: expected one Parquet file with times in ms")
    folder = out / "log"
    if not folder.exists():
        table = pq.read_table(events.path)
        time_ms = table[events.time].to_numpy()
        is_last = time_ms >= np.max(time_ms) + 1 - _DAY_MS
        folder.mkdir(parents=True)
        for name, chosen in (("1.parquet", ~is_last), ("2.parquet", is_last)):
            pq.write_table(table.filter(pa.array(chosen)), folder / name)
    return folder.resolve() / "1.parquet", f"{folder.resolve()}/*.parquet"
