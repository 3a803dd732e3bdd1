"""Holds the style of the report's plots, and turns figures into inline SVG.

Every plot reads without colour (line styles, markers, fills) and takes the page's ink and paper through CSS
variables, so that it follows a dark page and prints on a white one.
"""

from __future__ import annotations

import functools
import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Placeholders that `_svg` turns into CSS variables; the fallbacks hold when a plot is saved on its own.
INK, MUTED, PAPER = "#1c2025", "#6a717d", "#fefefd"
_VARIABLES = {INK: f"var(--ink, {INK})", MUTED: f"var(--muted, {MUTED})", PAPER: f"var(--paper, {PAPER})"}
ACCENT = "#2f7ed8"
WARM, COLD = "#9cc3ee", "#c9520a"  # light and dark without colour, too
FULL, HALF, SQUARE = (8.8, 4.1), (5.2, 3.9), (6.4, 5.6)  # inches

_STYLE: Any = {
    "font.family": "sans-serif",
    # Measured with a wide face and shown in the page's own, a text never needs more room than was kept for it.
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.parse_math": False,
    "text.color": INK,
    "figure.titleweight": "bold",
    "figure.titlesize": 11,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": MUTED,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
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


CONFIGURED = LineStyle(ACCENT, "-", "o", 2.6)
_OTHERS = (
    LineStyle("#d9600a", (0, (5, 1.6)), "s", 1.5),
    LineStyle("#12926c", (0, (7, 1.5, 1.2, 1.5)), "^", 1.5),
    LineStyle("#b0529c", (0, (1.2, 1.2)), "D", 1.5),
    LineStyle("#b58a0b", (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2)), "v", 1.5),
    LineStyle("#8a6a55", (0, (9, 2)), "p", 1.5),
)
_BASELINES = (
    LineStyle(MUTED, (0, (2.5, 1.5)), "P", 1.3),
    LineStyle(MUTED, (0, (1, 2.2)), "X", 1.3),
    LineStyle(MUTED, (0, (6, 1.5)), "h", 1.3),
    LineStyle(MUTED, (0, (4, 1.5, 1, 1.5)), "*", 1.3),
    LineStyle(MUTED, (0, (8, 1, 1, 1, 1, 1)), "d", 1.3),
)


def line_styles(configured: str, others: Sequence[str], baselines: Sequence[str]) -> dict[str, LineStyle]:
    """Choose a style per model for all plots: the configured model stands out, baselines step back."""
    styles = {configured: CONFIGURED}
    styles.update((name, _OTHERS[i % len(_OTHERS)]) for i, name in enumerate(others))
    styles.update((name, _BASELINES[i % len(_BASELINES)]) for i, name in enumerate(baselines))
    return styles


def inline_svg(draw: Callable[_Parameters, Figure | None]) -> Callable[_Parameters, str | None]:
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


def set_title(figure: Figure, text: str) -> None:
    """Give a figure a title."""
    figure.suptitle(text, x=0.0, ha="left")  # flush with the text of the page


def draw_line(axis: Axes, x: Any, y: Any, style: LineStyle, *, label: str | None = None, markevery: int = 1) -> None:
    """Draw the line of one model."""
    axis.plot(
        x,
        y,
        color=style.color,
        linestyle=style.dash,
        linewidth=style.width,
        marker=style.marker,
        markevery=markevery,
        markersize=6,
        markerfacecolor=style.color if style is CONFIGURED else PAPER,
        markeredgecolor=style.color,
        markeredgewidth=1.2,
        label=label,
        zorder=4 if style is CONFIGURED else 3,
        clip_on=False,
    )
