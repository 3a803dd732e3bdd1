"""Draws the plots of the report as inline SVG.

Every plot reads without colour (line styles, markers, fills) and takes the page's ink and paper through CSS
variables, so that it follows a dark page and prints on a white one. A plot without data is None.
"""

from __future__ import annotations

import functools
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from recall.core.arrays import AnyFloats
from recall.evaluation.slices import bucket_label, metric_value
from recall.runs.report.numbers import (
    GateCurve,
    best_epoch,
    exposure_edges,
    gate_curve,
    principal_plane,
    spread,
    validation_metric,
    wilson_interval,
)

# Placeholders that `_svg` turns into CSS variables; the fallbacks hold when a plot is saved on its own.
_INK, _MUTED, _PAPER = "#1c2025", "#6a717d", "#fefefd"
_VARIABLES = {_INK: f"var(--ink, {_INK})", _MUTED: f"var(--muted, {_MUTED})", _PAPER: f"var(--paper, {_PAPER})"}
_ACCENT = "#2f7ed8"
_WARM, _COLD = "#9cc3ee", "#c9520a"  # light and dark without colour, too
_FULL, _HALF, _SQUARE = (8.8, 4.1), (5.2, 3.9), (6.4, 5.6)  # inches

_STYLE: Any = {
    "font.family": "sans-serif",
    # Measured with a wide face and shown in the page's own, a text never needs more room than was kept for it.
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.parse_math": False,
    "text.color": _INK,
    "figure.titleweight": "bold",
    "figure.titlesize": 11,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _MUTED,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "svg.fonttype": "none",
    "svg.hashsalt": "recall",
}

_Parameters = ParamSpec("_Parameters")


class LineStyle(NamedTuple):
    """Describe how one model is drawn in all plots: dash and marker tell models apart, colour only helps."""

    color: str
    dash: Any
    marker: str
    width: float


_CONFIGURED = LineStyle(_ACCENT, "-", "o", 2.6)
_OTHERS = (
    LineStyle("#d9600a", (0, (5, 1.6)), "s", 1.5),
    LineStyle("#12926c", (0, (7, 1.5, 1.2, 1.5)), "^", 1.5),
    LineStyle("#b0529c", (0, (1.2, 1.2)), "D", 1.5),
    LineStyle("#b58a0b", (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2)), "v", 1.5),
    LineStyle("#8a6a55", (0, (9, 2)), "p", 1.5),
)
_BASELINES = (
    LineStyle(_MUTED, (0, (2.5, 1.5)), "P", 1.3),
    LineStyle(_MUTED, (0, (1, 2.2)), "X", 1.3),
)


def line_styles(configured: str, others: Sequence[str], baselines: Sequence[str]) -> dict[str, LineStyle]:
    """Choose a style per model for all plots: the configured model stands out, baselines step back."""
    styles = {configured: _CONFIGURED}
    styles.update((name, _OTHERS[i % len(_OTHERS)]) for i, name in enumerate(others))
    styles.update((name, _BASELINES[i % len(_BASELINES)]) for i, name in enumerate(baselines))
    return styles


def _inline_svg(draw: Callable[_Parameters, Figure | None]) -> Callable[_Parameters, str | None]:
    """Wrap `draw` to run under the report's style and to return its figure as an SVG element."""

    @functools.wraps(draw)
    def drawn(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> str | None:
        with rc_context(_STYLE):
            figure = draw(*args, **kwargs)
            return None if figure is None else _svg(figure, draw.__name__)

    return drawn


def _svg(figure: Figure, name: str) -> str:
    stream = io.StringIO()
    # All metadata off: a date would make equal runs give different reports, the rest are links to the outside.
    nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", dpi=220, metadata=nothing)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    # Ids are global in an HTML page, and every figure of matplotlib has a `figure_1`.
    for reference in ('id="', 'href="#', "url(#"):
        svg = svg.replace(reference, f"{reference}{name}-")
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    opening, rest = svg.split(">", 1)
    opening = re.sub(r' (width|height)="[^"]*"', "", opening)  # the page decides how large
    title = html.escape(figure.get_suptitle())
    return f'{opening} role="img" aria-label="{title}">{rest}'


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.0, ha="left")  # flush with the text of the page


# --- recall by exposures -------------------------------------------------------------------------------------


