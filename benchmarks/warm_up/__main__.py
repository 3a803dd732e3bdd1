"""python -m benchmarks.warm_up run | plot"""

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
    config: Annotated[Path, typer.Option("--config", help="the experiment")],
    out: Annotated[Path, typer.Option("--out", help="scratch folder of the runs; finished ones are taken up")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="dotted.key=value, may be repeated")] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="may be repeated; default: 1")] = None,
    results: ResultsFolder = _HERE / "results",
) -> None:
    """Trains the kept and the retrained model, and compares them on the same clicks."""
    with clear_errors(_console):
        from benchmarks.warm_up.measure import measure_warm_up, results_table
        from recall.core.artifacts import write_json

        result = measure_warm_up(config, out, overrides or [], seeds=seeds or [1], console=_console)
        results.mkdir(parents=True, exist_ok=True)
        write_json(results / f"{config.stem}.json", result)
        _console.print(results_table(result))


@app.command()
def plot(results: ResultsFolder = _HERE / "results", plots: Annotated[Path, typer.Option()] = _HERE / "plots") -> None:
    """Draws the results."""
    with clear_errors(_console):
        from benchmarks.warm_up.plot import write_plot

        _console.print(f"wrote {write_plot(results, plots)}")


if __name__ == "__main__":
    silence_libraries()
    app(prog_name="python -m benchmarks.warm_up")
