"""What the command lines of `benchmarks.quality` and `benchmarks.content` do alike."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.quality.data import DataFolder
from benchmarks.quality.results import Results
from benchmarks.quality.sweep import load_sweep
from recall.core.errors import RecallError
from recall.runs.console import clear_errors

Out = Annotated[Path, typer.Option("--out", help="folder of data, ranks and logs")]
ResultsFolder = Annotated[Path, typer.Option("--results", help="folder of the JSON")]
SweepFile = Annotated[Path, typer.Option("--sweep", help="experiments")]


def add_sweep_commands(
    app: typer.Typer, module: str, *, sweep: Path, results: Path, out: Path, console: Console
) -> None:
    """Gives a command line `run` and `compare`.

    Args:
      app: the command line.
      module: whose it is, for the record.
      sweep: default file of the experiments.
      results: default folder of the JSON.
      out: default folder of data, ranks and logs.
      console: is told about every run.
    """
    default_sweep, default_results, default_out = sweep, results, out

    @app.command()
    def run(
        only: Annotated[list[str] | None, typer.Option("--only", help="globs of GROUP/EXPERIMENT/DATA")] = None,
        seeds: Annotated[list[int] | None, typer.Option("--seeds", help="instead of the sweep's")] = None,
        out: Out = default_out,
        jobs: Annotated[int, typer.Option(min=1, help="processes at a time, which share the cores")] = 1,
        again: Annotated[bool, typer.Option("--again", help="also what has a result that stands")] = False,
        sweep: SweepFile = default_sweep,
        results: ResultsFolder = default_results,
    ) -> None:
        """Trains and evaluates what has no result yet, then makes the intervals."""
        with clear_errors(console):
            from benchmarks.quality.comparisons import update_comparisons
            from benchmarks.quality.runner import execute_all

            plan = load_sweep(sweep)
            folder = DataFolder(out, plan.data)
            failed = execute_all(
                plan, folder, plan.plan(only or (), seeds or ()), sweep_path=sweep, jobs=jobs, again=again,
                results=results, command=_given_command(module), console=console,
            )  # fmt: skip
            update_comparisons(plan, folder, Results(results), results, announce=console.print)
            if failed:
                raise RecallError(f"{len(failed)} runs failed: {', '.join(run.name for run in failed)}")

    @app.command()
    def compare(
        out: Out = default_out, sweep: SweepFile = default_sweep, results: ResultsFolder = default_results
    ) -> None:
        """Makes the paired intervals that are missing, from the ranks in --out; `run` ends with this."""
        with clear_errors(console):
            from benchmarks.quality.comparisons import update_comparisons

            plan = load_sweep(sweep)
            folder = DataFolder(out, plan.data)
            made = update_comparisons(plan, folder, Results(results), results, announce=console.print)
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


def _given_command(module: str) -> list[str]:
    """The command as it was given, without folders: where files lie changes no number."""
    arguments, kept = iter(sys.argv[1:]), ["python", "-m", module]
    for argument in arguments:
        if argument in ("--out", "--results", "--sweep"):
            next(arguments, None)
        elif not argument.startswith(("--out=", "--results=", "--sweep=")):
            kept.append(argument)
    return kept
