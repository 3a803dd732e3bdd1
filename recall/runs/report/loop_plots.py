"""Draws the measures of a closed loop over its days, a panel each, arms as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recall.core.arrays import Float64s
from recall.runs.report.drawing import FULL, LineStyle, draw_line, inline_svg

_COLUMNS = 2


@inline_svg
def loop_days(
    days: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]],
    *,
    panels: Mapping[str, str],
    styles: Mapping[str, LineStyle],
) -> Figure | None:
    """Plot one panel for each measure.

    Args:
      days: arm -> measure -> an estimate (mean, low, high) of each day.
      panels: measure -> title of its panel.
      styles: result of `line_styles`; its order is the drawing order. Its first arm gets its interval as a band.
    """
    if not days:
        return None
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(FULL[0], 0.8 + 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False, sharex=True).ravel()
    for axis, (measure, title) in zip(axes, panels.items(), strict=False):
        _draw(axis, {arm: days[arm][measure] for arm in styles}, styles)
        axis.set_title(title, fontsize=9.5, loc="left")
        axis.set_ylim(0, 1.08 * max(_highest(days[arm][measure]) for arm in styles) or 1)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis in axes[-_COLUMNS:]:
        axis.set_xlabel("day of the loop")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=5)
    return figure


def _draw(axis: Axes, lines: Mapping[str, Sequence[Mapping[str, Any]]], styles: Mapping[str, LineStyle]) -> None:
    for number, (arm, estimates) in enumerate(lines.items()):
        mean, low, high = (_numbers(estimates, key) for key in ("mean", "low", "high"))
        places = np.arange(1, len(mean) + 1)
        draw_line(axis, places, mean, styles[arm], label=arm, markevery=max(1, len(mean) // 7))
        if not number and np.isfinite(low).any():
            axis.fill_between(places, low, high, color=styles[arm].color, alpha=0.15, linewidth=0)


def _highest(estimates: Sequence[Mapping[str, Any]]) -> float:
    """Return the highest mean; intervals may go out of the panel."""
    return float(np.nan_to_num(_numbers(estimates, "mean")).max(initial=0.0))


def _numbers(estimates: Sequence[Mapping[str, Any]], key: str) -> Float64s:
    return np.array([np.nan if one[key] is None else one[key] for one in estimates], np.float64)
