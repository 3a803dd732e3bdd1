"""Defines the commands that take the steps of a run, and `compare`, which sets their results side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recall.cli.options import Compare, ConfigPath, Json, OutPath, Overrides, Resume, RunPath, console
from recall.core.terminal import open_console
from recall.runs.console import clear_errors

if TYPE_CHECKING:
    from recall.runs.run import Run


def run(
    config: ConfigPath,
    out: OutPath,
    overrides: Overrides = None,
    compare: Compare = False,
    resume: Resume = False,
    track: Annotated[str | None, typer.Option(help="write the run into MLflow: mlflow, or mlflow:URI")] = None,
    since: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="finished run to go on from: read and learn what is new"),
    ] = None,
) -> None:
    """Take all steps: prepare, train, refit, vectors, index, evaluate, report."""
    with clear_errors(console):
        from recall.config.experiment import load_config
        from recall.runs.run import Run

        experiment = load_config(config, overrides or ())
        Run(experiment, out, console=console, since=since).all(compare=compare, resume=resume, track=track)


def prepare(
    run: RunPath,
    config: Annotated[Path | None, typer.Option(help="experiment file; default: the run's own")] = None,
    overrides: Overrides = None,
) -> None:
    """Make point-in-time training data from the log."""
    with clear_errors(console):
        from recall.config.experiment import load_config
        from recall.runs.run import Run

        settings = load_config(config, overrides or ()) if config else _open(run, overrides or ()).config
        Run(settings, run, console=console).prepare()


def train(run: RunPath, compare: Compare = False, resume: Resume = False) -> None:
    """Train the model on the training data."""
    with clear_errors(console):
        _open(run).train(compare=compare, resume=resume)


def refit(run: RunPath, resume: Resume = False) -> None:
    """Train what is served on the whole log, where training.refit asks for it."""
    with clear_errors(console):
        _open(run).refit(resume=resume)


def vectors(run: RunPath) -> None:
    """Encode every item as a vector."""
    with clear_errors(console):
        _open(run).vectors()


def evaluate(run: RunPath, compare: Compare = False) -> None:
    """Evaluate models and baselines; write metrics.json."""
    with clear_errors(console):
        _open(run).evaluate(compare=compare)


def report(run: RunPath) -> None:
    """Draw the results so far as report.html."""
    with clear_errors(console):
        _open(run).report()


def compare(
    run: Annotated[Path, typer.Argument(help="run directory")],
    second: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="another run on the same examples")] = None,
    metric: Annotated[str, typer.Option(help="recall@K, hit_rate@K, ndcg@K with any K, or mrr")] = "recall@50",
    split: Annotated[str, typer.Option(help="test or validation")] = "test",
    model: Annotated[str | None, typer.Option(help="of the first run; default: its configured model")] = None,
    other: Annotated[str | None, typer.Option(help="what it is held against; default: the second run's configured "
                                                   "model, or with one run every other model of it")] = None,
    rolling: Annotated[bool, typer.Option("--rolling", help="items made again as the period goes on")] = False,
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="runs that share only some examples")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Compare models: which is better, and could that be chance? Two runs, or the models of one."""
    with clear_errors(console):
        from recall.evaluation.comparison import compare_runs
        from recall.runs.console import comparison_table

        with console.status("comparing ..."):
            comparisons = compare_runs(
                run, second, metric=metric, split=split, model=model, other=other, rolling=rolling,
                allow_partial=allow_partial,
            )  # fmt: skip
        if as_json:
            records = [comparison.record() for comparison in comparisons]
            about = {"metric": metric, "split": split, "rolling": rolling}
            typer.echo(json.dumps({**about, "comparisons": records}, ensure_ascii=False))
            return
        for comparison in comparisons:
            name = f"rolling {metric}" if rolling else metric
            open_console().print(comparison_table(comparison, metric=name, split=split))


def _open(directory: Path, overrides: Sequence[str] = ()) -> Run:
    from recall.runs.run import Run

    return Run.open(directory, overrides, console=console)
