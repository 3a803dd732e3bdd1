"""python -m benchmarks.every_day run | refit | plot"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from recall.runs.console import clear_errors, silence_libraries

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
_console = Console(stderr=True, highlight=False)
_HERE = Path(__file__).parent
ResultsFolder = Annotated[Path, typer.Option("--results", help="folder of the JSON")]


@app.command()
def run(
    out: Annotated[Path, typer.Option("--out", help="scratch folder of logs and runs; finished ones are taken up")],
    config: Annotated[Path, typer.Option("--config", help="the experiment, of a simulated community")] = Path(
        "examples/demo.yaml"
    ),
    overrides: Annotated[list[str] | None, typer.Option("--set", help="dotted.key=value, may be repeated")] = None,
    days: Annotated[int, typer.Option(min=3, help="length of the log")] = 30,
    going_on: Annotated[int, typer.Option("--going-on", min=1, help="days that go on, one from the other")] = 7,
    exposures: Annotated[int, typer.Option(help="of the whole log")] = 650_000,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="may be repeated; default: 1")] = None,
    results: ResultsFolder = _HERE / "results",
) -> None:
    """Goes on from day to day, and trains anew on the whole log at the end; judges both on the last day."""
    with clear_errors(_console):
        from benchmarks.every_day.measure import Plan, measure, results_table
        from recall.core.artifacts import write_json

        plan = Plan(config, tuple(overrides or ()), days, going_on, exposures)
        result = measure(plan, out, seeds=seeds or [1], console=_console)
        results.mkdir(parents=True, exist_ok=True)
        write_json(results / f"{config.stem}.json", result)
        _console.print(results_table(result))


@app.command()
def refit(
    config: Annotated[Path, typer.Option("--config", help="the experiment; its log is one Parquet file")],
    out: Annotated[Path, typer.Option("--out", help="scratch folder of the runs; finished ones are taken up")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="dotted.key=value, may be repeated")] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="may be repeated; default: 1")] = None,
    results: ResultsFolder = _HERE / "results",
) -> None:
    """Cuts the last day off a log, and lets it judge the model before and after its refit."""
    with clear_errors(_console):
        from benchmarks.every_day.refit import measure_refit
        from recall.core.artifacts import write_json

        result = measure_refit(config, out, overrides or [], seeds=seeds or [1], console=_console)
        (results / "refit").mkdir(parents=True, exist_ok=True)
        write_json(results / "refit" / f"{config.stem}.json", result)
        for run in result["runs"]:
            _console.print(f"seed {run['seed']}: {run['before']:.4f} before, {run['after']:.4f} after the refit")


@app.command()
def plot(results: ResultsFolder = _HERE / "results", plots: Annotated[Path, typer.Option()] = _HERE / "plots") -> None:
    """Draws the results."""
    with clear_errors(_console):
        from benchmarks.every_day.plot import write_plot

        _console.print(f"wrote {write_plot(results, plots)}")


if __name__ == "__main__":
    silence_libraries()
    app(prog_name="python -m benchmarks.every_day")
