"""Checks whole numbers that callers give: how many candidates, clicks or items they want."""

from __future__ import annotations

from typing import Any

import numpy as np

from recall.core.errors import DataError, shown


def require_at_least(least: int, value: Any, *, what: str) -> int:
    """Return a whole number; a DataError that begins with `what` refuses others: fractions, floats, truth values.

    Args:
      least: the smallest number that is taken.
      value: of a caller.
      what: name of the setting.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise DataError(f"{what}: expected a whole number of at least {least}, found {shown(repr(value))}")
    if value < least:
        raise DataError(f"{what}: expected at least {least}, found {value}")
    return int(value)
