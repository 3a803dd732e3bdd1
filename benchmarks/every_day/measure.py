"""Compares days that go on, one from the other, with a model that is trained anew on the whole log.

A simulated log of some weeks lies in a file per day. A first run reads all but the last days; each of these goes on
from the run before (`recall run --from`). A second run reads everything but the last day anew. The last day then judges
both: the model of the chain and the new one answer the same clicks of a day that neither has learned from.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.common.machine import environment
from recall.config.experiment import Config, load_config
from recall.core.artifacts import read_json
from recall.data.datasets import simulate
from recall.evaluation.comparison import compare_runs
from recall.runs.run import Run

METRIC = "recall@50"
_DAY_MS = 86_400_000
_STEPS = ("prepare", "train", "go_on", "refit")


class Plan(NamedTuple):
    """Say what is measured.

    Attributes:
      config: the experiment.
      overrides: `dotted.key=value` pairs over it.
      days: length of the log.
      going_on: number of days that go on.
      exposures: of the whole log.
    """

    config: Path
    overrides: tuple[str, ...]
    days: int
    going_on: int
    exposures: int


def measure(plan: Plan, out: Path, *, seeds: Sequence[int], console: Console) -> dict[str, Any]:
    """Run both ways for each seed.

    Returns:
      {"plan", "seeds", "made_with", "runs": per seed {"days": of the chain, "whole": of the new run, "judged": of the
      day after it, "difference": slices of the last day, first the chain's model, second the new one}}. A day is
      {"day", "seconds": by step, "bytes": of DIR/data, METRIC: of the model before it has learned the day, and of
      trending}.
    """
    runs = [_of_seed(plan, out / f"seed{seed}", seed=seed, console=console) for seed in seeds]
    return {
        "plan": {**plan._asdict(), "config": plan.config.stem, "overrides": list(plan.overrides)},
        "seeds": list(seeds),
        "made_with": environment(threads=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))),
        "runs": runs,
    }


def _of_seed(plan: Plan, out: Path, *, seed: int, console: Console) -> dict[str, Any]:
    write_log(out, plan, seed=seed)
    last = plan.days
    chain: list[dict[str, Any]] = []
    before: Path | None = None
    for day in range(last - plan.going_on, last + 1):
        run = Run(_experiment(plan, out, seed, until=day), out / f"day{day:02d}", since=before, console=console)
        run.all()
        chain.append(_day(run.directory, day))
        before = run.directory
    whole = Run(_experiment(plan, out, seed, until=last - 1), out / "whole", console=console)
    whole.all()
    judged = Run(_experiment(plan, out, seed, until=last), out / "judged", since=whole.directory, console=console)
    judged.all()
    (found,) = compare_runs(before, judged.directory, metric=METRIC, rolling=True)
    return {
        "days": chain,
        "whole": _day(whole.directory, last - 1),
        "judged": _day(judged.directory, last),
        "difference": [part.record() for part in found.slices],
    }


def write_log(folder: Path, plan: Plan, *, seed: int) -> None:
    """Simulate the log, a file per day, if it is not there."""
    if (folder / "log" / "30.parquet").exists() or (folder / "log" / f"{plan.days:02d}.parquet").exists():
        return
    dataset = simulate(days=plan.days, exposures=plan.exposures, items=3_000 * plan.days // 14, seed=seed)
    dataset.write(folder)
    events = pq.read_table(folder / "events.parquet")
    time_ms = events["time_ms"].to_numpy()
    day = (time_ms - time_ms.min() // _DAY_MS * _DAY_MS) // _DAY_MS + 1
    (folder / "log").mkdir(exist_ok=True)
    for number in range(1, plan.days + 1):
        pq.write_table(events.filter(pa.array(np.asarray(day == number))), folder / "log" / f"{number:02d}.parquet")


def _experiment(plan: Plan, out: Path, seed: int, *, until: int) -> Config:
    names = ",".join(f"{day:02d}" for day in range(1, until + 1))
    paths = {"events": out / "log" / f"{{{names},none}}.parquet", "items": out / "items.parquet",
             "users": out / "users.parquet"}  # fmt: skip
    given = [f"data.{table}.path={path.resolve()}" for table, path in paths.items()]
    return load_config(plan.config, [*given, "training.refit=continue", f"seed={seed}", *plan.overrides])


def _day(run: Path, day: int) -> dict[str, Any]:
    metrics, timing = read_json(run / "metrics.json"), read_json(run / "timing.json")
    seconds = {name: timing.get(f"{name}_seconds", 0.0) for name in _STEPS}
    seconds["train"] += sum(value for name, value in timing.items() if name.startswith("train_"))
    size = sum(path.stat().st_size for path in (run / "data").rglob("*") if path.is_file())
    of_models = metrics["days"][-1]["models"]
    values = {name: of_models[name][METRIC] for name in (metrics["configured"], "trending")}
    return {"day": day, "seconds": seconds, "bytes": size, METRIC: values}


def results_table(result: dict[str, Any]) -> Table:
    """Show the result in the terminal."""
    table = Table("day", "prepare s", "train s", "data MB", METRIC, "trending")
    first = result["runs"][0]
    rows = [*((f"{day['day']}", day) for day in first["days"]), ("whole, anew", first["whole"])]
    for name, day in rows:
        seconds = day["seconds"]
        model, trending = day[METRIC].values()
        train = sum(seconds[step] for step in _STEPS[1:])
        table.add_row(name, f"{seconds['prepare']:.1f}", f"{train:.1f}", f"{day['bytes'] / 1e6:.1f}", f"{model:.4f}",
                      f"{trending:.4f}")  # fmt: skip
    return table
