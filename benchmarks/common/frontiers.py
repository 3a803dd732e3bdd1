"""Finds the best of points in two measures of which more is better: the Pareto front, and the hull with mixtures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def pareto_front(points: np.ndarray) -> np.ndarray:
    """Keep the points that no other point beats in both directions.

    Args:
      points: float [points, 2], x and y of each.

    Returns:
      float [kept, 2], by rising x.
    """
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
    best_beyond = np.maximum.accumulate(ordered[::-1, 1])[::-1]
    is_best = ordered[:, 1] > np.append(best_beyond[1:], -np.inf)
    return ordered[is_best]


def upper_hull(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Compute the upper right convex hull: what the points, and random mixtures of two of them, attain.

    Args:
      x: float64 [points], e.g. cold recall.
      y: float64 [points], e.g. warm recall.

    Returns:
      x and y of the corners, x rising and y falling.
    """
    hull: list[tuple[float, float]] = []
    for point in sorted(zip(x.tolist(), y.tolist(), strict=True)):
        while hull and (hull[-1][1] <= point[1] or (len(hull) > 1 and _is_below(hull[-2], hull[-1], point))):
            hull.pop()
        hull.append(point)
    corners = np.array(hull, np.float64).reshape(-1, 2)
    return corners[:, 0], corners[:, 1]


def _is_below(first: tuple[float, float], middle: tuple[float, float], last: tuple[float, float]) -> bool:
    """Tell whether the middle point lies on or below the line from the first to the last."""
    (x0, y0), (x1, y1), (x2, y2) = first, middle, last
    return (x1 - x0) * (y2 - y0) >= (x2 - x0) * (y1 - y0)
