"""A process that publishes the index of the catalogue again and again, as `recall index` does after each training.

Building takes place once, elsewhere: `python -m benchmarks.serving.publisher SOURCE TARGET --every SECONDS`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from recall.index.saved.store import load_current, save_index


def publish(
    source: Annotated[Path, typer.Argument(help="index of the catalogue")],
    target: Annotated[Path, typer.Argument(help="index of the run that is served")],
    every: Annotated[float, typer.Option(help="seconds")],
) -> None:
    """Publishes until it is terminated."""
    version = load_current(source)
    print("ready", flush=True)
    due = time.monotonic()
    while True:
        due = max(due + every, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        save_index(version.index, target, fingerprint=version.fingerprint, journal_through=version.journal_through)


if __name__ == "__main__":
    typer.run(publish)
