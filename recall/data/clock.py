"""Judges the times of a log: a unit that does not fit them, and events of clocks that are wrong.

A look at the first rows decides what is believed (`look_at_log`) -> `events.py` sets other events aside.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from recall.config.data import EventsConfig
from recall.core.arrays import Bools, Int64s
from recall.core.canonical import Column
from recall.core.errors import DataError
from recall.core.first_rows import first_rows
from recall.core.tables import is_uri
from recall.core.times import TimeUnit, parse_times

_1980_MS, _1990_MS = 315_532_800_000, 631_152_000_000
# How far a clock of another zone, or one that is a little fast, may be ahead of the moment of the run.
AHEAD_MS = 86_400_000
MS_PER_UNIT = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
_MIN_ROWS = 20
_PIECES, _ROWS = 8, 10_000
_MIN_EVENTS, _GAP_MS = 100, 30 * 86_400_000
TOO_LATE, TOO_EARLY = "time is in the future", "time is before 1980"
SETTLED = "came too late: its time is before the kept tail of the log (data.tail)"


class Clock(NamedTuple):
    """Hold what the times of events are judged by.

    Attributes:
      now_ms: the moment of the run; an event that comes more than a day later is not believed.
      is_calendar: whether the log is of our days, so that an event before 1980 is not believed: there lie zeros, and
        clocks that were never set. A simulated log may count from a moment of its own.
      settled_ms: an event before this moment came too late for a run that goes on; None for one that starts anew.
    """

    now_ms: int
    is_calendar: bool
    settled_ms: int | None = None

    @classmethod
    def of(cls, ms: Int64s, *, now_ms: int) -> Clock:
        """Judge by the times of some events, int64 [events], and the moment of the run."""
        return cls(now_ms, len(ms) > 0 and bool(_1990_MS <= np.median(ms) <= now_ms + AHEAD_MS))

    def faults(self, ms: Int64s) -> list[tuple[str, Bools]]:
        """Mark the times that are not believed, by reason: bool [events] each."""
        found = [(TOO_LATE, ms > self.now_ms + AHEAD_MS)]
        found += [(TOO_EARLY, ms < _1980_MS)] if self.is_calendar else []
        return found if self.settled_ms is None else [*found, (SETTLED, ms < self.settled_ms)]


def look_at_log(pieces: Sequence[tuple[str, int]], events: EventsConfig, *, now_ms: int, section: str) -> Clock | None:
    """Look at the first times of some pieces of a log, spread over all of it.

    Args:
      pieces: file and first row group of each piece. Files given by URI are passed over.
      events: names and meaning of the columns.
      now_ms: the moment of the run.
      section: section of the experiment file that names the columns.

    Returns:
      What is believed; None for a log without a clock.

    Raises:
      DataError: the times fit another unit.
    """
    if events.time_unit == "order":
        return None
    local = [piece for piece in pieces if not is_uri(piece[0])]
    chosen = {round(place) for place in np.linspace(0, len(local) - 1, _PIECES)} if local else set()
    found = []
    for path, row_group in (local[place] for place in sorted(chosen)):
        column = first_rows(path, events.time, rows=_ROWS, format=events.format, row_group=row_group)
        times = parse_times(column, events.time_unit, time_zone=events.time_zone)
        ms = times.ms[~(times.missing | times.unreadable)]
        require_unit(ms, column, events, now_ms=now_ms, where=f"{section}.time: {path}")
        found.append(ms)
    ms = np.concatenate([np.zeros(0, np.int64), *found])
    if len(ms):  # of small files, too
        require_unit(ms, column, events, now_ms=now_ms, where=f"{section}.time: {events.path}", rows=1)
    return Clock.of(ms, now_ms=now_ms)


def require_unit(
    ms: Int64s, column: Column, events: EventsConfig, *, now_ms: int, where: str, rows: int = _MIN_ROWS
) -> None:
    """Refuse times that another unit puts into our days, and the given one does not.

    Args:
      ms: int64 [events], times read in the unit of `events`.
      column: the column that they were read from.
      events: the unit.
      now_ms: the moment of the run.
      where: the setting and the file, for the error.
      rows: with fewer events nothing is said.

    Raises:
      DataError: names both units and the days that each of them gives.
    """
    typed = pa.types.is_temporal(column.type)
    if len(ms) < rows or (events.time_unit == "iso" and not typed):
        return
    if typed:
        factor = next((f for f in (1e3, 1e6, 1e9, 1e-3, 1e-6) if _fits(ms, f, now_ms=now_ms)), None)
        if factor is not None:
            raise DataError(
                f"{where}: its {column.type} values lie {span_text(ms)}, and times {factor:g} "
                f"{span_text(ms, factor)}: they were made from numbers in another unit; write the file again"
            )
    elif unit := fitting_unit(ms, events.time_unit, now_ms=now_ms):
        factor = MS_PER_UNIT[unit] / MS_PER_UNIT[events.time_unit]
        raise DataError(
            f"{where}: time_unit: {events.time_unit} puts its times {span_text(ms)}, and time_unit: {unit} "
            f"{span_text(ms, factor)}; set time_unit: {unit} (times that do count from another moment than 1970 can be "
            "shifted by a constant)"
        )


def fitting_unit(ms: Int64s, unit: TimeUnit, *, now_ms: int) -> TimeUnit | None:
    """Find the unit that puts times into our days where the given one does not; None where there is no such unit.

    Args:
      ms: int64 [events], times read in the given unit.
      unit: s, ms, us or ns.
      now_ms: the moment of the run.
    """
    units: tuple[TimeUnit, ...] = ("s", "ms", "us", "ns")
    return next((other for other in units if _fits(ms, MS_PER_UNIT[other] / MS_PER_UNIT[unit], now_ms=now_ms)), None)


def _fits(ms: Int64s, factor: float, *, now_ms: int) -> bool:
    """Tell whether nearly all times multiplied by a factor lie between 1990 and tomorrow, and most as they are not."""
    low, middle, high = np.quantile(ms.astype(np.float64), [0.05, 0.5, 0.95])
    latest = now_ms + AHEAD_MS
    return not _1980_MS <= middle <= latest and low * factor >= _1990_MS and high * factor <= latest


def span_text(ms: Int64s, factor: float = 1.0) -> str:
    """Say the days of nearly all times, multiplied by a factor."""
    low, high = (date_text(int(value)) for value in np.quantile(ms * factor, [0.05, 0.95]))
    return f"on {low}" if low == high else f"between {low} and {high}"


def date_text(ms: int) -> str:
    """Write the day of a moment, or its year where that has more than four digits."""
    try:
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=ms)
    except OverflowError:
        return f"the year {1970 + ms // 31_556_952_000:,}"
    return f"{moment:%Y-%m-%d}"


def events_per_bucket(buckets: Int64s, events: Int64s) -> tuple[Int64s, Int64s]:
    """Add up events, int64 [n], of equal buckets, int64 [n]; returns the buckets, rising, and the events of each."""
    filled, place = np.unique(buckets, return_inverse=True)
    return filled, np.bincount(place, events, minlength=len(filled)).astype(np.int64)


def end_of_log(buckets: Int64s, events: Int64s, *, bucket_ms: int, last_ms: int) -> tuple[int, int]:
    """Find the end of a log, passing over a few events that a clock which is far ahead has written.

    Ages of items and filters count from the end of the log, so that a single click of a wrong clock would make every
    item old. It is passed over where, at most, one event in a thousand comes after a gap of 30 days or more that is
    longer than all the log before the gap.

    Args:
      buckets: int64 [n], numbers of buckets in any order, repeats among them.
      events: int64 [n], events of each.
      bucket_ms: length of a bucket.
      last_ms: time of the last event.

    Returns:
      Unix milliseconds of the end, and the number of events after it.
    """
    filled, counts = events_per_bucket(buckets, events)
    total = int(counts.sum())
    if total < _MIN_EVENTS:
        return last_ms, 0
    after = total - np.cumsum(counts)[:-1]  # [gaps]
    gaps, spans = np.diff(filled) * bucket_ms, (filled[:-1] - filled[0] + 1) * bucket_ms
    far = (after <= max(1, total // 1_000)) & (gaps > np.maximum(spans, _GAP_MS))
    if not far.any():
        return last_ms, 0
    first = int(np.argmax(far))
    return int(filled[first] + 1) * bucket_ms - 1, int(after[first])
