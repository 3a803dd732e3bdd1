"""python -m benchmarks.serving run | heavy | tables: does the service hold under load, heavy requests and writes?"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.serving.plan import HERE, PLAN, Publisher, load_plan
from recall.core.errors import RecallError
from recall.runs.console import clear_errors, silence_libraries

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
_console = Console(stderr=True, highlight=False)
_NEEDED = ("locust", "psutil", "httpx", "uvicorn", "fastapi")
_RESULTS = HERE / "results"
_BOTH: tuple[Publisher, ...] = ("republished", "rebalanced")


@app.command()
def run(
    small: Annotated[bool, typer.Option("--small", help="the small plan, to see that all runs")] = False,
    minutes: Annotated[float, typer.Option(min=0.01, help="of load, shared by the phases; of each publisher")] = 10,
    publish: Annotated[
        list[str] | None, typer.Option(help="republished, rebalanced; default: one after the other")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="scratch folder: what is served, and logs")] = Path("runs/serving"),
    plan: Annotated[Path, typer.Option("--plan", help="sizes and rates")] = PLAN,
    results: Annotated[
        Path | None, typer.Option("--results", help="folder of the JSON; default: the committed one, of small ones OUT")
    ] = None,
) -> None:
    """Serves, loads, writes, publishes, and judges; on a machine that does nothing else."""
    with clear_errors(_console):
        if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
            raise RecallError(f"{', '.join(missing)} not installed: pip install 'recall-towers[serve,benchmarks]'")
        from benchmarks.serving.load_test import measure, shortcomings

        chosen = [name for name in _BOTH if name in (publish or _BOTH)]
        if unknown := set(publish or ()) - set(_BOTH):
            raise RecallError(f"--publish: expected {' or '.join(_BOTH)}, found {', '.join(sorted(unknown))}")
        folder = out / ("small" if small else "full")
        sizes, problems = load_plan(plan, small=small), list[str]()
        for name in chosen:
            content = measure(
                sizes, minutes=minutes, publish=name, out=folder, console=_console,
                results=results or (folder / "results" if small else _RESULTS),
                command=["python", "-m", "benchmarks.serving", *sys.argv[1:]],
            )  # fmt: skip
            problems += [f"{name}: {problem}" for problem in shortcomings(content)]
        if problems:
            raise RecallError("\n".join(problems))


@app.command()
def heavy(
    run: Annotated[Path, typer.Option("--run", help="a finished run of the simulated community, e.g. runs/demo")],
    before: Annotated[
        Path | None, typer.Option("--before", help="a checkout of the library to compare with, side by side")
    ] = None,
    results: Annotated[Path, typer.Option("--results", help="folder of the JSON")] = _RESULTS / "heavy",
) -> None:
    """Measures requests that cost much: seconds of a core, and the wait of another user beside two of them."""
    with clear_errors(_console):
        from benchmarks.serving.heavy import measure

        content = measure(
            run, before=before, results=results, command=["python", "-m", "benchmarks.serving", *sys.argv[1:]]
        )
        for name, seconds in content["after"]["seconds"].items():
            ratio = f", {content['ratio'][name]:.1f} times faster than before" if before else ""
            _console.print(f"{name}: {seconds:.4f} s of a core{ratio}")
        for name in ("before", "after"):
            if name in content:
                waited = content[name]["another_user_waits_seconds"]
                _console.print(f"another user beside two heavy requests, {name}: {waited:.2f} s")


@app.command()
def tables(
    results: Annotated[Path, typer.Option("--results", help="folder of the JSON")] = _RESULTS,
    readme: Annotated[Path, typer.Option(help="the page with the tables; plots go beside it")] = HERE / "README.md",
) -> None:
    """Derives the tables of README.md and the plots from the results."""
    with clear_errors(_console):
        from benchmarks.common.pages import replace_tables
        from benchmarks.serving.plots import write_plots
        from benchmarks.serving.tables import all_tables, read_results

        found = read_results(results)
        replace_tables(readme, all_tables(found))
        write_plots(readme.parent / "plots", found)


if __name__ == "__main__":
    silence_libraries()
    app(prog_name="python -m benchmarks.serving")
