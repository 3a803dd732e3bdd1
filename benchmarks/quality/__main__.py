"""python -m benchmarks.quality run | compare | tables | prepare"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.quality.commands import Out, ResultsFolder, SweepFile, add_sweep_commands, spread
from benchmarks.quality.data import DataFolder
from benchmarks.quality.results import RESULTS, Results
from benchmarks.quality.sweep import SWEEP, PlannedRun, load_sweep
from recall.runs.console import clear_errors, silence_libraries

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
_console = Console(stderr=True, highlight=False)

_OUT = Path("runs/quality")
_README = Path(__file__).with_name("README.md")
add_sweep_commands(app, "benchmarks.quality", sweep=SWEEP, results=RESULTS, out=_OUT, console=_console)


@app.command()
def prepare(out: Out = _OUT, sweep: SweepFile = SWEEP) -> None:
    """Makes the data of all data sets, which `run` does by itself."""
    with clear_errors(_console):
        plan = load_sweep(sweep)
        folder = DataFolder(out, plan.data)
        for name in plan.data:
            _console.print(f"{name}: {folder.prepare(name, folder.config(name)).directory}")


@app.command()
def tables(
    check: Annotated[bool, typer.Option("--check", help="fail if a claim does not hold; lists those")] = False,
    sweep: SweepFile = SWEEP,
    results: ResultsFolder = RESULTS,
    readme: Annotated[Path, typer.Option(help="the page with the tables")] = _README,
) -> None:
    """Derives the tables of README.md and the plots from the results."""
    with clear_errors(_console):
        from benchmarks.common.pages import replace_tables
        from benchmarks.quality.claims import check_claims, check_live_claims
        from benchmarks.quality.comparisons import Comparisons
        from benchmarks.quality.plots import write_plots
        from benchmarks.quality.tables import all_tables

        plan, found = load_sweep(sweep), Results(results)
        comparisons = Comparisons.read(found, results)
        claims = check_claims(found, comparisons, plan.groups["models"].data)
        live, cold = (plan.groups[name].data if name in plan.groups else () for name in ("live", "live_cold"))
        of_live = check_live_claims(found, comparisons, live, cold_sets=cold)
        replace_tables(readme, all_tables(plan, found, comparisons, claims, of_live))
        write_plots(readme.parent / "plots", plan, found, comparisons)
        broken = [claim for claim in [*claims, *of_live] if claim.holds is False]
        asked = [claim for claim in [*claims, *of_live] if claim.holds is not None]
        _console.print(f"{len(asked) - len(broken)} of {len(asked)} claims hold")
        if check and broken:
            for claim in broken:
                typer.echo(f"{claim.data}: {claim.statement}: {claim.found}")
            raise typer.Exit(1)


@app.command(hidden=True)
def one(
    experiment: str,
    data: str,
    seed: int,
    command: Annotated[str, typer.Option("--command")],
    out: Out = _OUT,
    sweep: SweepFile = SWEEP,
    results: ResultsFolder = RESULTS,
) -> None:
    """A single run in this process; `run` starts it."""
    from benchmarks.quality.worker import execute

    plan = load_sweep(sweep)
    run = PlannedRun(experiment, data, seed)
    execute(plan, DataFolder(out, plan.data), run, command=json.loads(command), results=results)


if __name__ == "__main__":
    silence_libraries()
    app(spread(sys.argv[1:]), prog_name="python -m benchmarks.quality")
