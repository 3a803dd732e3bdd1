"""Finds which days a log has: a pattern with `{date}`, such as logs/{date}/*.parquet."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from datetime import date, timedelta

from recall.core.errors import ConfigError, DataError

_PLACE = "{date}"
_DATE = r"(\d{4}-\d{2}-\d{2})"


@dataclass(frozen=True)
class DatedLog:
    """Hold the pattern of a log whose files lie by date.

    Attributes:
      pattern: path or glob with one `{date}`, which stands for YYYY-MM-DD.
    """

    pattern: str

    def __post_init__(self) -> None:
        if self.pattern.count(_PLACE) != 1:
            raise ConfigError(
                f"--log {self.pattern}: expected one {_PLACE} in the place of YYYY-MM-DD, as in logs/{_PLACE}/*.parquet"
            )

    def dates(self) -> list[date]:
        """List the dates for which there are files, in order."""
        head, tail = self.pattern.split(_PLACE)
        found = glob.glob(f"{head}[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]{tail}", recursive=True)
        # What follows the date may match anything, so that the first match of the head decides.
        depth = len(head.split("/")) - 1
        named = (re.search(_DATE, path.split("/")[depth]) for path in found)
        return sorted({parsed for match in named if match and (parsed := _parsed(match[1]))})

    def of(self, days: list[date]) -> str:
        """Return the pattern of the files of some days, as `data.events.path` reads it: `{one,two}`.

        Raises:
          DataError: there is no day.
        """
        if not days:
            raise DataError(f"--log {self.pattern}: matches no file")
        names = [day.isoformat() for day in days]
        return self.pattern.replace(_PLACE, names[0] if len(names) == 1 else "{" + ",".join(names) + "}")

    def until(self, day: date) -> list[date]:
        """List the dates of files up to a day, which has some itself.

        Raises:
          DataError: the day has no file.
        """
        days = self.dates()
        if day not in days:
            there = f"the last one with files is {days[-1]}" if days else "no date has any"
            raise DataError(f"--log {self.pattern}: no file of {day}; {there}")
        return [found for found in days if found <= day]


def since(days: list[date], last: date, *, late_ms: int) -> list[date]:
    """Keep the days whose files a run may not have read: after `last`, and before it as far as events come late.

    Args:
      days: dates with files.
      last: date of the run to go on from.
      late_ms: how late events may come.
    """
    first = last - timedelta(days=1 + late_ms // 86_400_000)
    return [day for day in days if day >= first]


def _parsed(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
