"""Draws how the models of successive days did on clicks that they had not learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from recall.evaluation.slices import metric_value
from recall.runs.report.drawing import FULL, LineStyle, draw_line, inline_svg, set_title


@inline_svg
def metric_by_day(days: Sequence[Mapping[str, Any]], *, metric: str, styles: Mapping[str, LineStyle]) -> Figure | None:
    """Plot a metric at the end of each day's test period, one line per model; None with fewer than two days.

    Args:
      days: entry `days` of metrics.json.
      metric: the metric.
      styles: of the models, in the order of the legend.
    """
    dated = [day for day in days if day["until"]]
    if len(dated) < 2:
        return None
    figure = Figure(figsize=FULL, layout="constrained")
    axis = figure.subplots()
    for name in (name for name in styles if any(name in day["models"] for day in dated)):
        there = [day for day in dated if name in day["models"]]
        moments = [datetime.fromisoformat(day["until"]) for day in there]
        values = [metric_value(day["models"][name], metric) for day in there]
        draw_line(axis, moments, values, styles[name], label=name, markevery=1 + len(there) // 12)
    locator = AutoDateLocator(minticks=2, maxticks=8)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    set_title(figure, "Each day's model on the clicks that it had not learned from")
    axis.set_xlabel("end of the test period, UTC")
    axis.set_ylabel(metric)
    figure.legend(loc="outside lower left", ncols=4)
    return figure
