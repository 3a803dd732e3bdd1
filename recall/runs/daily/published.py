"""Keeps account of the runs of a folder: which day each is of, which one is published, which may go.

RUNS/2024-01-07/             a run, and daily.json once its day is decided
RUNS/current                 a link to the published run, exchanged in one step
"""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from recall.core.artifacts import read_json, write_json

_DECIDED, _CURRENT = "daily.json", "current"


@dataclass(frozen=True)
class Day:
    """Hold a day whose run was decided about.

    Attributes:
      day: the date.
      run: its directory.
      is_published: whether it became the current one.
      about: content of its daily.json.
    """

    day: date
    run: Path
    is_published: bool
    about: dict[str, Any]


class RunsByDay:
    """Look after the runs of a folder.

    Args:
      folder: holds a directory per day.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run_of(self, day: date) -> Path:
        """Return the directory of a day's run."""
        return self.folder / day.isoformat()

    def decided(self) -> list[Day]:
        """List the days that were decided about, in order."""
        found = []
        for path in sorted(self.folder.glob(f"????-??-??/{_DECIDED}")):
            about = read_json(path)
            found.append(Day(date.fromisoformat(path.parent.name), path.parent, bool(about["published"]), about))
        return found

    def last_published(self, before: date) -> Day | None:
        """Return the latest published day before another one; None where there is none."""
        return next((day for day in reversed(self.decided()) if day.is_published and day.day < before), None)

    def decide(self, day: date, about: dict[str, Any], *, publish: bool) -> None:
        """Write down what was decided about a day, and let `current` be its run if it is published.

        The link comes first: killed in between, the day is decided about again, and in the same way.
        """
        run = self.run_of(day)
        if publish:
            link = self.folder / f".{_CURRENT}.{uuid.uuid4().hex[:8]}"
            link.symlink_to(run.name, target_is_directory=True)
            os.replace(link, self.folder / _CURRENT)
        write_json(run / _DECIDED, {**about, "published": publish})

    def collect(self, *, keep: int) -> list[Path]:
        """Remove old runs: of the published ones the latest `keep` stay, and whatever is not older than these.

        Returns:
          The removed directories.
        """
        for link in self.folder.glob(f".{_CURRENT}.*"):
            link.unlink()  # of a killed process
        published = [day for day in self.decided() if day.is_published]
        if len(published) <= keep:
            return []
        oldest = published[-keep].day
        old = [day.run for day in self.decided() if day.day < oldest]
        for run in old:
            gone = run.with_name(f".{run.name}.old")
            os.replace(run, gone)  # a directory that is half removed is no run
            shutil.rmtree(gone)
        return old
