"""The plots of README.md, derived from the results: how cost grows, and what is bought with what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.common.drawing import STYLE, legend_below, make_panels, save_figures
from benchmarks.common.frontiers import pareto_front
from benchmarks.speed.growth import growth_lines
from benchmarks.speed.results import Result, Results
from benchmarks.speed.sweep import Growth, Pareto, Sweep
from recall.runs.report.drawing import LineStyle, line_styles

OURS = "recall"
# Told apart by the colour-blind, too; markers repeat later than colours do.
_COLORS = ("#d55e00", "#009e73", "#cc79a7", "#b8860b", "#7f3c8d", "#444444", "#44aa99", "#a52a2a")
_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "*")


def write_plots(folder: Path, sweep: Sweep, results: Results) -> list[Path]:
    """Draws what there are results for, ROW-growth.svg and ROW-pareto.svg; returns the files."""
    with rc_context(STYLE):
        figures = {}
        for row, settings in sweep.rows.items():
            found = results.matching(f"{row}/*")
            figures[f"{row}-growth"] = draw_growth(found, settings.growth)
            figures[f"{row}-pareto"] = draw_pareto(found, settings.pareto)
        return save_figures(folder, figures)


def draw_growth(results: Sequence[Result], growths: Sequence[Growth]) -> Figure | None:
    """A panel per measure, both axes logarithmic, the exponent of each line beside its last point."""
    shown = [(growth, lines) for growth in growths if (lines := growth_lines(results, growth))]
    if not shown:
        return None
    styles = _styles([system for _, lines in shown for system in lines])
    figure, axes = make_panels(len(shown))
    for axis, (growth, lines) in zip(axes, shown, strict=True):
        for system, line in lines.items():
            style = styles[system]
            axis.plot(
                line.sizes, line.values, color=style.color, linestyle=style.dash, linewidth=style.width,
                marker=style.marker, markersize=5, label=system,
            )  # fmt: skip
            if line.exponent is not None:
                axis.annotate(
                    f" n^{line.exponent:.2f}", (line.sizes[-1], line.values[-1]), color=style.color, va="center"
                )
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.margins(x=0.2)
        axis.set_xlabel(_words(growth.over))
        axis.set_ylabel(_words(growth.measure))
    legend_below(figure, axes, columns=4)
    return figure


def draw_pareto(results: Sequence[Result], paretos: Sequence[Pareto]) -> Figure | None:
    """A panel per pair of measures: every point, and a line through those that no other of the same system
    beats; of cases of several sizes the largest."""
    shown = [(pareto, curves) for pareto in paretos if (curves := _curves(results, pareto))]
    if not shown:
        return None
    styles = _styles([system for _, curves in shown for system in curves])
    figure, axes = make_panels(len(shown))
    for axis, (pareto, curves) in zip(axes, shown, strict=True):
        for system, points in curves.items():
            style, best = styles[system], pareto_front(points)
            axis.plot(*points.T, marker=style.marker, color=style.color, linestyle="", markersize=4, alpha=0.4)
            axis.plot(*best.T, color=style.color, linestyle=style.dash, linewidth=style.width, label=system)
        axis.set_yscale("log")
        axis.set_xlabel(_words(pareto.x))
        axis.set_ylabel(_words(pareto.y))
    legend_below(figure, axes, columns=4)
    return figure


def _curves(results: Sequence[Result], pareto: Pareto) -> dict[str, np.ndarray]:
    points: dict[str, list[np.ndarray]] = {}
    largest = max((result.arguments.get(pareto.largest, 0) for result in results), default=0)
    for result in results:
        is_shown = result.arguments.get(pareto.largest, 0) == largest
        if is_shown and pareto.x in result.median and pareto.y in result.median:
            axes = np.broadcast_arrays(*(np.atleast_1d(result.median[name]) for name in (pareto.x, pareto.y)))
            system = str(result.arguments.get(pareto.by, result.case))
            points.setdefault(system, []).append(np.stack(axes, axis=1))
    return {system: np.concatenate(of_system) for system, of_system in points.items()}


def _styles(systems: Sequence[str]) -> dict[str, LineStyle]:
    names = sorted({*systems})
    ours = next((name for name in names if name.startswith(OURS)), names[0])
    others = [name for name in names if name != ours]
    styles = line_styles(ours, others, ())
    # There are more systems here than models in a report.
    for place, name in enumerate(others):
        color, marker = _COLORS[place % len(_COLORS)], _MARKERS[place % len(_MARKERS)]
        styles[name] = styles[name]._replace(color=color, marker=marker)
    return styles


def _words(name: str) -> str:
    return name.replace("_", " ")
