"""The plots of README.md, derived from the results: SVG files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.common.drawing import PANEL, STYLE, legend_below, make_panels, save_figures
from benchmarks.common.frontiers import upper_hull
from benchmarks.quality.bias import CURVE_K
from benchmarks.quality.claims import LIVE, LIVE_RIVALS, OURS, RIVALS, mean_curve, mean_metric
from benchmarks.quality.comparisons import Comparison, Comparisons
from benchmarks.quality.results import Results
from benchmarks.quality.slices import METRICS, ROLLING_BOUNDS, SLICE_NAMES
from benchmarks.quality.sweep import Sweep
from recall.runs.report.drawing import LineStyle, line_styles

_WARM = "warm_100"
_BASELINES = ("popularity", "item_knn")
_LIVE_BASELINES = ("trending", *_BASELINES)
_NO_EVIDENCE = "live_totals"
_LABELS = 3.0  # inches that the names of the ablations take


def write_plots(folder: Path, sweep: Sweep, results: Results, comparisons: Comparisons) -> list[Path]:
    """Draws what there are results for; returns the files."""
    with rc_context(STYLE):
        figures = {
            "live": draw_live(sweep, results),
            "evidence": draw_evidence(sweep, results),
            "dominance": draw_dominance(sweep, results),
            "gate": draw_gate(sweep, results),
            "ablation": draw_ablation(sweep, comparisons),
        }
        return save_figures(folder, figures)


def draw_live(sweep: Sweep, results: Results) -> Figure | None:
    """Draw rolling recall by the exposures of the clicked item as of the click, a panel per data set."""
    others = [f"live_{name}" for name in LIVE_RIVALS if name not in _LIVE_BASELINES]
    styles = line_styles(LIVE, others, [f"live_{name}" for name in _LIVE_BASELINES])
    group = sweep.groups.get("live")
    data_sets = [data for data in group.data if results.seeds(LIVE, data)] if group else []
    if not data_sets:
        return None
    lines = {name.removeprefix("live_"): (name, style) for name, style in styles.items()}
    return _by_exposures(results, data_sets, lines, of="")


def draw_evidence(sweep: Sweep, results: Results) -> Figure | None:
    """Draw rolling recall by exposures as of the click, before and after: without and with fresh evidence."""
    styles = line_styles("with fresh evidence", ["without"], ["trending"])
    lines = {"with fresh evidence": LIVE, "without": _NO_EVIDENCE, "trending": "live_trending"}
    group = sweep.groups.get("live")
    data_sets = [data for data in group.data if results.seeds(_NO_EVIDENCE, data)] if group else []
    if not data_sets:
        return None
    return _by_exposures(
        results, data_sets, {label: (lines[label], style) for label, style in styles.items()}, of=", gated"
    )


def _by_exposures(
    results: Results, data_sets: Sequence[str], lines: Mapping[str, tuple[str, LineStyle]], *, of: str
) -> Figure:
    """Draw rolling recall by exposures as of the click, a panel per data set; lines by label: experiment, style."""
    figure, axes = make_panels(len(data_sets), columns=len(data_sets))
    for axis, data in zip(axes, data_sets, strict=True):
        for label, (name, style) in lines.items():
            found = [mean_metric(results, name, data, part, METRICS[0]) for part in ROLLING_BOUNDS]
            values = np.array([np.nan if value is None else value for value in found])
            if not np.isnan(values).all():
                axis.plot(
                    values, color=style.color, linestyle=style.dash, linewidth=style.width, marker=style.marker,
                    markersize=4, label=label,
                )  # fmt: skip
        axis.set_xticks(range(len(ROLLING_BOUNDS)), [SLICE_NAMES[part] for part in ROLLING_BOUNDS])
        axis.set_title(data)
        axis.set_xlabel("exposures as of the click")
        axis.set_ylabel(f"rolling {METRICS[0]}{of}")
        axis.set_ylim(bottom=0)
    legend_below(figure, axes, columns=4)
    return figure


def draw_dominance(sweep: Sweep, results: Results) -> Figure | None:
    """Cold against warm recall for every bias, a panel per data set; hulls as lines, the model as it is as a mark."""
    styles = _styles()
    panels = [
        (data, curves)
        for data in sweep.groups["models"].data
        if (curves := {name: c for name in styles if (c := mean_curve(results, name, data, _WARM))})
    ]
    if not panels:
        return None
    figure, axes = make_panels(len(panels))
    for axis, (data, curves) in zip(axes, panels, strict=True):
        for name, curve in curves.items():
            cold, warm = map(np.array, curve)
            style = styles[name]
            axis.plot(
                *upper_hull(cold, warm), color=style.color, linestyle=style.dash, linewidth=style.width, label=name
            )
            served = _level_zero(results, name, data)
            axis.plot(cold[served], warm[served], marker=style.marker, color=style.color, markersize=6)
        axis.set_title(data)
        axis.set_xlabel(f"recall@{CURVE_K}, cold")
        axis.set_ylabel(f"recall@{CURVE_K}, {SLICE_NAMES[_WARM]}")
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_locator(MaxNLocator(5))
    legend_below(figure, axes, columns=2 * min(2, len(panels)))
    return figure


def draw_gate(sweep: Sweep, results: Results) -> Figure | None:
    """Mean behaviour share by exposures, a line per data set, all seeds as marks."""
    found = {
        data: shares
        for data in sweep.groups["models"].data
        if (shares := [r.content["gate_share"] for r in results.seeds(OURS, data).values()]) and None not in shares
    }
    if not found:
        return None
    figure, (axis,) = make_panels(1, size=(6.4, 3.6))
    first, *others = found
    styles = line_styles(first, others, ())
    for data, shares in found.items():
        values = np.array([[np.nan if b["share"] is None else b["share"] for b in buckets] for buckets in shares])
        style = styles[data]
        place = np.arange(values.shape[1])
        axis.plot(place, values.mean(axis=0), color=style.color, linestyle=style.dash, linewidth=1.6, label=data)
        axis.plot(np.tile(place, len(values)), values.ravel(), style.marker, color=style.color, markersize=4)
    buckets = next(iter(found.values()))[0]
    labels = [f"{b['from']}+" if b["to"] is None or b["to"] > b["from"] else f"{b['from']}" for b in buckets]
    axis.set_xticks(range(len(labels)), labels)
    axis.set(xlabel="exposures before the test period (lower end of the bucket)", ylabel="behaviour share", ylim=(0, 1))
    axis.legend(ncols=2)
    return figure


def draw_ablation(sweep: Sweep, comparisons: Comparisons) -> Figure | None:
    """Change of recall@50 by each ablation with its 95% interval, all clicks and cold ones, a panel per data set."""
    group = sweep.groups["ablation"]
    names = [name for name in sweep.members_anywhere("ablation") if name != group.reference]
    rows = {
        (data, part, name): comparison
        for data in group.data
        for part in ("all", "cold")
        for name in names
        if (comparison := comparisons.find(group.reference or OURS, name, data, part, METRICS[0]))
    }
    shown = [name for name in names if any(key[2] == name for key in rows)]
    data_sets = [data for data in group.data if any(key[0] == data for key in rows)]
    if not shown:
        return None
    size = (PANEL[0] + _LABELS / len(data_sets), 1.2 + 0.3 * len(shown))  # the first panel has room for its labels
    figure, axes = make_panels(len(data_sets), size=size, columns=len(data_sets), share=True)
    marks = {"all": ("o", "#1c2025", -0.13), "cold": ("s", "#2f7ed8", 0.13)}
    for axis, data in zip(axes, data_sets, strict=True):
        axis.axvline(0, color="#6a717d", linewidth=0.8)
        for part, (marker, color, shift) in marks.items():
            found = [(index, rows[data, part, name]) for index, name in enumerate(shown) if (data, part, name) in rows]
            if found:
                _intervals(axis, found, marker=marker, color=color, shift=shift, label=SLICE_NAMES[part])
        axis.set_yticks(range(len(shown)), [sweep.label(name) for name in shown])
        axis.set_ylim(len(shown) - 0.5, -0.5)
        axis.set_title(data)
        axis.set_xlabel(f"change of {METRICS[0]}")
        axis.xaxis.set_major_locator(MaxNLocator(4))
    legend_below(figure, axes, columns=2)
    return figure


def _intervals(
    axis: Any, found: Sequence[tuple[int, Comparison]], *, marker: str, color: str, shift: float, label: str
) -> None:
    place = np.array([index + shift for index, _ in found])
    value = np.array([-comparison.difference for _, comparison in found])  # change minus reference
    low, high = (np.array([-getattr(comparison, end) for _, comparison in found]) for end in ("high", "low"))
    # An interval of a skewed bootstrap need not hold its estimate.
    reach = np.maximum([value - low, high - value], 0)
    axis.errorbar(
        value, place, xerr=reach, fmt=marker, color=color, markersize=4, linewidth=1.2, label=label
    )  # fmt: skip


def _styles() -> dict[str, LineStyle]:
    return line_styles(OURS, [name for name in RIVALS if name not in _BASELINES], _BASELINES)


def _level_zero(results: Results, name: str, data: str) -> int:
    curve = next(iter(results.seeds(name, data).values())).content["bias_curve"]["test"]
    return int(np.argmin(np.abs(curve["level"])))