@_inline_svg
def recall_by_exposures(
    slices: Mapping[str, Sequence[Mapping[str, Any]]], *, metric: str, styles: Mapping[str, LineStyle], configured: str
) -> Figure | None:
    """Plot points and lines over exposure slices, one line per model.

    Args:
      slices: per model its `by_exposures` list; a null metric leaves a gap.
      metric: key of the metric, e.g. `recall@50`.
      styles: result of `line_styles`; its order is the drawing order.
      configured: the model that gets 95% intervals.
    """
    slices = {name: slices[name] for name in styles if slices.get(name)}
    if not slices:
        return None
    first = next(iter(slices.values()))
    lines = {name: np.array([metric_value(part, metric) for part in parts]) for name, parts in slices.items()}
    if not any(np.isfinite(line).any() for line in lines.values()):
        return None
    figure = Figure(figsize=_FULL, layout="constrained")
    axis = figure.subplots()
    offsets = np.linspace(-0.14, 0.14, len(lines)) if len(lines) > 1 else np.zeros(1)
    ends: dict[str, tuple[float, float]] = {}
    for offset, (name, line) in zip(offsets, lines.items(), strict=True):
        places = np.arange(len(line)) + offset
        _line(axis, places, line, styles[name])
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
    _title(figure, f"{metric} by exposures of the clicked item")
    axis.set_xlabel("exposures of the clicked item before the test period; n = test clicks")
    axis.set_ylabel(f"{metric} (share of clicks)")
    return figure


def _line(axis: Axes, x: Any, y: Any, style: LineStyle, *, label: str | None = None, markevery: int = 1) -> None:
    axis.plot(
        x,
        y,
        color=style.color,
        linestyle=style.dash,
        linewidth=style.width,
        marker=style.marker,
        markevery=markevery,
        markersize=6,
        markerfacecolor=style.color if style is _CONFIGURED else _PAPER,
        markeredgecolor=style.color,
        markeredgewidth=1.2,
        label=label,
        zorder=4 if style is _CONFIGURED else 3,
        clip_on=False,
    )


def _label_ends(
    axis: Axes, ends: Mapping[str, tuple[float, float]], styles: Mapping[str, LineStyle], *, at: float
) -> None:
    top = axis.get_ylim()[1]
    heights = spread([y for _, y in ends.values()], gap=top * 0.058)
    heights = [height + max(0.0, -min(heights)) for height in heights]
    for (name, (x, y)), height in zip(ends.items(), heights, strict=True):
        style = styles[name]
        axis.plot([x + 0.05, at], [y, height], color=style.color, linewidth=0.7, alpha=0.7, clip_on=False)
        weight = "bold" if style is _CONFIGURED else "normal"
        axis.text(at + 0.03, height, name, color=_INK, va="center", fontweight=weight, clip_on=False)


# --- the gate ------------------------------------------------------------------------------------------------


@_inline_svg
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
    figure = Figure(figsize=_FULL, layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=[width for width, _ in panels])
    axes = {name: axis for axis, (_, name) in zip(grid[0], panels, strict=True)}
    if "none" in axes:
        _gate_without_exposures(axes["none"], share[~warm], curve)
    if "some" in axes:
        _gate_with_exposures(figure, axes["some"], exposures[warm], share[warm], curve)
    first = grid[0][0]
    first.set_ylim(-0.02, 1.02)
    first.set_ylabel("behaviour share of the item vector")
    _title(figure, "How far the gate trusts behaviour, by exposures")
    return figure


def _gate_without_exposures(axis: Axes, share: AnyFloats, curve: GateCurve) -> None:
    axis.hist(share, bins=list(np.linspace(0, 1, 41)), orientation="horizontal", color=_MUTED, alpha=0.45)
    none = int(np.flatnonzero(curve.low == 0)[0])
    axis.axhspan(curve.lower_quartile[none], curve.upper_quartile[none], color=_ACCENT, alpha=0.22, linewidth=0)
    axis.axhline(curve.median[none], color=_ACCENT, linewidth=2.6)
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
    style: dict[str, Any] = {"color": _ACCENT, "linewidth": 0.9, "linestyle": (0, (4, 2))}
    axis.fill_between(
        curve.exposures[some], curve.lower_quartile[some], curve.upper_quartile[some], color=_ACCENT, alpha=0.22, lw=0
    )
    axis.plot(curve.exposures[some], curve.lower_quartile[some], label="quartiles", **style)
    axis.plot(curve.exposures[some], curve.upper_quartile[some], **style)
    middle = (curve.exposures[some], curve.median[some])
    axis.plot(*middle, color=_PAPER, linewidth=5.5, marker="o", markersize=10)  # keeps the line apart from the grey
    axis.plot(*middle, color=_ACCENT, linewidth=2.6, marker="o", label="median")
    axis.set_xscale("log")
    axis.set_xlim(0.8, max(10.0, exposures.max() * 1.25))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axis.set_xlabel(f"exposures of the item (log scale; {len(share):,} items)")
    axis.legend(loc="lower right")


