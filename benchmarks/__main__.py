"""python -m benchmarks run | tables | --check: how fast the library is beside its peers, and how cost grows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.speed.check import CLAIMS, judge, load_claims
from benchmarks.speed.results import RESULTS, Results
from benchmarks.speed.sweep import SWEEP, load_sweep
from recall.core.errors import RecallError
from recall.runs.console import clear_errors, silence_libraries

app = typer.Typer(add_completion=False, invoke_without_command=True, pretty_exceptions_enable=False, help=__doc__)
_console = Console(stderr=True, highlight=False)

_README = SWEEP.with_name("README.md")
_WIDE = 210
SweepFile = Annotated[Path, typer.Option("--sweep", help="rows and cases")]
ClaimsFile = Annotated[Path, typer.Option("--claims", help="what the results are held against")]
ResultsFolder = Annotated[Path, typer.Option("--results", help="folder of the JSON")]


@app.callback()
def main(
    context: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="judge the results; fails and names what falls short")] = False,
    claims: ClaimsFile = CLAIMS,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measures, derives tables, or judges what was measured."""
    if context.invoked_subcommand:
        return
    if not check:
        typer.echo(context.get_help())
        raise typer.Exit(2)
    with clear_errors(_console):
        _check(claims, results)


@app.command()
def run(
    only: Annotated[list[str] | None, typer.Option("--only", help="globs of ROW or ROW/CASE; may be repeated")] = None,
    small: Annotated[bool, typer.Option("--small", help="small variants, to see that all runs")] = False,
    out: Annotated[Path, typer.Option("--out", help="scratch folder of data and logs")] = Path("runs/speed"),
    sweep: SweepFile = SWEEP,
    results: Annotated[
        Path | None, typer.Option("--results", help="folder of the JSON; default: the committed one, of small ones OUT")
    ] = None,
) -> None:
    """Measures every case, each in a process of its own; on a machine that does nothing else."""
    with clear_errors(_console):
        from benchmarks.speed.runner import measure_all

        plan = load_sweep(sweep)
        cases = plan.plan(only or (), small=small)
        failed = measure_all(
            plan,
            cases,
            out=out / ("small" if small else "full"),
            results=results or (out / "small" / "results" if small else RESULTS),
            command=["python", "-m", "benchmarks", "run", *(f"--only={glob}" for glob in only or ())],
            console=_console,
        )
        if failed:
            raise RecallError(f"{len(failed)} cases failed: {', '.join(case.name for case in failed)}")


@app.command()
def tables(
    sweep: SweepFile = SWEEP,
    claims: ClaimsFile = CLAIMS,
    results: ResultsFolder = RESULTS,
    readme: Annotated[Path, typer.Option(help="the page with the tables; plots go beside it")] = _README,
) -> None:
    """Derives the tables of README.md and the plots from the results."""
    with clear_errors(_console):
        from benchmarks.common.pages import replace_tables
        from benchmarks.speed.plots import write_plots
        from benchmarks.speed.tables import all_tables

        plan, found = load_sweep(sweep), Results(results)
        replace_tables(readme, all_tables(plan, found, judge(load_claims(claims), found)))
        write_plots(readme.parent / "plots", plan, found)


def _check(claims: Path, results: Path) -> None:
    from benchmarks.speed.tables import as_measured, number, outcome

    verdicts = judge(load_claims(claims), Results(results))
    table = Table(title="speed, as measured", title_justify="left", box=box.SIMPLE)
    for name in ("row", "claim", "target", "measured", "range", "verdict"):
        table.add_column(name, justify="right" if name in ("target", "measured", "range") else "left")
    for verdict in verdicts:
        claim, ends = verdict.claim, [end for end in (verdict.lowest, verdict.highest) if end is not None]
        spread = " – ".join(map(number, ends))
        table.add_row(claim.row, claim.claim, claim.target, as_measured(verdict), spread, outcome(verdict))
    console = Console()
    # Into a file or a pipe a row is a line, however long the claims are.
    (console if console.is_terminal else Console(width=_WIDE)).print(table)
    short = [verdict for verdict in verdicts if not verdict.holds]
    typer.echo(f"{len(verdicts) - len(short)} of {len(verdicts)} claims hold")
    for verdict in short:
        why = verdict.problem or f"measured {as_measured(verdict)}, wanted {verdict.claim.target}"
        typer.echo(f"{verdict.claim.row}: {verdict.claim.claim}: {why}")
    if short:
        raise typer.Exit(1)


if __name__ == "__main__":
    silence_libraries()
    app(prog_name="python -m benchmarks")
