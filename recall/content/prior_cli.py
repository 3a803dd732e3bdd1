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

from recall.console import clear_errors
from recall.errors import ArtifactError


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
        from recall.content.prior_judge import judge_content_prior
        from recall.prepared import PreparedData
        from recall.run import Run

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
        "(later) is the ceiling. error: expected calibration error by tenths.",
        caption_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    for name in ("period", "items", "prior"):
        table.add_column(name, overflow="fold")
    for name in ("count", "exposures", "observed", "predicted", "error", "AUC", "log loss"):
        table.add_column(name, justify="right")
    for period in ("validation", "test"):
        for part, judged in found[period].items():
            if not judged["items"]:
                table.add_row(period, part, "-", "0")
            for name in ("content", "global", "later"):
                if name in judged:
                    table.add_row(period, part, name, *_numbers(judged, judged[name]))
    return table


def _numbers(judged: Mapping[str, Any], of_prior: Mapping[str, Any]) -> list[str]:
    auc = of_prior["auc"]
    rates = (judged["observed"], of_prior["predicted"], of_prior["calibration_error"])
    return [
        f"{judged['items']:,}",
        f"{judged['exposures']:,.0f}",
        *(f"{rate:.4f}" for rate in rates),
        "-" if auc is None else f"{auc:.4f}",
        f"{of_prior['log_loss']:.4f}",
    ]
