"""Converts times of any unit to whole milliseconds, by exact arithmetic."""

from __future__ import annotations

import decimal
import zoneinfo
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import Bools, Int64s
from recall.core.canonical import Column, texts

TimeUnit: TypeAlias = Literal["s", "ms", "us", "ns", "iso", "order"]
MS_PER_HOUR = 3_600_000
UTC = "UTC"

_MULTIPLY = {"s": 1_000}
_DIVIDE = {"us": 1_000, "ns": 1_000_000}
_INT64 = np.iinfo(np.int64)
# More digits than any int64 has, so that neither a product nor a floor is ever rounded.
_EXACT = decimal.Context(prec=60)
_FIRST_MS, _END_MS = -62_135_510_400_000, 253_402_214_400_000  # day 2 of year 1, last day of year 9999
# What pandas and databases write for no time.
_NOTHING = pa.array(["nat", "nan", "null", "none", "<na>"])
# pandas reads `now` and `today` as the moment of the run.
_ISO = r"^\d{4}"
_WITH_OFFSET = r"[Tt ].*([Zz]|[+-]\d{2}(:?\d{2})?)$"


class Times(NamedTuple):
    """Hold parsed times.

    Attributes:
      ms: int64 [rows], milliseconds (or positions), 0 where there is none.
      missing: bool [rows], nothing was there.
      unreadable: bool [rows], something was there that is no time, or one that int64 milliseconds cannot hold.
      without_zone: number of readable times that did not say their offset from UTC.
    """

    ms: Int64s
    missing: Bools
    unreadable: Bools
    without_zone: int = 0


def parse_times(column: Column, unit: TimeUnit, *, time_zone: str = UTC) -> Times:
    """Convert a column to milliseconds, rounding down.

    Args:
      column: numbers or text in `unit`; Arrow timestamps and dates are moments, whatever the unit.
      unit: s, ms, us or ns since 1970; `iso` for text like 2024-01-31T12:00:00+01:00; `order` for positions, which are
        kept as they are.
      time_zone: IANA name of the zone of text, timestamps and dates that say no offset. An hour that the end of summer
        time repeats is taken as the first of the two; a time that its beginning skips counts as if the clock had not
        been changed yet (PEP 495, fold=0).
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(array.type):
        return _from_timestamps(array, time_zone)
    if unit == "iso":
        return _from_iso(_without_markers(texts(array, expected="times")), time_zone)
    if pa.types.is_integer(array.type) and array.type != pa.uint64():
        return _from_integers(array.cast(pa.int64()), unit)
    if pa.types.is_floating(array.type):
        return _from_floats(array, unit)
    return _from_text(_without_markers(texts(array, expected="times")), unit)


def is_time_zone(name: str) -> bool:
    """Tell whether a text is the IANA name of a time zone that this machine knows, such as Europe/Berlin."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _without_markers(text: pa.StringArray) -> pa.StringArray:
    """Replace texts such as NaT, which say that there is no time, by null."""
    return pc.if_else(pc.is_in(pc.utf8_lower(text), _NOTHING), pa.scalar(None, pa.string()), text)


def _from_timestamps(array: pa.TimestampArray, time_zone: str) -> Times:
    times = _from_integers(array.cast(pa.int64()), array.type.unit)
    if array.type.tz is not None:
        return times
    readable = ~(times.missing | times.unreadable)
    return _in_zone(times, readable, time_zone)


def _in_zone(times: Times, naive: Bools, time_zone: str) -> Times:
    """Move times that were read as UTC, and that say no offset, to the zone that they are of."""
    times = times._replace(without_zone=int(naive.sum()))
    if time_zone == UTC or not naive.any():
        return times
    zone = zoneinfo.ZoneInfo(time_zone)
    inside = (times.ms >= _FIRST_MS) & (times.ms < _END_MS)
    chosen = naive & inside
    local = pd.DatetimeIndex(times.ms[chosen].astype("datetime64[ms]"))
    moments = local.tz_localize(zone, ambiguous=np.ones(len(local), bool), nonexistent="NaT")  # True: the first
    utc_ms = moments.as_unit("ms").asi8.copy()
    for place in np.flatnonzero(moments.isna()):  # skipped by the clock, which is rare
        utc_ms[place] = int(local[place].to_pydatetime().replace(tzinfo=zone).timestamp() * 1_000)
    ms = np.where(naive & ~inside, 0, times.ms)
    ms[chosen] = utc_ms
    return times._replace(ms=ms, unreadable=times.unreadable | (naive & ~inside))


