"""Draws what each day cost and how its model did, beside a training of the whole log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context

from benchmarks.common.drawing import STYLE, legend_below, make_panels, save_figures
from benchmarks.every_day.measure import METRIC
from recall.runs.report.drawing import line_styles

_TRAINING = ("train", "go_on", "refit")


def write_plot(results: Path, plots: Path) -> list[Path]:
    """Draw the results of a folder; returns the files."""
    found = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    with rc_context(STYLE):
        figure, axes = make_panels(2 * len(found), size=(5.6, 3.4))
        for place, result in enumerate(found):
            _draw_cost(axes[2 * place], result)
            _draw_quality(axes[2 * place + 1], result)
        legend_below(figure, axes, columns=4)
        return save_figures(plots, {"every_day": figure})


def _draw_cost(axis: Any, result: dict[str, Any]) -> None:
    run = result["runs"][0]
    names = ["first run", *(f"day {day['day']}" for day in run["days"][1:]), "anew"]
    days = [*run["days"], run["whole"]]
    prepare = np.array([day["seconds"]["prepare"] for day in days])
    train = np.array([sum(day["seconds"][step] for step in _TRAINING) for day in days])
    axis.bar(names, prepare, color="0.45", label="prepare")
    axis.bar(names, train, bottom=prepare, color="0.75", label="train")
    for place, seconds in enumerate(prepare + train):
        axis.annotate(f"{seconds:.0f}", (place, seconds), ha="center", va="bottom", fontsize="small")
    axis.set_title("What a day costs")
    axis.set_ylabel("seconds")
    axis.tick_params(axis="x", rotation=45)


def _draw_quality(axis: Any, result: dict[str, Any]) -> None:
    run = result["runs"][0]
    configured = next(iter(run["days"][0][METRIC]))
    styles = line_styles(configured, [], ["trending"])
    for name, style in styles.items():
        values = [day[METRIC][name] for day in run["days"]]
        axis.plot([day["day"] for day in run["days"]], values, color=style.color, linestyle=style.dash,
                  linewidth=style.width, marker=style.marker, markersize=5, label=name)  # fmt: skip
    judged = run["judged"]
    axis.plot([judged["day"]], [judged[METRIC][configured]], "D", color="0.2", markersize=8, markerfacecolor="none",
              label=f"{configured}, trained anew")  # fmt: skip
    axis.set_ylim(bottom=0)
    axis.set_title("Each day's clicks, before they were learned")
    axis.set_xlabel("day")
    axis.set_ylabel(f"rolling {METRIC}")
