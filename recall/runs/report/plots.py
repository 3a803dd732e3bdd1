"""Draws the plots of the report over items: recall by exposures, the gate, and the map. A plot without data is None.

`training_plots.py` draws the plots over epochs, `drawing.py` has their style.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

from recall.core.arrays import AnyFloats
from recall.evaluation.slices import bucket_label, metric_value
from recall.runs.report.drawing import (
    ACCENT,
    COLD,
    CONFIGURED,
    FULL,
    INK,
    MUTED,
    PAPER,
    SQUARE,
    WARM,
    LineStyle,
    draw_line,
    inline_svg,
    set_title,
)
from recall.runs.report.numbers import GateCurve, exposure_edges, gate_curve, principal_plane, spread, wilson_interval

# --- recall by exposures -------------------------------------------------------------------------------------


@inline_svg
def recall_by_exposures(
    slices: Mapping[str, Sequence[Mapping[str, Any]]], *, metric: str, styles: Mapping[str, LineStyle], configured: str
) -> Figure | None:
    """Plot points and lines over slices by exposures before the test period, one line per model.

    Args:
      slices: per model its `by_exposures` list; a null metric leaves a gap.
      metric: key of the metric, e.g. `recall@50`.
      styles: result of `line_styles`; its order is the drawing order.
      configured: the model that gets 95% intervals.
    """
    figure = _by_exposures(slices, metric=metric, styles=styles, configured=configured, when="before the test period")
    if figure:
        set_title(figure, f"{metric} by exposures of the clicked item")
    return figure


@inline_svg
def rolling_by_exposures(
    slices: Mapping[str, Sequence[Mapping[str, Any]]], *, metric: str, styles: Mapping[str, LineStyle], configured: str
) -> Figure | None:
    """Plot the same over slices by exposures as of the click; arguments as `recall_by_exposures`."""
    figure = _by_exposures(slices, metric=metric, styles=styles, configured=configured, when="as of the click")
    if figure:
        set_title(figure, f"{metric}, rolling, by exposures as of the click")
    return figure


def _by_exposures(
    slices: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    metric: str,
    styles: Mapping[str, LineStyle],
    configured: str,
    when: str,
) -> Figure | None:
    slices = {name: slices[name] for name in styles if slices.get(name)}
    if not slices:
        return None
    first = next(iter(slices.values()))
    lines = {name: np.array([metric_value(part, metric) for part in parts]) for name, parts in slices.items()}
    if not any(np.isfinite(line).any() for line in lines.values()):
        return None
    figure = Figure(figsize=FULL, layout="constrained")
    axis = figure.subplots()
    offsets = np.linspace(-0.14, 0.14, len(lines)) if len(lines) > 1 else np.zeros(1)
    ends: dict[str, tuple[float, float]] = {}
    for offset, (name, line) in zip(offsets, lines.items(), strict=True):
        places = np.arange(len(line)) + offset
        draw_line(axis, places, line, styles[name])
        if np.isfinite(line).any():
            last = int(np.flatnonzero(np.isfinite(line))[-1])
            ends[name] = (float(places[last]), float(line[last]))
        if name == configured:
            examples = np.array([part.get("examples") or 0 for part in slices[name]])
            low, high = wilson_interval(line, examples)
            axis.vlines(places, low, high, color=styles[name].color, linewidth=1.2, alpha=0.8)
    axis.set_ylim(bottom=0)
    _label_ends(axis, ends, styles, at=len(first) - 0.68)
    axis.set_xlim(-0.45, len(first) - 0.62)
    axis.set_xticks(range(len(first)), [f"{bucket_label(part)}\nn = {part.get('examples') or 0:,}" for part in first])
    axis.grid(visible=False, axis="x")
    axis.set_xlabel(f"exposures of the clicked item {when}; n = test clicks")
    axis.set_ylabel(f"{metric} (share of clicks)")
    return figure


def _label_ends(
    axis: Axes, ends: Mapping[str, tuple[float, float]], styles: Mapping[str, LineStyle], *, at: float
) -> None:
    top = axis.get_ylim()[1]
    heights = spread([y for _, y in ends.values()], gap=top * 0.058)
    heights = [height + max(0.0, -min(heights)) for height in heights]
    for (name, (x, y)), height in zip(ends.items(), heights, strict=True):
        style = styles[name]
        axis.plot([x + 0.05, at], [y, height], color=style.color, linewidth=0.7, alpha=0.7, clip_on=False)
        weight = "bold" if style is CONFIGURED else "normal"
        axis.text(at + 0.03, height, name, color=INK, va="center", fontweight=weight, clip_on=False)


# --- the gate ------------------------------------------------------------------------------------------------


@inline_svg
def gate_by_exposures(exposures: Any, behaviour_share: Any) -> Figure | None:
    """Plot the gate over the catalogue: density of items, median and quartiles; items without exposures apart."""
    share = np.asarray(behaviour_share, dtype=np.float64)
    exposures = np.asarray(exposures, dtype=np.int64)[np.isfinite(share)]
    share = share[np.isfinite(share)]
    if not len(share):
        return None
    curve = gate_curve(exposures, share)
    warm = exposures > 0
    panels = [(1.0, "none")] * bool((~warm).any()) + [(8.0, "some")] * bool(warm.any())
    figure = Figure(figsize=FULL, layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=[width for width, _ in panels])
    axes = {name: axis for axis, (_, name) in zip(grid[0], panels, strict=True)}
    if "none" in axes:
        _gate_without_exposures(axes["none"], share[~warm], curve)
    if "some" in axes:
        _gate_with_exposures(figure, axes["some"], exposures[warm], share[warm], curve)
    first = grid[0][0]
    first.set_ylim(-0.02, 1.02)
    first.set_ylabel("behaviour share of the item vector")
    set_title(figure, "How far the gate trusts behaviour, by exposures")
    return figure


def _gate_without_exposures(axis: Axes, share: AnyFloats, curve: GateCurve) -> None:
    axis.hist(share, bins=list(np.linspace(0, 1, 41)), orientation="horizontal", color=MUTED, alpha=0.45)
    none = int(np.flatnonzero(curve.low == 0)[0])
    axis.axhspan(curve.lower_quartile[none], curve.upper_quartile[none], color=ACCENT, alpha=0.22, linewidth=0)
    axis.axhline(curve.median[none], color=ACCENT, linewidth=2.6)
    axis.set_xticks([])
    axis.set_xlabel(f"none\n({len(share):,} items)")


def _gate_with_exposures(
    figure: Figure, axis: Axes, exposures: NDArray[np.int64], share: AnyFloats, curve: GateCurve
) -> None:
    # One grey of rising opacity, not a map from white to black: it reads on a dark page, too.
    shades = LinearSegmentedColormap.from_list("density", [(0.42, 0.44, 0.49, 0.08), (0.42, 0.44, 0.49, 0.75)])
    # Cells hold whole numbers of exposures; hexagons on a log scale would show stripes between 1, 2 and 3.
    across = exposure_edges(int(exposures.max()), bins_per_decade=10)[1:] - 0.5
    items, across, up = np.histogram2d(exposures, share, bins=(across, np.linspace(0, 1, 41)))
    shown = np.ma.masked_equal(items.T, 0)
    norm = LogNorm(1, max(2, shown.max()))
    cells = axis.pcolormesh(across, up, shown, norm=norm, cmap=shades, linewidth=0, rasterized=True)
    place = axis.inset_axes((1.015, 0.0, 0.018, 1.0))
    bar = figure.colorbar(cells, cax=place, format=FuncFormatter(lambda n, _: f"{n:,.0f}"))
    bar.set_label("items per cell (log scale)")
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.outline.set_visible(False)
    some = curve.low > 0
    style: dict[str, Any] = {"color": ACCENT, "linewidth": 0.9, "linestyle": (0, (4, 2))}
    axis.fill_between(
        curve.exposures[some], curve.lower_quartile[some], curve.upper_quartile[some], color=ACCENT, alpha=0.22, lw=0
    )
    axis.plot(curve.exposures[some], curve.lower_quartile[some], label="quartiles", **style)
    axis.plot(curve.exposures[some], curve.upper_quartile[some], **style)
    middle = (curve.exposures[some], curve.median[some])
    axis.plot(*middle, color=PAPER, linewidth=5.5, marker="o", markersize=10)  # keeps the line apart from the grey
    axis.plot(*middle, color=ACCENT, linewidth=2.6, marker="o", label="median")
    axis.set_xscale("log")
    axis.set_xlim(0.8, max(10.0, exposures.max() * 1.25))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axis.set_xlabel(f"exposures of the item (log scale; {len(share):,} items)")
    axis.legend(loc="lower right")


# --- the map of item vectors ---------------------------------------------------------------------------------


@inline_svg
def item_map(vectors: AnyFloats, is_cold: NDArray[np.bool_], *, most: int = 5000, seed: int = 0) -> Figure | None:
    """Plot the principal plane of the item vectors, cold items marked; a seeded sample of at most `most` items."""
    kept = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    if len(kept) > most:
        kept = np.sort(np.random.default_rng(seed).choice(kept, most, replace=False))
    if len(kept) < 3:
        return None
    points, variance = principal_plane(vectors[kept])
    cold = np.asarray(is_cold, dtype=bool)[kept]
    figure = Figure(figsize=SQUARE, layout="constrained")
    axis = figure.subplots()
    axis.scatter(
        points[~cold, 0],
        points[~cold, 1],
        s=9,
        color=WARM,
        alpha=0.6,
        linewidths=0,
        rasterized=True,
        label=f"shown or clicked before the test period ({(~cold).sum():,})",
    )
    if cold.any():
        axis.scatter(
            points[cold, 0],
            points[cold, 1],
            s=17,
            marker="^",
            facecolor="none",
            edgecolor=COLD,
            linewidths=0.8,
            rasterized=True,
            label=f"cold: neither shown nor clicked ({cold.sum():,})",
        )
    axis.set_aspect("equal", adjustable="datalim")
    set_title(figure, "Map of the item vectors")
    axis.set_xlabel(f"first principal component ({variance[0]:.0%} of the variance)")
    axis.set_ylabel(f"second principal component ({variance[1]:.0%})")
    figure.legend(loc="outside lower left", markerscale=2)
    return figure
