"""Defines `recall index`: builds the index of a run, and lists, restores and removes its versions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from recall.cli.options import Json, RunPath, console
from recall.core.terminal import open_console
from recall.runs.console import clear_errors

if TYPE_CHECKING:
    from recall.index import Version

index_app = typer.Typer(invoke_without_command=True)

_SHOWN = 12  # digits of a fingerprint: a line fits into 80 columns


@index_app.callback()
def index(
    context: typer.Context, run: Annotated[Path | None, typer.Option("--run", help="run directory")] = None
) -> None:
    """Build the index from vectors; with a command: list, roll back or remove its versions."""
    if context.invoked_subcommand is not None:
        return
    if run is None:
        context.fail("Missing option '--run'.")
    with clear_errors(console):
        from recall.runs.run import Run

        Run.open(run, (), console=console).index()


@index_app.command("list")
def list_(run: RunPath, as_json: Json = False) -> None:
    """List the versions: when each was made, of what, how good it is, and whether it belongs to the model."""
    with clear_errors(console):
        from recall.index import list_versions

        versions, model = list_versions(run / "index"), _fingerprint(run)
        if as_json:
            records = [
                {**dataclasses.asdict(version), "of_this_model": version.fingerprint == model} for version in versions
            ]
            typer.echo(json.dumps({"model": model, "versions": records}, ensure_ascii=False))
            return
        open_console().print(_table(versions, model=model))


@index_app.command()
def rollback(
    run: RunPath,
    to: Annotated[str | None, typer.Option(help="number of the version; default: the one before the current")] = None,
) -> None:
    """Make an earlier version the current one, after checking every byte of it."""
    with clear_errors(console):
        from recall.index import roll_back

        number = roll_back(run / "index", fingerprint=_fingerprint(run), to=to)
        console.print(f"version {number} is current; what serves another one takes it when it loads again")


@index_app.command()
def gc(
    run: RunPath,
    keep: Annotated[int, typer.Option(min=1, help="how many of the newest versions stay, beside the current")] = 2,
) -> None:
    """Remove old versions and the remains of killed saves; never the current version."""
    with clear_errors(console):
        from recall.index import collect

        removed = collect(run / "index", keep=keep)
        names = ", ".join(removed.versions) or "no version"
        leftovers = f" and {removed.leftovers} half-written" if removed.leftovers else ""
        console.print(f"removed {names}{leftovers}: {_megabytes(removed.bytes)} freed")


@index_app.command("new-journal")
def new_journal_(run: RunPath) -> None:
    """Put a lost or damaged journal aside, and go on without the upserts and deletes that no version holds."""
    with clear_errors(console):
        from recall.index import new_journal

        begun = new_journal(run / "index")
        aside = "there was none" if begun.put_aside is None else f"the old one is in {begun.put_aside}"
        lost = "an unknown number of" if begun.given_up is None else f"{begun.given_up:,}"
        console.print(f"a new journal goes on from version {begun.version}; {aside}; {lost} later changes are given up")


def _fingerprint(run: Path) -> str:
    from recall.core.artifacts import read_manifest

    return str(read_manifest(run / "model", made_by=f"recall train --run {run}")["fingerprint"])


def _table(versions: list[Version], *, model: str) -> Table:
    table = Table(
        caption="* is current; created in UTC; recall is against exact search, as measured when the version was built",
        caption_justify="left", box=box.SIMPLE, pad_edge=False,
    )  # fmt: skip
    for name in ("version", "created", "items", "kind", "recall", "model", "size"):
        is_number = name in ("items", "recall", "size")
        # On a narrow terminal words fold, and numbers stay whole.
        table.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for version in versions:
        whose = f"{(version.fingerprint or '-')[:_SHOWN]}{'' if version.fingerprint == model else ' (another)'}"
        table.add_row(
            f"{version.number}{' *' if version.is_current else ''}",
            (version.created or "-")[:16].replace("T", " "),
            "-" if version.items is None else f"{version.items:,}",
            f"{version.kind or '-'}{' (damaged)' if version.problem else ''}",
            "-" if version.recall is None else f"{version.recall:.4f}",
            whose,
            _megabytes(version.bytes),
        )
    return table


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
