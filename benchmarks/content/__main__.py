"""python -m benchmarks.content run | compare | latency | tables"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.quality.commands import compare_sweep, run_sweep, spread
from recall.console import clear_errors, silence_libraries

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
_console = Console(stderr=True, highlight=False)

_HERE = Path(__file__).parent
Out = Annotated[Path, typer.Option("--out", help="folder of data, ranks and logs")]
ResultsFolder = Annotated[Path, typer.Option("--results", help="folder of the JSON")]
SweepFile = Annotated[Path, typer.Option("--sweep", help="experiments")]
_OUT, _RESULTS, _SWEEP = Path("runs/content"), _HERE / "results", _HERE / "sweep.yaml"


@app.command()
def run(
    only: Annotated[list[str] | None, typer.Option("--only", help="globs of GROUP/EXPERIMENT/DATA")] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seeds", help="instead of the sweep's")] = None,
    out: Out = _OUT,
    jobs: Annotated[int, typer.Option(min=1, help="processes at a time, which share the cores")] = 1,
    again: Annotated[bool, typer.Option("--again", help="also what has a result that stands")] = False,
    sweep: SweepFile = _SWEEP,
    results: ResultsFolder = _RESULTS,
) -> None:
    """Trains and evaluates what has no result yet, then makes the intervals."""
    with clear_errors(_console):
        run_sweep(
            "benchmarks.content", sweep=sweep, results=results, out=out, only=only or (), seeds=seeds or (), jobs=jobs,
            again=again, console=_console,
        )  # fmt: skip


@app.command()
def compare(out: Out = _OUT, sweep: SweepFile = _SWEEP, results: ResultsFolder = _RESULTS) -> None:
    """Makes the paired intervals that are missing, from the ranks in --out; `run` ends with this."""
    with clear_errors(_console):
        compare_sweep(sweep=sweep, results=results, out=out, console=_console)


@app.command()
def latency(out: Out = _OUT, sweep: SweepFile = _SWEEP, results: ResultsFolder = _RESULTS) -> None:
    """Times the query vectors of the user tower and of its students; on a machine that does nothing else."""
    with clear_errors(_console):
        from benchmarks.content.latency import measure_latency
        from benchmarks.quality.data import DataFolder
        from benchmarks.quality.sweep import load_sweep

        plan = load_sweep(sweep)
        measure_latency(plan, DataFolder(out, plan.data), results)


@app.command()
def tables(
    sweep: SweepFile = _SWEEP,
    results: ResultsFolder = _RESULTS,
    readme: Annotated[Path, typer.Option(help="the page with the tables")] = _HERE / "README.md",
) -> None:
    """Derives the tables of README.md from the results."""
    with clear_errors(_console):
        from benchmarks.content.tables import content_tables
        from benchmarks.quality.comparisons import Comparisons
        from benchmarks.quality.results import Results
        from benchmarks.quality.sweep import load_sweep
        from benchmarks.quality.tables import replace_tables

        found = Results(results)
        replace_tables(readme, content_tables(load_sweep(sweep), found, Comparisons.read(found, results), results))


if __name__ == "__main__":
    silence_libraries()
    app(spread(sys.argv[1:]), prog_name="python -m benchmarks.content")
