"""Defines the command `recall daily`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from recall.cli.options import ConfigPath, Overrides, console
from recall.runs.console import clear_errors

_REFUSED = 3


def daily(
    config: ConfigPath,
    runs: Annotated[Path, typer.Option(help="folder of the runs, one directory per day")],
    log: Annotated[str, typer.Option(help="files of the log by day, e.g. 'logs/{date}/*.parquet'")],
    overrides: Overrides = None,
    date: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="the day; default: the last one with files")
    ] = None,
    against_trending: Annotated[
        float, typer.Option(min=0, help="publish if recall is at least so many times that of trending")
    ] = 0.8,
    against_before: Annotated[
        float, typer.Option(min=0, help="publish if recall is at least so many times that of the days before")
    ] = 0.8,
    keep: Annotated[int, typer.Option(min=2, help="published runs that stay")] = 7,
) -> None:
    """Take one day: go on from yesterday's run, judge, and publish unless the model is too bad.

    Safe to run twice and to kill. Exit code 3: the day's model was refused, and yesterday's stays published.
    """
    with clear_errors(console):
        from recall.config.experiment import load_config
        from recall.runs.daily.daily import daily as take_day
        from recall.runs.daily.guard import Guard

        result = take_day(
            load_config(config, overrides or ()), runs, log, day=date.date() if date else None,
            guard=Guard(against_trending, against_before), keep=keep, console=console,
        )  # fmt: skip
        console.print(f"{result.run.name}: {result.outcome}", highlight=False)
        for problem in result.problems:
            console.print(f"  {problem}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if result.outcome == "refused":
        raise typer.Exit(_REFUSED)
