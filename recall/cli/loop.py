"""Defines the command `recall loop`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recall.cli.options import OutPath, Overrides, console
from recall.runs.console import clear_errors


def loop(
    out: OutPath,
    arms: Annotated[
        str | None,
        typer.Option(help="what fills the feed, e.g. gated,single,trending,oracle,gated+explore=0.1; default: all ten"),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="length of the loop")] = 14,
    users: Annotated[int, typer.Option(min=1)] = 2_000,
    items: Annotated[int, typer.Option(min=1)] = 5_000,
    authors: Annotated[int, typer.Option(min=1)] = 300,
    warm_up: Annotated[int, typer.Option(min=1, help="days of the log before the loop")] = 4,
    seeds: Annotated[int, typer.Option(min=1, help="communities, each met by every arm")] = 5,
    jobs: Annotated[int, typer.Option(min=0, help="arms at once, a process each; 0: in this process")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="of each training, about, however long the log is")] = 300,
    config: Annotated[Path | None, typer.Option(help="experiment file for the models")] = None,
    overrides: Overrides = None,
) -> None:
    """Let models run the feed of a simulated community for days, and compare what comes of it."""
    with clear_errors(console):
        from recall.runs.loop.arms import DEFAULT_ARMS, parse_arms
        from recall.runs.loop.loop import run_loop

        run_loop(
            out, parse_arms(",".join(DEFAULT_ARMS) if arms is None else arms), users=users, items=items, days=days,
            warm_up_days=warm_up, authors=authors, seeds=seeds, jobs=jobs, config=config, overrides=overrides or (),
            steps=steps, console=console,
        )  # fmt: skip
