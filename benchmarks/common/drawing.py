"""The look of plots: panels side by side, one legend below, SVG files that change only when results do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

PANEL = (3.7, 3.1)
"""Inches."""

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    # A page may be dark: paper under the ink.
    "figure.facecolor": "white",
    "svg.hashsalt": "recall",
}


def save_figures(folder: Path, figures: Mapping[str, Figure | None]) -> list[Path]:
    """Writes NAME.svg of each figure there is; returns the files."""
    written = []
    for name, figure in figures.items():
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            written.append(folder / f"{name}.svg")
    return written


def make_panels(
    count: int, *, size: tuple[float, float] = PANEL, columns: int = 2, share: bool = False
) -> tuple[Figure, list[Any]]:
    """A figure with so many axes, row by row."""
    columns = min(count, columns)
    lines = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=share).ravel().tolist()
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def legend_below(figure: Figure, axes: Sequence[Any], *, columns: int) -> None:
    """One legend for all panels, below them."""
    handles: dict[str, Any] = {}
    for axis in axes:
        found, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)
