"""Draws the plots of a tuning: history, learning curves, importance, and the metric by each setting.

`drawing.py` has their style. A plot without data is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from recall.config.search_space import Dimension, value_text
from recall.config.tunable import OneOf
from recall.runs.report.drawing import ACCENT, COLD, FULL, INK, MUTED, PAPER, inline_svg, set_title

if TYPE_CHECKING:
    from recall.runs.tuning.study import Trial

_MOST = 12  # settings that are drawn
_COLUMNS = 3
_LONG = 8  # characters of a label that is turned


@inline_svg
def tuning_history(trials: Sequence[Trial], *, metric: str) -> Figure | None:
    """Plot the metric of each trial, the best so far, and the trials that ended early."""
    complete = [trial for trial in trials if trial.value is not None]
    if not complete:
        return None
    figure = Figure(figsize=FULL, layout="constrained")
    axis = figure.subplots()
    numbers, values = [trial.number for trial in complete], [trial.value or 0.0 for trial in complete]
    best = [max(values[: end + 1]) for end in range(len(values))]
    axis.step(
        [*numbers, max(trial.number for trial in trials)], [*best, best[-1]], where="post", color=ACCENT, linewidth=1.8,
        label="best so far",
    )  # fmt: skip
    axis.plot(numbers, values, "o", color=INK, markersize=5, label="complete")
    for trial in complete:
        if trial.is_configured and trial.value is not None:
            axis.axhline(trial.value, color=MUTED, linestyle=(0, (5, 3)), linewidth=1, label="as configured")
    low, high = min(values), max(values)
    bottom = low - 0.08 * ((high - low) or 0.01)
    for state, marker in (("pruned", "x"), ("failed", "*")):
        places = [trial.number for trial in trials if trial.state == state]
        if places:
            axis.plot(places, [bottom] * len(places), marker, color=COLD, markersize=7, label=state)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    set_title(figure, "Trials")
    axis.set_xlabel("trial")
    axis.set_ylabel(f"{metric}, validation clicks")
    figure.legend(loc="outside lower left", ncols=5)
    return figure


@inline_svg
def tuning_curves(trials: Sequence[Trial], *, best: int) -> Figure | None:
    """Plot the validation metric of the training after each epoch, one line per trial."""
    drawn = [trial for trial in trials if trial.curve]
    if not drawn:
        return None
    figure = Figure(figsize=FULL, layout="constrained")
    axis = figure.subplots()
    for trial in drawn:
        style: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": "-"}
        if trial.state != "complete":
            style |= {"color": COLD, "linestyle": (0, (2, 1.5))}
        if trial.is_configured:
            style |= {"color": INK, "linewidth": 2, "linestyle": (0, (5, 2)), "label": "as configured"}
        if trial.number == best:
            style |= {"color": ACCENT, "linewidth": 2.4, "linestyle": "-", "label": "best trial"}
        axis.plot(range(1, len(trial.curve) + 1), trial.curve, marker="o", markersize=3, **style)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    set_title(figure, "Validation metric of the training")
    axis.set_xlabel("epoch")
    axis.set_ylabel("validation clicks, frozen items")
    figure.legend(loc="outside lower left", ncols=4)
    return figure


@inline_svg
def tuning_importance(importance: Mapping[str, float]) -> Figure | None:
    """Plot the importance of each setting as a bar."""
    shown = sorted(importance.items(), key=lambda entry: entry[1])[-_MOST:]
    if not shown:
        return None
    figure = Figure(figsize=(7.2, 1.1 + 0.3 * len(shown)), layout="constrained")
    axis = figure.subplots()
    axis.barh([key for key, _ in shown], [share for _, share in shown], color=ACCENT, height=0.6)
    for place, (_, share) in enumerate(shown):
        axis.annotate(f"{share:.2f}", (share, place), xytext=(4, 0), textcoords="offset points", va="center")
    axis.grid(axis="y", visible=False)
    axis.set_xlim(0, 1.12 * max(share for _, share in shown) or 1)
    set_title(figure, "Which settings matter")
    axis.set_xlabel("share of variance")
    return figure


@inline_svg
def tuning_slices(trials: Sequence[Trial], space: Sequence[Dimension], *, metric: str, best: int) -> Figure | None:
    """Plot the metric of the complete trials against each setting.

    Args:
      trials: all trials.
      space: the settings in their order on the page.
      metric: name of the metric.
      best: number of the best trial.
    """
    complete = [trial for trial in trials if trial.value is not None]
    if len(complete) < 2:
        return None
    drawn = space[:_MOST]
    rows = math.ceil(len(drawn) / _COLUMNS)
    figure = Figure(figsize=(FULL[0], 0.7 + 2.2 * rows), layout="constrained")
    axes = figure.subplots(rows, min(_COLUMNS, len(drawn)), sharey=True, squeeze=False).ravel()
    for axis, dimension in zip(axes, drawn, strict=False):
        _draw_slice(axis, complete, dimension, best=best)
    for axis in axes[len(drawn) :]:
        axis.set_visible(False)
    set_title(figure, "The metric by each setting")
    figure.supylabel(metric, fontsize=9.5)
    return figure


def _draw_slice(axis: Axes, trials: Sequence[Trial], dimension: Dimension, *, best: int) -> None:
    space = dimension.space
    if isinstance(space, OneOf):
        labels = [value_text(value) for value in space.values]
        is_long = max(map(len, labels)) > _LONG
        axis.set_xticks(range(len(labels)), labels, rotation=12 if is_long else 0, ha="right" if is_long else "center")
        axis.tick_params(axis="x", labelsize=7 if is_long else 8)
        axis.set_xlim(-0.5, len(space.values) - 0.5)
    elif space.log:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    for trial in trials:
        value = trial.settings[dimension.key]
        place = space.values.index(value) if isinstance(space, OneOf) else value
        height = math.nan if trial.value is None else trial.value
        axis.plot(
            place, height, "s" if trial.is_configured else "o", markersize=7 if trial.is_configured else 5,
            color=INK if trial.is_configured else ACCENT, markeredgecolor=PAPER, zorder=3,
        )  # fmt: skip
        if trial.number == best:
            axis.plot(place, height, "o", markersize=12, markerfacecolor="none", markeredgecolor=INK, zorder=4)
    axis.set_xlabel(dimension.key, fontsize=8.5)