def _from_integers(array: pa.Int64Array, unit: str) -> Times:
    missing = array.is_null().to_numpy(zero_copy_only=False)
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    factor = _MULTIPLY.get(unit, 1)
    unreadable = (values > _INT64.max // factor) | (values < -(_INT64.max // factor))
    return Times(np.where(unreadable, 0, values) * factor // _DIVIDE.get(unit, 1), missing, unreadable)


def _from_floats(array: pa.FloatingPointArray, unit: str) -> Times:
    """Convert whole numbers as integers, and parse others from their shortest text, so that 0.1 s are 100 ms."""
    array = array.cast(pa.float64())
    values = array.fill_null(np.nan).to_numpy(zero_copy_only=False)
    whole = (values == np.floor(values)) & (np.abs(values) < 2.0**63)
    integers = pa.array(np.where(whole, values, 0).astype(np.int64), mask=~whole)
    text = pc.if_else(pa.array(whole | np.isnan(values)), pa.scalar(None, pa.string()), array.cast(pa.string()))
    ms, not_whole, unreadable = _from_integers(integers, unit)[:3]
    others = _from_text(text, unit)
    return Times(np.where(not_whole, others.ms, ms), np.isnan(values), unreadable | others.unreadable)


def _from_iso(text: pa.StringArray, time_zone: str) -> Times:
    missing = text.is_null().to_numpy(zero_copy_only=False)
    dated = pc.if_else(pc.match_substring_regex(text, _ISO), text, pa.scalar(None, pa.string()))
    parsed = pd.to_datetime(pd.Series(dated.to_pylist(), dtype=object), format="ISO8601", utc=True, errors="coerce")
    failed = parsed.isna().to_numpy(dtype=bool)
    microseconds = parsed.dt.as_unit("us").astype("int64").to_numpy()
    times = Times(np.where(failed, 0, microseconds) // 1_000, missing, failed & ~missing)
    with_offset = pc.fill_null(pc.match_substring_regex(text, _WITH_OFFSET), False).to_numpy(zero_copy_only=False)
    return _in_zone(times, ~failed & ~with_offset, time_zone)


def _from_text(text: pa.StringArray, unit: str) -> Times:
    """Parse plain integers with Arrow, and other numbers such as 12.5 or 1.2e9 one by one and exactly."""
    missing = text.is_null().to_numpy(zero_copy_only=False)
    plain = pc.fill_null(pc.match_substring_regex(text, r"^[+-]?\d{1,18}$"), False)
    integers = pc.if_else(plain, pc.utf8_ltrim(text, characters="+"), pa.scalar(None, pa.string())).cast(pa.int64())
    ms, _, unreadable = _from_integers(integers, unit)[:3]
    others = np.flatnonzero(~missing & ~plain.to_numpy(zero_copy_only=False))
    if len(others):
        values = [_exact_ms(value, unit) for value in text.take(pa.array(others)).to_pylist()]
        unreadable[others] = [value is None for value in values]
        ms[others] = [value or 0 for value in values]
    return Times(ms, missing, unreadable)


def _exact_ms(text: str, unit: str) -> int | None:
    try:
        value = _EXACT.create_decimal(text)
    except decimal.InvalidOperation:
        return None
    if not value.is_finite() or value.adjusted() > 30:
        return None
    scaled = _EXACT.divide(_EXACT.multiply(value, _MULTIPLY.get(unit, 1)), _DIVIDE.get(unit, 1))
    ms = int(scaled.to_integral_value(decimal.ROUND_FLOOR, _EXACT))
    return ms if -_INT64.max <= ms <= _INT64.max else None
