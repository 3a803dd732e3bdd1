"""What the command lines of `benchmarks.quality` and `benchmarks.content` do alike."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.quality.data import DataFolder
from benchmarks.quality.results import Results
from benchmarks.quality.sweep import load_sweep
from recall.errors import RecallError


def run_sweep(
    module: str,
    *,
    sweep: Path,
    results: Path,
    out: Path,
    only: Sequence[str],
    seeds: Sequence[int],
    jobs: int,
    again: bool,
    console: Console,
) -> None:
    """Makes the results of a sweep that are missing or out of date, then the intervals.

    Args:
      module: whose command line it is, for the record.
      sweep: file of the experiments.
      results: folder of the JSON.
      out: folder of data, ranks and logs.
      only: globs of GROUP/EXPERIMENT/DATA; none means all.
      seeds: instead of the sweep's.
      jobs: processes at a time.
      again: also runs whose result stands.
      console: is told about every run.

    Raises:
      RecallError: names the runs that failed; the others are done.
    """
    from benchmarks.quality.comparisons import update_comparisons
    from benchmarks.quality.runner import execute_all

    plan = load_sweep(sweep)
    folder = DataFolder(out, plan.data)
    failed = execute_all(
        plan, folder, plan.plan(only, seeds), sweep_path=sweep, jobs=jobs, again=again, results=results,
        command=given_command(module), console=console,
    )  # fmt: skip
    update_comparisons(plan, folder, Results(results), results, announce=console.print)
    if failed:
        raise RecallError(f"{len(failed)} runs failed: {', '.join(run.name for run in failed)}")


def compare_sweep(*, sweep: Path, results: Path, out: Path, console: Console) -> None:
    """Makes the paired intervals that are missing, from the ranks in `out`."""
    from benchmarks.quality.comparisons import update_comparisons

    plan = load_sweep(sweep)
    made = update_comparisons(plan, DataFolder(out, plan.data), Results(results), results, announce=console.print)
    console.print(f"{made} intervals made")


def spread(arguments: Sequence[str]) -> list[str]:
    """Repeats the option before each of its values, as click wants it: --seeds 1 2 -> --seeds 1 --seeds 2."""
    repeated: list[str] = []
    option: str | None = None
    for position, argument in enumerate(arguments):
        if argument.startswith("--"):
            option = argument if argument in ("--only", "--seeds") else None
        elif option and arguments[position - 1] != option:
            repeated.append(option)
        repeated.append(argument)
    return repeated


def given_command(module: str) -> list[str]:
    """The command as it was given, without folders: where files lie changes no number."""
    arguments, kept = iter(sys.argv[1:]), ["python", "-m", module]
    for argument in arguments:
        if argument in ("--out", "--results", "--sweep"):
            next(arguments, None)
        elif not argument.startswith(("--out=", "--results=", "--sweep=")):
            kept.append(argument)
    return kept
