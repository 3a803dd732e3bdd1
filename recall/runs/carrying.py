"""Lets the index of a run go on from the index of the run before: `recall.index.carry_index`."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Console

from recall.runs.since import Since
from recall.runs.steps import Step


def carry(since: Since | None, index: Step, console: Console, *, catalogue: Collection[str] = ()) -> None:
    """Take over what was added, changed and deleted in yesterday's index since the last call.

    Args:
      since: the run before; without one nothing happens.
      index: the step of today.
      console: is told how many items were changed.
      catalogue: as of `carry_index`.

    Raises:
      ArtifactError: as of `carry_index`.
    """
    if since is None:
        return
    from recall.index import carry_index

    fingerprint = index.inputs["vectors"]
    taken = carry_index(since.run / index.part.name, index.part, fingerprint=fingerprint, catalogue=catalogue)
    if taken:
        console.print(f"index: took over the changes of {taken:,} items from {since.run}")
