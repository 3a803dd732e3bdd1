"""Defines the commands that come before a first run: `schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recall.cli.options import console
from recall.core.errors import ArtifactError
from recall.runs.console import clear_errors


def schema(out: Annotated[Path | None, typer.Option("--out", help="file to write; default: print it")] = None) -> None:
    """Print the JSON Schema of the experiment file, with which editors complete keys and mark mistakes."""
    with clear_errors(console):
        from recall.config.schema import schema_text

        if out is None:
            typer.echo(schema_text(), nl=False)
        else:
            write_text(out, schema_text())
            console.print(f"the schema of the experiment file: {out}")


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
