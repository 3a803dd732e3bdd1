"""Scales a number: centre and deviation of a column without its far outliers, and the range that training saw.

A column often holds values that stand for none (-1, 999999999, the largest float). One of them in ten thousand rows
would take all of the deviation, and the rows with a real value would become one. They are told from long tails by the
gap before them: a tail has values all the way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recall.core.arrays import Bools, Float64s
from recall.core.canonical import Column
from recall.core.errors import DataError

# A value is far out when it lies beyond so many usual distances from the median, and ...
_FAR = 10.0
# ... so many times as far as the next one nearer. Log-normal tails have gaps of 3 to 4 near their end.
_GAP = 10.0
# Nothing that is measured is larger; the largest floats, of 32 or 64 bits, stand for no value.
_LARGEST = 1e30
# Later rows may pass the ends of the file by half of its range: it is no law.
_BEYOND = 0.5
# The range of a column without any value, which nothing was learned from.
_UNSEEN = 10.0
# A new value so many times the whole range beyond it is of another unit, or no value.
_ABSURD = 100.0


class NumberScale(NamedTuple):
    """Hold the scale of a column: x becomes (x - mean) / std, after x was moved into the range.

    Attributes:
      mean: of the values that are not far out.
      std: their population standard deviation; 1 where all are equal.
      low: least value that is taken as it is: the least of them, less half of their range. None in encoders that were
        saved before there was a range.
      high: largest value that is taken as it is, likewise.
    """

    mean: float
    std: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, values: Float64s) -> NumberScale:
        """Fit the scale of the present values, float64 [rows]."""
        kept = values[~far_out(values)]
        if not len(kept):
            return cls(0.0, 1.0, -_UNSEEN, _UNSEEN)
        low, high = float(kept.min()), float(kept.max())
        if low == high:  # rounding may leave such a column a deviation of 1e-17
            return cls(low, 1.0, low, high)
        beyond = _BEYOND * (high - low)
        return cls(float(kept.mean()), float(kept.std()), low - beyond, high + beyond)

    @classmethod
    def from_json(cls, state: Any) -> NumberScale:
        """Read the result of `json`, or a state from before there was a range."""
        return cls(state["mean"], state["std"], state.get("low"), state.get("high"))

    def json(self) -> dict[str, float]:
        """Return the attributes that are known."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def scaled(self, values: Float64s) -> Float64s:
        """Scale values, float64 [rows]; NaN stays."""
        if self.low is not None:
            values = np.clip(values, self.low, self.high)
        return (values - self.mean) / self.std

    def outside(self, values: Float64s) -> Bools:
        """Mark the values that lie outside of the range, bool [rows]."""
        if self.low is None or self.high is None:
            return np.zeros(len(values), bool)
        return (values < self.low) | (values > self.high)

    def require_plausible(self, values: Float64s, column: Column, *, what: str) -> None:
        """Refuse values, float64 [rows], that lie orders of magnitude outside of the range.

        Args:
          values: values that are scaled.
          column: raw values, for the error.
          what: name of the column in the error.

        Raises:
          DataError: names a row, its value and the range.
        """
        low, high = (-_LARGEST, _LARGEST) if self.low is None or self.high is None else (self.low, self.high)
        beyond = _ABSURD * ((high - low) or max(abs(high), 1.0))
        absurd = np.flatnonzero((values < low - beyond) | (values > high + beyond))
        if not len(absurd):
            return
        row = int(absurd[0])
        raise DataError(
            f"{what}: numbers of {len(absurd):,} of {len(values):,} rows lie far outside of what training saw, the "
            f"first in row {row} (counted from 0): {column[row].as_py()!r} counts as {values[row]:.6g}, and training "
            f"saw {low:.6g} to {high:.6g}; give the unit of the items file, or no value where there is none"
        )


def far_out(values: Float64s) -> Bools:
    """Mark the values of a column that lie far from all others, behind a gap; bool [rows]."""
    huge = np.abs(values) > _LARGEST
    if huge.all():
        return huge
    middle = np.median(values[~huge])
    distance = np.where(huge, np.inf, values - middle)
    apart = np.abs(distance[(distance != 0) & ~huge])  # in many columns half of the values are the same zero
    if not len(apart):
        return huge
    fence = _FAR * float(np.quantile(apart, 0.25))  # sentinels may be more than half of what is no zero
    low, high = (_last_before_gap(side[(side > 0) & ~huge], fence) for side in (-distance, distance))
    return huge | (distance > high) | (distance < -low)


def _last_before_gap(distances: Float64s, fence: float) -> float:
    """Return the largest of some distances from the median before the first gap beyond the fence."""
    rising = np.append(0.0, np.unique(distances))
    far = rising[1:] > _GAP * np.maximum(rising[:-1], fence / _GAP)
    return float(rising[int(np.argmax(far)) if far.any() else -1])