# --- training ------------------------------------------------------------------------------------------------


@_inline_svg
def training_loss(
    training: Mapping[str, Sequence[Mapping[str, Any]]], *, styles: Mapping[str, LineStyle]
) -> Figure | None:
    """Plot the training loss per epoch, one line per model."""
    curves = {name: (epochs, "loss") for name, epochs in training.items() if any("loss" in epoch for epoch in epochs)}
    return _curves(curves, styles=styles, title="Training loss", unit="loss (nats, weighted sum of terms)")


@_inline_svg
def training_validation(
    training: Mapping[str, Sequence[Mapping[str, Any]]], *, styles: Mapping[str, LineStyle]
) -> Figure | None:
    """Plot the validation metric per epoch, one line per model; the best epoch is marked."""
    keys = {name: validation_metric(epochs) for name, epochs in training.items()}
    curves = {name: (training[name], key) for name, key in keys.items() if key}
    unit = " / ".join(dict.fromkeys(key.removeprefix("val_") for _, key in curves.values()))
    return _curves(curves, styles=styles, title="Validation metric", unit=f"{unit}, validation clicks", mark_best=True)


@_inline_svg
def training_terms(epochs: Sequence[Mapping[str, Any]], *, model: str) -> Figure | None:
    """Plot the terms of one model's loss: all keys of its history that name a loss, but the sum and validation."""
    names = dict.fromkeys(key for epoch in epochs for key in epoch)
    terms = [key for key in names if "loss" in key and key != "loss" and not key.startswith("val_")]
    labels = {key: key.replace("loss", "").strip("_ ").replace("_", " ") or key for key in terms}
    curves = {labels[key]: (epochs, key) for key in terms}
    styles = line_styles("", list(curves), [])
    return _curves(curves, styles=styles, title=f"Terms of the loss of {model}", unit="loss (unweighted)")


def _curves(
    curves: Mapping[str, tuple[Sequence[Mapping[str, Any]], str]],
    *,
    styles: Mapping[str, LineStyle],
    title: str,
    unit: str,
    mark_best: bool = False,
) -> Figure | None:
    ordered = {name: curves[name] for name in styles if name in curves}
    if not ordered:
        return None
    figure = Figure(figsize=_HALF, layout="constrained")
    axis = figure.subplots()
    for name, (epochs, key) in ordered.items():
        numbers = [epoch.get("epoch", index + 1) for index, epoch in enumerate(epochs)]
        values = [metric_value(epoch, key) for epoch in epochs]
        _line(axis, numbers, values, styles[name], label=name, markevery=1 + len(epochs) // 12)
        best = best_epoch(epochs) if mark_best else None
        if best is not None:
            number = next(n for n, epoch in zip(numbers, epochs, strict=True) if epoch is best)
            axis.plot(number, best[key], "o", markersize=13, markerfacecolor="none", markeredgecolor=_INK, zorder=5)
    if mark_best:
        axis.plot([], [], "o", markersize=10, markerfacecolor="none", markeredgecolor=_INK, label="best epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _title(figure, title)
    axis.set_xlabel("epoch")
    axis.set_ylabel(unit)
    figure.legend(loc="outside lower left", ncols=3)
    return figure


# --- the map of item vectors ---------------------------------------------------------------------------------


@_inline_svg
def item_map(vectors: AnyFloats, is_cold: NDArray[np.bool_], *, most: int = 5000, seed: int = 0) -> Figure | None:
    """Plot the principal plane of the item vectors, cold items marked; a seeded sample of at most `most` items."""
    kept = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    if len(kept) > most:
        kept = np.sort(np.random.default_rng(seed).choice(kept, most, replace=False))
    if len(kept) < 3:
        return None
    points, variance = principal_plane(vectors[kept])
    cold = np.asarray(is_cold, dtype=bool)[kept]
    figure = Figure(figsize=_SQUARE, layout="constrained")
    axis = figure.subplots()
    axis.scatter(
        points[~cold, 0],
        points[~cold, 1],
        s=9,
        color=_WARM,
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
            edgecolor=_COLD,
            linewidths=0.8,
            rasterized=True,
            label=f"cold: neither shown nor clicked ({cold.sum():,})",
        )
    axis.set_aspect("equal", adjustable="datalim")
    _title(figure, "Map of the item vectors")
    axis.set_xlabel(f"first principal component ({variance[0]:.0%} of the variance)")
    axis.set_ylabel(f"second principal component ({variance[1]:.0%})")
    figure.legend(loc="outside lower left", markerscale=2)
    return figure
