"""Chooses the events that are held out: the last ones by time, or each user's last clicks."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recall.core.arrays import Bools, Int32s, Int64s
from recall.core.errors import DataError
from recall.core.ordering import order_of

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = ("train", "validation", "test")
_MAX_CELLS = 1 << 20
_PLACES = 8  # per entry, at most, in a table without gaps


class TimeBoundaries(NamedTuple):
    """Hold where training ends and validation starts, and where test starts, in Unix milliseconds."""

    validation_start_ms: int
    test_start_ms: int


@dataclass(frozen=True)
class TimeHistogram:
    """Count events and clicks per moment; histograms of parts of a log add up to the histogram of the log.

    Exact up to 2^20 distinct times; beyond that on a grid of 2^shift ms, with the smallest shift that fits. How a log
    was cut into parts therefore never shows.

    Attributes:
      shift: a cell covers 2^shift ms.
      cells: int64 [cells], rising; the cell's first ms divided by 2^shift.
      events: int64 [cells].
      clicks: int64 [cells].
    """

    shift: int
    cells: Int64s
    events: Int64s
    clicks: Int64s

    @classmethod
    def of(cls, time_ms: Int64s, click: Bools) -> TimeHistogram:
        """Count events; `time_ms` int64 [events] in any order, `click` bool [events]."""
        return _coarsened(0, time_ms, np.ones(len(time_ms), np.int64), click.astype(np.int64))

    @classmethod
    def merge(cls, parts: Iterable[TimeHistogram]) -> TimeHistogram:
        """Add up the histograms of parts, one at a time."""
        nothing = np.zeros(0, np.int64)
        return functools.reduce(cls._plus, parts, cls(0, nothing, nothing, nothing))

    def _plus(self, other: TimeHistogram) -> TimeHistogram:
        both = (self, other)
        shift = max(part.shift for part in both)
        cells = np.concatenate([part.cells >> (shift - part.shift) for part in both])
        events, clicks = (np.concatenate([getattr(part, name) for part in both]) for name in ("events", "clicks"))
        return _coarsened(shift, cells, events, clicks)

    @classmethod
    def from_table(cls, table: pa.Table) -> TimeHistogram:
        """Read the result of `table`."""
        shift = int(table.schema.metadata[b"shift"])
        return cls(shift, *(table[name].to_numpy() for name in ("cell", "events", "clicks")))

    def table(self) -> pa.Table:
        """Make a table with columns cell, events, clicks; the shift is in the metadata."""
        columns = {"cell": self.cells, "events": self.events, "clicks": self.clicks}
        return pa.table(columns, metadata={"shift": str(self.shift)})

    def boundaries(self, *, validation: float, test: float, end_ms: int | None = None) -> TimeBoundaries:
        """Find where the last `test` of the events begin, and the `validation` before them.

        Numbers from 1 on are durations in ms: they count back from the end of the log, whose last moment is included.

        With n events in order of time, validation starts at the time of event floor(n (1 - validation - test)),
        counted from 0, and test at that of event floor(n (1 - test)). The fractions are taken as the decimals that
        they are written as.

        Args:
          validation: fraction of the events, or ms.
          test: the same.
          end_ms: the last moment of the log; default: of the last event.

        Raises:
          DataError: a part would be empty or without a click.
        """
        if test >= 1:
            return self._last(int(validation), int(test), end_ms=end_ms)
        total = int(self.events.sum())
        held_out = Fraction(str(test)), Fraction(str(validation)) + Fraction(str(test))
        test_rank, validation_rank = (math.floor(total * (1 - share)) for share in held_out)
        ends = np.cumsum(self.events)
        starts = self.cells[np.searchsorted(ends, [validation_rank, test_rank], side="right")]
        self._check(int(starts[0]), int(starts[1]))
        return TimeBoundaries(int(starts[0]) << self.shift, int(starts[1]) << self.shift)

    def boundaries_after(self, end_ms: int, *, validation: float, test: float) -> TimeBoundaries:
        """Divide the events after the end of an earlier log in the ratio of validation and test.

        Args:
          end_ms: the last moment of the earlier log.
          validation: fraction or duration, as of `boundaries`.
          test: the same.

        Raises:
          DataError: there are no later events, or a part would be without a click.
        """
        later = np.flatnonzero(self.cells > end_ms >> self.shift)
        if not len(later):
            raise DataError(
                f"the new files hold no event after {end_ms} ms, where the run that this one goes on from ended; a log "
                "that goes on has later events"
            )
        ends = np.cumsum(self.events[later])
        first, second = Fraction(str(validation)), Fraction(str(test))
        rank = math.floor(int(ends[-1]) * first / (first + second))
        starts = self.cells[later[0]], self.cells[later[np.searchsorted(ends, rank, side="right")]]
        part = np.searchsorted(starts, self.cells, side="right")
        for code, name in ((VALIDATION, "the part that chooses the cold bias"), (TEST, "the part that judges")):
            events, clicks = int(self.events[part == code].sum()), int(self.clicks[part == code].sum())
            if not clicks:
                raise DataError(
                    f"{int(ends[-1]):,} events came after the end of the run that this one goes on from, and {name} "
                    f"has {events:,} of them without a click; go on when there are more"
                )
        return TimeBoundaries(int(starts[0]) << self.shift, int(starts[1]) << self.shift)

    def _last(self, validation_ms: int, test_ms: int, *, end_ms: int | None) -> TimeBoundaries:
        end_ms = int(self.cells[-1]) << self.shift if end_ms is None else end_ms
        test_start = -(-(end_ms + 1 - test_ms) >> self.shift)  # the first cell that begins in the period
        validation_start = -(-(end_ms + 1 - test_ms - validation_ms) >> self.shift)
        self._check(validation_start, test_start)
        return TimeBoundaries(validation_start << self.shift, test_start << self.shift)

    def training_counts(self, boundaries: TimeBoundaries) -> tuple[int, int]:
        """Count events and clicks before validation starts."""
        part = self.cells < (boundaries.validation_start_ms >> self.shift)
        return int(self.events[part].sum()), int(self.clicks[part].sum())

    def _check(self, validation_start: int, test_start: int) -> None:
        first, last = (int(cell) << self.shift for cell in (self.cells[0], self.cells[-1]))
        if first == last:
            raise DataError(
                f"all {int(self.events.sum()):,} events happen in one moment ({first} ms), so a split by time has "
                "nothing to hold out; check data.events.time and time_unit, or use split: {by: last_click}"
            )
        part = np.searchsorted([validation_start, test_start], self.cells, side="right")
        for code, name in enumerate(SPLITS):
            events, clicks = int(self.events[part == code].sum()), int(self.clicks[part == code].sum())
            if not clicks:
                why = "the log is too small or too many share one time"
                what = f"no click among its {events:,} events" if events else f"no event, as {why}"
                raise DataError(
                    f"split by time: {name} has {what} (the log spans {first} to {last} ms); change validation and "
                    "test in data.split, check data.events.click and time_unit, or use split: {by: last_click}"
                )


def _coarsened(shift: int, cells: Int64s, events: Int64s, clicks: Int64s) -> TimeHistogram:
    if not len(cells):
        return TimeHistogram(shift, cells, events, clicks)
    if (dense := _coarsened_densely(shift, cells, events, clicks)) is not None:
        return dense
    order = order_of(cells)
    cells = cells[order]
    # Neighbours fall into one cell once all bits in which they differ are shifted out.
    differing = (cells[1:] ^ cells[:-1]).view(np.uint64)
    coarser = next(bits for bits in range(64) if np.count_nonzero(differing >> np.uint64(bits)) < _MAX_CELLS)
    starts = np.flatnonzero(np.append(True, differing >> np.uint64(coarser)))
    totals = (np.add.reduceat(counts[order], starts) for counts in (events, clicks))
    return TimeHistogram(shift + coarser, cells[starts] >> coarser, *totals)


def _coarsened_densely(shift: int, cells: Int64s, events: Int64s, clicks: Int64s) -> TimeHistogram | None:
    """Merge cells in an array over all cells from first to last; None if it were much longer than the entries."""
    first, last = int(cells.min()), int(cells.max())
    if len(cells) <= _MAX_CELLS and last - first >= _MAX_CELLS:
        return None  # each time may have a cell of its own
    # So coarse that the cells cannot be too many; then finer, as long as those that are used are not.
    coarser = next(bits for bits in range(64) if (last >> bits) - (first >> bits) < _MAX_CELLS)
    place = (cells >> coarser) - (first >> coarser)
    while coarser:
        low, high = first >> (coarser - 1), last >> (coarser - 1)
        if high - low >= _PLACES * len(cells):
            return None
        finer = (cells >> (coarser - 1)) - low
        used = np.zeros(high - low + 1, bool)
        used[finer] = True
        if np.count_nonzero(used) > _MAX_CELLS:
            break
        coarser, place = coarser - 1, finer
    # bincount adds in float64, which is exact up to 2^53 events.
    totals = [np.bincount(place, counts).astype(np.int64) for counts in (events, clicks)]
    filled = np.flatnonzero(totals[0])
    return TimeHistogram(shift + coarser, filled + (first >> coarser), totals[0][filled], totals[1][filled])


def split_by_time(time_ms: Int64s, boundaries: TimeBoundaries) -> npt.NDArray[np.int8]:
    """Assign splits by time, int8 [events]: 0 before validation starts, 1 before test starts, else 2."""
    return np.searchsorted(np.array(boundaries), time_ms, side="right").astype(np.int8)


def split_by_last_click(user: Int32s, click: Bools) -> npt.NDArray[np.int8]:
    """Hold out the last two clicks of users with at least three.

    Args:
      user: int32 [events], codes of users, rising; the events of a user are in order.
      click: bool [events].

    Returns:
      int8 [events]: 2 from a user's last click on, 1 from the one before it on, 0 otherwise.
    """
    if not len(user):
        return np.zeros(0, np.int8)
    clicks = np.bincount(user, weights=click).astype(np.int64)  # [users]
    before = np.cumsum(click)  # clicks so far, this event included
    earlier = np.cumsum(clicks) - clicks
    left = clicks[user] - (before - earlier[user])  # clicks of the user still to come
    split = np.select([left == 0, left == 1], [TEST, VALIDATION], default=TRAIN)
    return np.where(clicks[user] >= 3, split, TRAIN).astype(np.int8)
