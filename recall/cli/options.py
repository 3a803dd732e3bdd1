"""Holds the options that several commands share, and the console for lines that are no result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recall.core.terminal import open_console

console = open_console(stderr=True)

ConfigPath = Annotated[Path, typer.Argument(help="experiment file (YAML)")]


def _in_utf8(path: Path) -> Path:
    """Refuse a directory whose name is no UTF-8: TensorFlow and Arrow open no file in it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{str(path)!a} is no UTF-8; rename the directory, or one above it") from None
    return path


RunPath = Annotated[Path, typer.Option("--run", help="run directory", callback=_in_utf8)]
OutPath = Annotated[Path, typer.Option("--out", help="directory to write", callback=_in_utf8)]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="dotted.key=value, over the experiment file")]
Compare = Annotated[bool, typer.Option("--compare", help="also the other structures, side by side")]
Resume = Annotated[bool, typer.Option("--resume", help="continue at the last checkpoint of a killed training")]
K = Annotated[int, typer.Option("-k", min=1, help="how many candidates")]
How = Annotated[str, typer.Option("--by", help="model, or content: content vectors alone")]
Json = Annotated[bool, typer.Option("--json", help="machine-readable")]
Filter = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="JSON|FILE",
        help='which items may be shown, e.g. \'{"where": [{"column": "category", "in": ["news"]}]}\'',
    ),
]
Cap = Annotated[list[str] | None, typer.Option("--cap", metavar="COLUMN=N", help="at most N items of one value")]
MinColdShare = Annotated[float, typer.Option("--min-cold-share", min=0, max=1, help="share without exposures")]
Fallback = Annotated[bool, typer.Option("--fallback", help="popular and fresh items where the model has no answer")]
