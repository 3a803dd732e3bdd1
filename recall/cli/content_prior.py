"""`recall content prior`: is the content prior of a prepared run any good?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from recall.core.errors import ArtifactError
from recall.runs.console import clear_errors

_MEASURES = ("predicted", "calibration_error", "auc")


def prior(
    run: Annotated[Path, typer.Option("--run", help="run directory, prepared with a content prior")],
    as_json: Annotated[bool, typer.Option("--json", help="machine-readable")] = False,
) -> None:
    """Does the content prior know which items will be clicked? On items' first exposures in the held-out periods.

    Needs `data.posterior.content_prior.enabled: true`; no model. Calibration, AUC and log loss, beside those of one
    prior for all items and, as a ceiling, of what later became of the same items.
    """
    console = Console(stderr=True, highlight=False)
    with clear_errors(console):
        from recall.content.judge.prior_judge import judge_content_prior
        from recall.data.prepared import PreparedData
        from recall.runs.run import Run

        first_exposures = Run.open(run).config.data.posterior.content_prior.first_exposures
        if not (run / "data").exists():
            raise ArtifactError(f"{run / 'data'}: not there yet; run `recall prepare --run {run}` first")
        with console.status("judging the content prior ..."):
            found = judge_content_prior(PreparedData.load(run / "data"), first_exposures=first_exposures)
        if as_json:
            typer.echo(json.dumps(found))
            return
        Console(highlight=False).print(prior_table(found))


def prior_table(found: Mapping[str, Any]) -> Table:
    """A row per period, part and prior."""
    table = Table(
        title=f"content prior on items' first {found['first_exposures']:,} exposures",
        title_justify="left",
        caption="new: without any exposure when the period began. followed: with exposures after these, whose CTR "
        "(later) is the ceiling. CTR: observed. error: expected calibration error, by tenths.",
        caption_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    table.add_column("on", overflow="fold")
    table.add_column("items", justify="right")
    table.add_column("prior")
    for name in ("CTR", "predicted", "error", "AUC"):
        table.add_column(name, justify="right")
    for period in ("validation", "test"):
        for part, judged in found[period].items():
            about = [f"{period}, {part}", f"{judged['items']:,}"]
            if not judged["items"]:
                table.add_row(*about)
            for name in ("content", "global", "later"):
                if name in judged:
                    measured = (judged["observed"], *(judged[name][key] for key in _MEASURES))
                    numbers = ("-" if number is None else f"{number:.4f}" for number in measured)
                    table.add_row(*about, name, *numbers)
                    about = ["", ""]
    return table
