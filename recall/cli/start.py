"""Defines the commands around a first run: `init`, `schema` and `doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from recall.cli.options import console
from recall.core.errors import ArtifactError
from recall.core.terminal import open_console
from recall.runs.console import clear_errors

if TYPE_CHECKING:
    from recall.runs.doctor import Finding


def init(
    events: Annotated[str, typer.Option("--events", help="the log: a file, or a glob in quotes")],
    items: Annotated[Path, typer.Option("--items", help="the catalogue, one row an item")],
    users: Annotated[Path | None, typer.Option("--users", help="profiles, one row a user")] = None,
    out: Annotated[Path, typer.Option("--out", help="experiment file to write")] = Path("experiment.yaml"),
    user: Annotated[str | None, typer.Option("--user", metavar="COLUMN", help="of the log: who")] = None,
    item: Annotated[str | None, typer.Option("--item", metavar="COLUMN", help="of the log: what was shown")] = None,
    time: Annotated[str | None, typer.Option("--time", metavar="COLUMN", help="of the log: when")] = None,
    time_unit: Annotated[str | None, typer.Option("--time-unit", help="s, ms, us, ns, iso or order")] = None,
    click: Annotated[str | None, typer.Option("--click", metavar="COLUMN", help="of the log: 1 for a click, or a "
                                              "grade; none: every row is a click")] = None,
    item_id: Annotated[str | None, typer.Option("--item-id", metavar="COLUMN", help="of the catalogue: the id")] = None,
    force: Annotated[bool, typer.Option("--force", help="write over a file that is there")] = False,
) -> None:  # fmt: skip
    """Look at a log and a catalogue, and write a commented experiment file for them.

    Options name columns in the place of guesses. What is not sure is marked `unsure` in the file and in the table.
    """
    with clear_errors(console):
        from recall.config.experiment import load_config
        from recall.config.schema import SCHEMA_FILE, schema_text
        from recall.data.guess.choices import Named
        from recall.data.guess.experiment import guess_experiment
        from recall.data.guess.experiment_text import experiment_text, terminal_rows

        if out.exists() and not force:
            raise ArtifactError(f"{out}: is there already; choose another --out, or write over it with --force")
        named = Named(user=user, item=item, time=time, time_unit=time_unit, click=click, item_id=item_id)
        with console.status("looking at the files ..."):
            guessed = guess_experiment(events, str(items), str(users) if users else None, named=named)
        write_text(out, experiment_text(guessed, folder=out.resolve().parent, name=str(out)))
        write_text(out.parent / SCHEMA_FILE, schema_text())
        load_config(out)
        open_console().print(_table(terminal_rows(guessed), title=f"{out}, guessed from {guessed.looked_at}"))
        console.print(
            f"next: look at what is unsure in {out}, then `recall run {out} --out runs/first`", soft_wrap=True
        )


def _table(rows: list[tuple[str, str, str]], *, title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=box.SIMPLE, pad_edge=False)
    table.add_column(no_wrap=True)
    for _ in range(2):
        table.add_column(overflow="fold")
    for key, value, why in rows:
        table.add_row(key, value, why, style="yellow" if why.startswith("unsure") else None)
    return table


def schema(out: Annotated[Path | None, typer.Option("--out", help="file to write; default: print it")] = None) -> None:
    """Print the JSON Schema of the experiment file, with which editors complete keys and mark mistakes."""
    with clear_errors(console):
        from recall.config.schema import schema_text

        if out is None:
            typer.echo(schema_text(), nl=False)
        else:
            write_text(out, schema_text())
            console.print(f"the schema of the experiment file: {out}")


def doctor(
    run: Annotated[Path | None, typer.Option("--run", help="also look at the parts of this run")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON list")] = False,
) -> None:
    """Say what recall needs, what this machine has, and what to mend. Ends with 1 where something is to be mended."""
    with clear_errors(console):
        from recall.runs.doctor import examine

        with console.status("loading TensorFlow and ScaNN ..."):
            found = examine(run)
        if as_json:
            typer.echo(json.dumps([finding._asdict() for finding in found], indent=2))
        else:
            open_console().print(_findings(found))
    if any(finding.state == "bad" for finding in found):
        raise typer.Exit(1)


def _findings(found: list[Finding]) -> Table:
    table = Table(show_header=False, box=box.SIMPLE, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    styles = {"good": None, "note": "yellow", "bad": "red"}
    for name, state, text in found:
        table.add_row({"good": "ok", "note": "note", "bad": "MEND"}[state], name, escape(text), style=styles[state])
    return table


def write_text(path: Path, text: str) -> None:
    """Write a text file, and its folder where that is not there.

    Raises:
      ArtifactError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"{path}: could not be written ({error}); choose another --out") from error
