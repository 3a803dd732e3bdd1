"""Draws recall by the clicks that an item had when asked for, a panel per experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context

from benchmarks.common.drawing import STYLE, legend_below, make_panels, save_figures
from benchmarks.warm_up.measure import K
from recall.evaluation.slices import bucket_label, metric_value
from recall.runs.report.drawing import line_styles

FEWEST = 10
"""Buckets with fewer clicks are not drawn."""
# What a kept model is to reach: from so many clicks on, this share of the retrained one's recall.
GOALS = ((3, 0.5), (10, 0.8))


def write_plot(results: Path, plots: Path) -> list[Path]:
    """Draw the results of a folder in which the retrained model recalls anything; returns the files."""
    found = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    found = [result for result in found if any(bucket["retrained"] for bucket in result["buckets"])]
    with rc_context(STYLE):
        figure, axes = make_panels(len(found), size=(5.6, 3.4))
        for axis, result in zip(axes, found, strict=True):
            _draw(axis, result)
        legend_below(figure, axes, columns=3)
        return save_figures(plots, {"warm_up": figure})


def _draw(axis: Any, result: dict[str, Any]) -> None:
    buckets = [bucket for bucket in result["buckets"] if bucket["clicks"] >= FEWEST]
    places = np.arange(len(buckets))
    styles = line_styles("kept", ["retrained"], [])
    for name, style in styles.items():
        values = [metric_value(bucket, name) for bucket in buckets]
        axis.plot(places, values, color=style.color, linestyle=style.dash, linewidth=style.width,
                  marker=style.marker, markersize=5, label=f"{name} model")  # fmt: skip
    for number, (least, share) in enumerate(GOALS):
        reached = [index for index, bucket in enumerate(buckets) if bucket["from"] == least]
        for index in reached:
            goal = share * metric_value(buckets[index], "retrained")
            axis.hlines(goal, index - 0.3, index + 0.3, color="0.35", label=None if number else "to reach")
    axis.set_xticks(places, [f"{bucket_label(bucket)}\nn = {bucket['clicks']:,}" for bucket in buckets])
    axis.set_ylim(bottom=0)
    axis.set_title(result["experiment"])
    axis.set_xlabel("clicks of the item when it is asked for")
    axis.set_ylabel(f"rolling recall@{K}")
