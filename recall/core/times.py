"""Converts times of any unit to whole milliseconds, by exact arithmetic."""

from __future__ import annotations

import decimal
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import Bools, Int64s
from recall.core.tables import Column, id_strings

TimeUnit: TypeAlias = Literal["s", "ms", "us", "ns", "iso", "order"]
MS_PER_HOUR = 3_600_000


_MULTIPLY = {"s": 1_000}
_DIVIDE = {"us": 1_000, "ns": 1_000_000}
_INT64 = np.iinfo(np.int64)
# More digits than any int64 has, so that neither a product nor a floor is ever rounded.
_EXACT = decimal.Context(prec=60)


class Times(NamedTuple):
    """Hold parsed times.

    Attributes:
      ms: int64 [rows], milliseconds (or positions), 0 where there is none.
      missing: bool [rows], nothing was there.
      unreadable: bool [rows], something was there that is no time, or one that int64 milliseconds cannot hold.
    """

    ms: Int64s
    missing: Bools
    unreadable: Bools


def parse_times(column: Column, unit: TimeUnit) -> Times:
    """Convert a column to milliseconds, rounding down.

    Args:
      column: numbers or text in `unit`; Arrow timestamps and dates are taken as UTC, whatever the unit.
      unit: s, ms, us or ns since 1970; `iso` for text like 2024-01-31T12:00:00+01:00 (UTC without an offset);
        `order` for positions, which are kept as they are.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    missing = array.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(array.type):
        return _from_integers(array.cast(pa.int64()), array.type.unit, missing)
    if unit == "iso":
        return _from_iso(id_strings(array))
    if pa.types.is_signed_integer(array.type):
        return _from_integers(array.cast(pa.int64()), unit, missing)
    return _from_text(id_strings(array), unit)


def _from_integers(array: pa.Int64Array, unit: str, missing: Bools) -> Times:
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    factor = _MULTIPLY.get(unit, 1)
    unreadable = (values > _INT64.max // factor) | (values < -(_INT64.max // factor))
    return Times(np.where(unreadable, 0, values) * factor // _DIVIDE.get(unit, 1), missing, unreadable)


def _from_iso(text: pa.StringArray) -> Times:
    missing = text.is_null().to_numpy(zero_copy_only=False)
    parsed = pd.to_datetime(pd.Series(text.to_pylist(), dtype=object), format="ISO8601", utc=True, errors="coerce")
    failed = parsed.isna().to_numpy(dtype=bool)
    microseconds = parsed.dt.as_unit("us").astype("int64").to_numpy()
    return Times(np.where(failed, 0, microseconds) // 1_000, missing, failed & ~missing)


def _from_text(text: pa.StringArray, unit: str) -> Times:
    """Parse plain integers with Arrow, and other numbers such as 12.5 or 1.2e9 one by one and exactly."""
    missing = text.is_null().to_numpy(zero_copy_only=False)
    plain = pc.fill_null(pc.match_substring_regex(text, r"^[+-]?\d{1,18}$"), False)
    integers = pc.if_else(plain, pc.utf8_ltrim(text, characters="+"), pa.scalar(None, pa.string())).cast(pa.int64())
    ms, _, unreadable = _from_integers(integers, unit, missing)
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
