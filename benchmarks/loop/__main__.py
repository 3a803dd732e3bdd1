"""python -m benchmarks.loop run | tables"""

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
    out: Annotated[Path, typer.Option("--out", help="scratch folder; what is finished there is not played again")],
    only: Annotated[list[str] | None, typer.Option("--only", help="groups; may be repeated; default: all")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="in place of the sweep's")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="arms at once, a process each")] = 2,
    results: ResultsFolder = _HERE / "results",
) -> None:
    """Plays the groups, and writes the JSON of each."""
    with clear_errors(_console):
        from benchmarks.common.machine import environment
        from benchmarks.loop.sweep import load_sweep
        from recall.core.artifacts import write_json
        from recall.core.errors import ConfigError
        from recall.runs.loop.arms import parse_arms
        from recall.runs.loop.loop import run_loop

        groups = load_sweep().groups
        if unknown := set(only or ()) - groups.keys():
            raise ConfigError(f"--only {', '.join(sorted(unknown))}: expected some of {', '.join(groups)}")
        for name in only or groups:
            group = groups[name]
            result = run_loop(
                out / name, parse_arms(",".join(group.arms)), **group.sizes, seeds=seeds or group.seeds, jobs=jobs,
                console=_console,
            )  # fmt: skip
            results.mkdir(parents=True, exist_ok=True)
            write_json(results / f"{name}.json", {**result, "made_with": environment(threads=1)})


@app.command()
def tables(
    results: ResultsFolder = _HERE / "results",
    plots: Annotated[Path, typer.Option()] = _HERE / "plots",
    page: Annotated[Path, typer.Option(help="page with the markers")] = _HERE / "README.md",
) -> None:
    """Derives tables and plots from the JSON."""
    with clear_errors(_console):
        from benchmarks.loop.sweep import load_sweep
        from benchmarks.loop.tables import labelled, read_results, write_plots, write_tables

        sweep = load_sweep()
        found = {name: labelled(result, sweep.labels) for name, result in read_results(results).items()}
        write_tables(page, found, sweep.groups)
        for path in write_plots(plots, found):
            _console.print(f"wrote {path}")


if __name__ == "__main__":
    silence_libraries()
    app(prog_name="python -m benchmarks.loop")
