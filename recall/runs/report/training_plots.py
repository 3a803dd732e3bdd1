"""Draws the plots of the report over epochs: losses and validation. A plot without data is None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recall.evaluation.slices import metric_value
from recall.runs.report.drawing import HALF, INK, LineStyle, draw_line, inline_svg, line_styles, set_title
from recall.runs.report.numbers import best_epoch, validation_metric


@inline_svg
def training_loss(
    training: Mapping[str, Sequence[Mapping[str, Any]]], *, styles: Mapping[str, LineStyle]
) -> Figure | None:
    """Plot the training loss per epoch, one line per model."""
    curves = {name: (epochs, "loss") for name, epochs in training.items() if any("loss" in epoch for epoch in epochs)}
    return _curves(curves, styles=styles, title="Training loss", unit="loss (nats, weighted sum of terms)")


@inline_svg
def training_validation(
    training: Mapping[str, Sequence[Mapping[str, Any]]], *, styles: Mapping[str, LineStyle]
) -> Figure | None:
    """Plot the validation metric per epoch, one line per model; the best epoch is marked."""
    keys = {name: validation_metric(epochs) for name, epochs in training.items()}
    curves = {name: (training[name], key) for name, key in keys.items() if key}
    unit = " / ".join(dict.fromkeys(key.removeprefix("val_") for _, key in curves.values()))
    return _curves(curves, styles=styles, title="Validation metric", unit=f"{unit}, validation clicks", mark_best=True)


@inline_svg
def training_terms(epochs: Sequence[Mapping[str, Any]], *, model: str) -> Figure | None:
    """Plot the terms of one model's loss: all keys of its history that name a loss, but the sum and validation.

    The history has each term times its weight, so that the terms add up to the loss.
    """
    names = dict.fromkeys(key for epoch in epochs for key in epoch)
    terms = [key for key in names if "loss" in key and key != "loss" and not key.startswith("val_")]
    labels = {key: key.replace("loss", "").strip("_ ").replace("_", " ") or key for key in terms}
    curves = {labels[key]: (epochs, key) for key in terms}
    styles = line_styles("", list(curves), [])
    return _curves(curves, styles=styles, title=f"Terms of the loss of {model}", unit="loss (nats, weighted)")


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
    figure = Figure(figsize=HALF, layout="constrained")
    axis = figure.subplots()
    for name, (epochs, key) in ordered.items():
        numbers = [epoch.get("epoch", index + 1) for index, epoch in enumerate(epochs)]
        values = [metric_value(epoch, key) for epoch in epochs]
        draw_line(axis, numbers, values, styles[name], label=name, markevery=1 + len(epochs) // 12)
        best = best_epoch(epochs) if mark_best else None
        if best is not None:
            number = next(n for n, epoch in zip(numbers, epochs, strict=True) if epoch is best)
            axis.plot(number, best[key], "o", markersize=13, markerfacecolor="none", markeredgecolor=INK, zorder=5)
    if mark_best:
        axis.plot([], [], "o", markersize=10, markerfacecolor="none", markeredgecolor=INK, label="best epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    set_title(figure, title)
    axis.set_xlabel("epoch")
    axis.set_ylabel(unit)
    figure.legend(loc="outside lower left", ncols=3)
    return figure
