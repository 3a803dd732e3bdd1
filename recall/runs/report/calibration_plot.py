"""Draws whether the scale of a model tilts: shares of clicks and of places, and scores, by exposures of the items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from recall.evaluation.calibration import PLACES
from recall.evaluation.slices import bucket_label, metric_value
from recall.runs.report.calibration import drawn_buckets
from recall.runs.report.drawing import ACCENT, COLD, FULL, INK, MUTED, PAPER, inline_svg, set_title

_WIDTH = 0.27


@inline_svg
def calibration_plot(calibration: Mapping[str, Any], *, model: str) -> Figure | None:
    """Plot both sides of a calibration.

    Args:
      calibration: `Calibration.summary`.
      model: its name.
    """
    buckets = drawn_buckets(calibration)
    if not buckets:
        return None
    figure = Figure(figsize=FULL, layout="constrained")
    shares, scores = figure.subplots(1, 2)
    labels = [bucket_label(bucket) for bucket in buckets]
    for axis in (shares, scores):
        axis.set_xticks(range(len(labels)), labels)
        axis.grid(visible=False, axis="x")
        axis.set_xlabel("exposures of the item")
    places = np.arange(len(buckets))
    bars = (("candidates", "share_of_candidates", MUTED, 0.35), ("clicks", "share_of_clicks", COLD, 0.9),
            (f"places in lists of {PLACES}", f"share_of_places@{PLACES}", ACCENT, 0.9))  # fmt: skip
    for number, (label, key, color, alpha) in enumerate(bars):
        heights = np.nan_to_num([metric_value(bucket, key) for bucket in buckets])
        shares.bar(places + (number - 1) * _WIDTH, heights, _WIDTH * 0.9, color=color, alpha=alpha, label=label)
    shares.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    shares.set_ylabel("share of all")
    _legend_above(shares, bottom=0.0)
    _draw_scores(scores, calibration)
    set_title(figure, f"Who gets the places: {model} by exposures")
    return figure


def _draw_scores(axis: Axes, calibration: Mapping[str, Any]) -> None:
    buckets = drawn_buckets(calibration)
    clicked, random, spread = (
        np.array([metric_value(bucket, key) for bucket in buckets])
        for key in ("clicked", "random", "clicked_deviation")
    )
    places = np.arange(len(buckets))
    axis.vlines(places, random, clicked, color=MUTED, linewidth=1.2, alpha=0.7)
    axis.vlines(places + 0.07, clicked - spread, clicked + spread, color=COLD, linewidth=1.2, alpha=0.5)
    axis.plot(places, clicked, "o", color=COLD, markersize=7, label="clicked, ± one deviation")
    axis.plot(places, random, "s", color=MUTED, markerfacecolor=PAPER, markersize=6, label="drawn at random")
    cut = metric_value(calibration, f"cut@{PLACES}")
    if np.isfinite(cut):
        axis.axhline(cut, color=ACCENT, linewidth=1.3, linestyle=(0, (5, 2)))
        axis.text(-0.45, cut, f"place {PLACES}", color=INK, va="bottom", fontsize=8.5)
    axis.set_xlim(-0.5, len(buckets) - 0.5)
    axis.set_ylabel("score, in deviations from the mean candidate")
    _legend_above(axis, bottom=axis.get_ylim()[0])


def _legend_above(axis: Axes, *, bottom: float) -> None:
    """Make room above all marks, and put the legend there."""
    axis.set_ylim(bottom, bottom + 1.25 * (axis.get_ylim()[1] - bottom))
    axis.legend(loc="upper left")
