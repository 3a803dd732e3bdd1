"""Derives tables and plots from the results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.common.drawing import STYLE, legend_below, make_panels, save_figures
from benchmarks.common.pages import NOTHING, markdown_table, replace_tables
from recall.runs.loop.arms import RULES
from recall.runs.loop.measures import MEASURES
from recall.runs.report.drawing import line_styles

COLUMNS = (
    "probability", "share_of_oracle", "clicks_per_user", "young_share", "good_new_found", "new_with_10",
    "gini_items", "gini_authors", "authors_clicked",
)  # fmt: skip
DRAWN = ("probability", "good_new_found", "young_share", "gini_authors")
COMPARED = ("probability", "good_new_found")


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Read group -> loop.json."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def labelled(result: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """Replace the names of arms by their labels."""

    def renamed(parts: Mapping[str, Any]) -> dict[str, Any]:
        return {labels.get(arm, arm): part for arm, part in parts.items()}

    differences = [
        {**one, "arm": labels.get(one["arm"], one["arm"]), "against": labels.get(one["against"], one["against"])}
        for one in result["differences"]
    ]
    arms = {name: renamed(result[name]) for name in ("arms", "cpu_seconds")}
    return {**result, **arms, "differences": differences}


def write_tables(page: Path, results: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Any]) -> None:
    """Put the tables of all groups into the page; of a group without a result there is a sentence."""
    tables = {}
    for name in groups:
        result = results.get(name)
        tables[name] = NO_RESULT.format(name) if result is None else f"{about(result)}\n\n{arms_table(result)}"
    replace_tables(page, tables)


NO_RESULT = "Not measured yet: `python -m benchmarks.loop run --only {0}`."


def about(result: Mapping[str, Any]) -> str:
    """Say what was played, and how long an arm took."""
    settings, seconds = result["settings"], result["cpu_seconds"]
    slowest = max(seconds, key=lambda arm: float(seconds[arm]))
    seeds = "1 seed" if settings["seeds"] == 1 else f"{settings['seeds']} seeds"
    return (
        f"{settings['users']:,} users, {settings['items']:,} items, {settings['days']} days, {seeds}; {slowest} took "
        f"{seconds[slowest] / 60:.1f} minutes of one core."
    )


def arms_table(result: Mapping[str, Any]) -> str:
    """Build the table of all arms, with the differences of the first arm to each other one."""
    first = next(iter(result["arms"]))
    differences = {(one["against"], one["measure"]): one for one in result["differences"] if one["arm"] == first}
    header = ["arm", *(MEASURES[name].label for name in COLUMNS)]
    header += [f"{first} minus it: {MEASURES[name].label}" for name in COMPARED]
    rows = []
    for arm, parts in result["arms"].items():
        cells = [_value(parts["total"].get(name), MEASURES[name].digits) for name in COLUMNS]
        for name in COMPARED:
            cells.append(NOTHING if arm == first else _difference(differences[arm, name], MEASURES[name].digits))
        rows.append([arm, *cells])
    return markdown_table(header, rows)


def _value(one: Mapping[str, Any] | None, digits: int) -> str:
    return NOTHING if one is None or one["mean"] is None else f"{one['mean']:.{digits}f}"


def _difference(one: Mapping[str, Any], digits: int) -> str:
    if one["mean"] is None:
        return NOTHING
    mean = f"{one['mean']:+.{digits}f}"
    if one["low"] is None:
        return mean
    text = f"[{one['low']:+.{digits}f}, {one['high']:+.{digits}f}]"
    return f"**{mean}** {text}" if one["low"] > 0 or one["high"] < 0 else f"{mean} {text}"


def write_plots(folder: Path, results: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Draw a figure for each group; returns the files."""
    with rc_context(STYLE):
        return save_figures(folder, {name: _figure(result) for name, result in results.items()})


def _figure(result: Mapping[str, Any]) -> Figure:
    figure, axes = make_panels(len(DRAWN))
    first, *others = result["arms"]
    styles = line_styles(first, [arm for arm in others if arm not in RULES], [arm for arm in others if arm in RULES])
    for axis, measure in zip(axes, DRAWN, strict=True):
        for arm, style in styles.items():
            days = result["arms"][arm]["days"][measure]
            values = np.array([np.nan if one["mean"] is None else one["mean"] for one in days], float)
            axis.plot(np.arange(1, len(values) + 1), values, color=style.color, linestyle=style.dash,
                      linewidth=style.width, marker=style.marker, markersize=3.5, label=arm)  # fmt: skip
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set_title(MEASURES[measure].label)
        axis.set_xlabel("day")
    legend_below(figure, axes, columns=3)
    return figure
