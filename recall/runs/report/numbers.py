"""Computes the numbers behind the report's plots: pure functions on arrays and on parts of metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recall.core.arrays import AnyFloats
from recall.evaluation.slices import metric_value


def wilson_interval(share: AnyFloats, examples: NDArray[np.int64]) -> tuple[AnyFloats, AnyFloats]:
    """Compute the 95% interval of a share of independent examples (Wilson, JASA 1927); NaN without examples.

    Args:
      share: float array [slices] in [0, 1].
      examples: int array [slices].

    Returns:
      Lower and upper ends, float arrays [slices].
    """
    z = 1.959964
    n = np.where(examples > 0, examples, np.nan)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(centre - reach, 0, share), np.clip(centre + reach, share, 1)


class GateCurve(NamedTuple):
    """Hold quartiles of the behaviour share per bin of exposures; arrays [bins], bins without items left out."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    items: NDArray[np.int64]
    exposures: AnyFloats
    lower_quartile: AnyFloats
    median: AnyFloats
    upper_quartile: AnyFloats


def exposure_edges(largest: int, *, bins_per_decade: int) -> NDArray[np.int64]:
    """List lower bounds of bins of exposures up to a power of ten above `largest`, with this power as the last bound.

    The first bin holds 0 alone, the others are equally wide on a log scale but never cut a whole number in two:
    for 4 per decade 1, 2-3, 4-5, 6-9, 10-17, 18-31, 32-56, 57-99, 100-177, ...
    """
    steps = np.arange(len(str(largest)) * bins_per_decade + 1)
    # Rounded before ceil: 10 ** (8 / 4) must start a bin at 100, not at 101.
    bounds = np.ceil(np.round(10.0 ** (steps / bins_per_decade), 6)).astype(np.int64)
    return np.concatenate([[0], np.unique(bounds)])


def gate_curve(exposures: Any, behaviour_share: Any, *, bins_per_decade: int = 4) -> GateCurve:
    """Compute quartiles of the gate over items of similar exposures, in the bins of `exposure_edges`.

    Args:
      exposures: int array [items].
      behaviour_share: float array [items] in [0, 1]; NaN (no gate) is left out.
      bins_per_decade: bins between 10^n and 10^(n+1).

    Returns:
      Per non-empty bin its bounds (both included), items, their median exposures and the quartiles of the share.
    """
    exposures = np.asarray(exposures, dtype=np.int64)
    share = np.asarray(behaviour_share, dtype=np.float64)
    exposures, share = exposures[np.isfinite(share)], share[np.isfinite(share)]
    edges = exposure_edges(int(exposures.max(initial=1)), bins_per_decade=bins_per_decade)
    bins = np.searchsorted(edges, exposures, side="right") - 1
    filled = np.unique(bins)
    members = [bins == index for index in filled]
    quartiles = np.array([np.percentile(share[member], (25, 50, 75)) for member in members]).reshape(-1, 3)
    return GateCurve(
        low=edges[filled],
        high=edges[filled + 1] - 1,
        items=np.array([member.sum() for member in members], dtype=np.int64),
        exposures=np.array([np.median(exposures[member]) for member in members], dtype=np.float64),
        lower_quartile=quartiles[:, 0],
        median=quartiles[:, 1],
        upper_quartile=quartiles[:, 2],
    )


def validation_metric(epochs: Sequence[Mapping[str, Any]]) -> str | None:
    """Find the key of the validation metric in a training history: its first `val_` key that is no loss."""
    for epoch in epochs:
        for key in epoch:
            if key.startswith("val_") and "loss" not in key:
                return str(key)
    return None


def best_epoch(epochs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Find the epoch with the highest validation metric, the first of equals; None without measurements."""
    key = validation_metric(epochs)
    if key is None:
        return None
    measured = [epoch for epoch in epochs if np.isfinite(metric_value(epoch, key))]
    return max(measured, key=lambda epoch: metric_value(epoch, key), default=None)


def principal_plane(vectors: AnyFloats) -> tuple[AnyFloats, AnyFloats]:
    """Project vectors on the two directions of largest variance.

    Args:
      vectors: float array [items, dim], finite.

    Returns:
      Coordinates [items, 2] and the share of the variance along each axis [2]. The sign of an axis is fixed by
      its largest loading, so that equal vectors give equal maps.
    """
    centred = np.asarray(vectors, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((2, centred.shape[1]))
    plane[: len(directions[:2])] = directions[:2]
    largest = plane[np.arange(2), np.abs(plane).argmax(axis=1)]
    plane *= np.where(largest < 0, -1.0, 1.0)[:, None]
    variance = np.zeros(2)
    variance[: len(lengths[:2])] = lengths[:2] ** 2
    return centred @ plane.T, variance / max(float((lengths**2).sum()), 1e-12)


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Move label positions apart, so that neighbours keep at least `gap` and each stays near its value."""
    groups: list[list[Any]] = []  # [indices, centre]; labels that would touch become one evenly spaced block
    for index in sorted(range(len(values)), key=values.__getitem__):
        groups.append([[index], float(values[index])])
        while len(groups) > 1 and _touch(groups[-2], groups[-1], gap):
            upper, lower = groups.pop(), groups.pop()
            indices = lower[0] + upper[0]
            groups.append([indices, float(np.mean([values[i] for i in indices]))])
    placed = [0.0] * len(values)
    for indices, centre in groups:
        for position, index in enumerate(indices):
            placed[index] = centre + (position - (len(indices) - 1) / 2) * gap
    return placed


def _touch(lower: list[Any], upper: list[Any], gap: float) -> bool:
    return bool(upper[1] - lower[1] < gap * (len(lower[0]) + len(upper[0])) / 2)
