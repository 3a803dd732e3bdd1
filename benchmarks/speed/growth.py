"""How cost grows with size: y = a n^b, fitted as a straight line between logarithms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.speed.results import Result
from benchmarks.speed.sweep import Growth


class Line(NamedTuple):
    """Measured points of one system, by size.

    Attributes:
      sizes: rising.
      values: one per size.
      exponent: fitted; None with fewer than two sizes.
    """

    sizes: list[float]
    values: list[float]
    exponent: float | None


def fit_exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Exponent b of y = a n^b, least squares between logarithms; None where there are not two sizes."""
    if len(set(sizes)) < 2:
        return None
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def growth_lines(results: Sequence[Result], growth: Growth) -> dict[str, Line]:
    """Per system the points that a growth plot shows: of the cases that have the size and the measure."""
    points: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        value = result.median.get(growth.measure)
        if growth.over in result.arguments and isinstance(value, float):
            system = str(result.arguments.get(growth.by, growth.measure))
            points.setdefault(system, []).append((float(result.arguments[growth.over]), value))
    lines = {}
    for system, of_system in points.items():
        sizes, values = (list(axis) for axis in zip(*sorted(of_system), strict=True))
        lines[system] = Line(sizes, values, fit_exponent(sizes, values))
    return lines
