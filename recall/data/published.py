"""Reads when items were published: no service could recall an item before."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from recall.config.data import DataConfig
from recall.core.arrays import Int64s
from recall.core.canonical import Column
from recall.core.errors import DataError, shown
from recall.core.times import parse_times
from recall.data.clock import MS_PER_UNIT, fitting_unit, span_text
from recall.data.event_counts import NEVER_MS
from recall.data.posterior import PosteriorHistory

ALWAYS_MS = np.iinfo(np.int64).min
"""Stands for an item without a time of publication: it counts as published before everything."""


def published_times(column: Column, data: DataConfig) -> Int64s:
    """Read `data.items.published`.

    Args:
      column: the column, [items]: numbers in the unit of the log, timestamps, or text of either kind.
      data: names the column, and the unit and time zone of the log.

    Returns:
      int64 [items], Unix milliseconds; `ALWAYS_MS` where the file has none.

    Raises:
      DataError: a value is no time; says how many are not, and shows one.
    """
    unit, time_zone = data.events.time_unit, data.events.time_zone
    times = parse_times(column, unit, time_zone=time_zone)
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if is_text and times.unreadable.any():
        times = parse_times(column, "iso", time_zone=time_zone)
    if (bad := np.flatnonzero(times.unreadable)).size:
        raise DataError(
            f"data.items.published: {len(bad):,} of {len(column):,} values of column {data.items.published} are no "
            f"times, e.g. {shown(repr(column[int(bad[0])].as_py()))}; expected times in the unit of the log "
            f"(data.events.time_unit: {unit}), like 2024-01-31T12:00:00, or nothing where it is not known"
        )
    return np.where(times.missing, ALWAYS_MS, times.ms)


def require_unit_of_log(published_ms: Int64s, column: Column, data: DataConfig, *, now_ms: int) -> None:
    """Refuse numbers that lie outside of our days in the unit of the log, and within them in another unit.

    A log in milliseconds and a catalogue in seconds would have every item published in January 1970: always there.

    Args:
      published_ms: result of `published_times`.
      column: the column that they were read from. Timestamps and text of days say what they mean.
      data: as for `published_times`; a log without a clock has no days.
      now_ms: the moment of the run.

    Raises:
      DataError: names both units, and the days that each of them gives.
    """
    unit = data.events.time_unit
    ms = published_ms[published_ms != ALWAYS_MS]
    if unit in ("iso", "order") or pa.types.is_temporal(column.type) or not len(ms):
        return
    if fitting := fitting_unit(ms, unit, now_ms=now_ms):
        days = span_text(ms, MS_PER_UNIT[fitting] / MS_PER_UNIT[unit])
        raise DataError(
            f"data.items.published: in the unit of the log (data.events.time_unit: {unit}) the times of column "
            f"{data.items.published} lie {span_text(ms)}, in {fitting} {days}; write "
            f"them in {unit} or as timestamps, or set time_unit: {fitting} if the log has it, too"
        )


def published_after_exposure(published_ms: Int64s, history: PosteriorHistory) -> int:
    """Count the items whose time of publication, int64 [items], is later than their first event."""
    return int(np.count_nonzero(published_ms > first_events(len(published_ms), history)))


def candidates_from(published_ms: Int64s, history: PosteriorHistory) -> Int64s:
    """Return when items are there, int64 [items]: from the earlier of their publication and their first event."""
    return np.minimum(published_ms, first_events(len(published_ms), history))


def first_events(items: int, history: PosteriorHistory) -> Int64s:
    """Return the time of each item's first event, int64 [items]; the largest int64 without one."""
    first = np.full(items, NEVER_MS)
    first[history.item] = history.first_time_ms
    return first
