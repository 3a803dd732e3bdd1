"""python -m benchmarks.content run | compare | latency | tables"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.quality.commands import Out, ResultsFolder, SweepFile, add_sweep_commands, spread
from recall.runs.console import clear_errors, silence_libraries

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
_console = Console(stderr=True, highlight=False)

_HERE = Path(__file__).parent
_OUT, _RESULTS, _SWEEP = Path("runs/content"), _HERE / "results", _HERE / "sweep.yaml"
add_sweep_commands(app, "benchmarks.content", sweep=_SWEEP, results=_RESULTS, out=_OUT, console=_console)


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
        from benchmarks.common.pages import replace_tables
        from benchmarks.content.tables import content_tables
        from benchmarks.quality.comparisons import Comparisons
        from benchmarks.quality.results import Results
        from benchmarks.quality.sweep import load_sweep

        found = Results(results)
        replace_tables(readme, content_tables(load_sweep(sweep), found, Comparisons.read(found, results), results))


if __name__ == "__main__":
    silence_libraries()
    app(spread(sys.argv[1:]), prog_name="python -m benchmarks.content")
