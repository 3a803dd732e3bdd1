"""Runs what has no result yet, each run in its own process, so that memory and random state are its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console

from benchmarks.common.machine import process_environment
from benchmarks.quality.data import DataFolder, content_fingerprint
from benchmarks.quality.results import changed_settings, read_result, result_path
from benchmarks.quality.sweep import PlannedRun, Sweep
from recall.config.experiment import Config
from recall.data.prepared import PreparedData


def run_config(sweep: Sweep, folder: DataFolder, run: PlannedRun) -> Config:
    """The resolved experiment of a run, with the seed that its data is prepared with."""
    experiment = sweep.experiments[run.experiment]
    overrides = sweep.overrides(run.experiment, run.data)
    config = folder.config(run.data, overrides, config_path=experiment.config_path(run.data))
    return folder.with_taught_vectors(run.data, config, how=experiment.taught) if experiment.taught else config


def why_to_run(sweep: Sweep, run: PlannedRun, config: Config, prepared: PreparedData, *, results: Path) -> str | None:
    """What is missing or has changed since a run's result was made; None if it stands."""
    path = result_path(run, results)
    if not path.exists():
        return "no result yet"
    experiment, found = sweep.experiments[run.experiment], read_result(path).content
    made_of, asked_student = found["made_of"], next(iter(found["metrics"]["test"])) == "student"
    if made_of["data"] != content_fingerprint(prepared):
        return "the data has changed"
    same = made_of["intervention"] == experiment.intervene and made_of["baseline"] == experiment.baseline
    if not same or asked_student != (experiment.asked == "student"):
        return "it is another experiment now"
    changed = changed_settings(made_of["settings"], config, is_baseline=experiment.baseline is not None)
    return f"changed: {', '.join(changed)}" if changed else None


def execute_all(
    sweep: Sweep,
    folder: DataFolder,
    runs: Sequence[PlannedRun],
    *,
    sweep_path: Path,
    jobs: int,
    again: bool,
    results: Path,
    command: Sequence[str],
    console: Console,
) -> list[PlannedRun]:
    """Makes the results that are missing or out of date.

    Args:
      sweep: says what the runs are.
      folder: data, ranks and logs.
      runs: what is wanted.
      sweep_path: the file of the sweep, for the processes to read.
      jobs: processes at a time; each gets its part of the cores.
      again: also runs whose result stands.
      results: folder of the JSON.
      command: what started all this, for the record.
      console: is told about every run.

    Returns:
      The runs that failed.
    """
    todo = list(_outstanding(sweep, folder, runs, again=again, results=results, console=console))
    console.print(f"{len(todo)} of {len(runs)} runs to do")
    failed: list[PlannedRun] = []
    arguments = ["--out", str(folder.out), "--results", str(results), "--sweep", str(sweep_path)]
    with ThreadPoolExecutor(jobs) as pool:
        pending = {
            pool.submit(_process, run, [*arguments, "--command", json.dumps(list(command))], folder, jobs): run
            for run in todo
        }
        for done, future in enumerate(as_completed(pending), start=1):
            run, (succeeded, seconds) = pending[future], future.result()
            log = f"[green]{seconds:.0f} s[/green]" if succeeded else f"[red]failed[/red], see {_log(folder, run)}"
            console.print(f"{done}/{len(todo)} {run.name}: {log}")
            if not succeeded:
                failed.append(run)
    return failed


def _outstanding(
    sweep: Sweep, folder: DataFolder, runs: Sequence[PlannedRun], *, again: bool, results: Path, console: Console
) -> Iterator[PlannedRun]:
    """What is to do. Data is prepared here, so that two processes never prepare the same."""
    prepared: dict[str, tuple[Config, PreparedData]] = {}
    for run in runs:
        key = f"{run.experiment}/{run.data}"
        if key not in prepared:
            config = run_config(sweep, folder, run)
            prepared[key] = config, folder.prepare(run.data, config)
        reason = "asked for again" if again else why_to_run(sweep, run, *prepared[key], results=results)
        if reason:
            console.print(f"{run.name}: {reason}")
            yield run


def _process(run: PlannedRun, arguments: Sequence[str], folder: DataFolder, jobs: int) -> tuple[bool, float]:
    log = _log(folder, run)
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with log.open("w") as stream:
        finished = subprocess.run(
            [sys.executable, "-m", "benchmarks.quality", "one", *map(str, run), *arguments],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=process_environment(max(1, (os.cpu_count() or 1) // jobs)),
            check=False,
        )
    return finished.returncode == 0, time.perf_counter() - started


def _log(folder: DataFolder, run: PlannedRun) -> Path:
    return folder.out / "logs" / f"{run.name}.txt"
