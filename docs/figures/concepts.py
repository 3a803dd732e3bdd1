"""Draws the figures of the concept pages, from results of benchmarks/ and from `demo.json` (`measure.py`)."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from docs.generate.numbers import results, test_blocks
from recall.config.values import duration_text
from recall.runs.report.drawing import ACCENT, MUTED, LineStyle, draw_line, inline_svg, line_styles

ROOT = Path(__file__).resolve().parents[2]
_SIZE, _WIDE = (6.4, 3.4), (7.4, 3.6)
_BUCKETS = ("0", "1–9", "10–99", "100–999", "≥ 1000")
_NAMES = {"demo": "simulated community", "kuairand": "KuaiRand", "movielens": "MovieLens"}
_K = "recall@50"


@functools.cache
def _measured() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("demo.json").read_text())
    return found


def _by_exposures(experiment: str, data: str, *, rolling: bool) -> list[float]:
    """Return recall@50 of each bucket of exposures, the mean over seeds; NaN where a bucket has no click."""
    found = []
    for block in test_blocks(experiment, data):
        part = block["rolling"] if rolling else block
        found.append([np.nan if bucket[_K] is None else bucket[_K] for bucket in part["by_exposures"]])
    return [float(value) for value in np.mean(found, axis=0)]


def _range(first: int, last: int | None) -> str:
    if last is None:
        return f"≥ {first}"
    return str(first) if first == last else f"{first}–{last}"


def _lines(axis: Axes, lines: Mapping[str, Sequence[float]], styles: Mapping[str, LineStyle]) -> None:
    for name, values in lines.items():
        draw_line(axis, range(len(values)), values, styles[name], label=name)
    axis.set_xticks(range(len(_BUCKETS)), _BUCKETS)
    axis.set_ylim(bottom=0)


def _legend(figure: Figure, axis: Axes, *, columns: int = 3) -> None:
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=columns)


@inline_svg
def towers() -> Figure:
    """Draw recall by exposures of the two towers and of the gated model."""
    names = ("gated", "behaviour_only", "meta_only")
    styles = line_styles(names[0], names[1:], ())
    figure = Figure(figsize=_SIZE, layout="constrained")
    axis = figure.subplots()
    _lines(axis, {name: _by_exposures(name, "demo", rolling=False) for name in names}, styles)
    axis.set_xlabel("exposures of the clicked item before the test period")
    axis.set_ylabel(_K)
    _legend(figure, axis)
    return figure


@inline_svg
def item_life() -> Figure:
    """Draw the clicks of one item: the total, and what is left of it with each half-life."""
    item = _measured()["item"]
    days = np.arange(len(item["clicks"])) / 24
    styles = line_styles("", [*item["decayed_clicks"]], ["all"])
    figure = Figure(figsize=_SIZE, layout="constrained")
    axis = figure.subplots()
    axis.plot(days, np.cumsum(item["clicks"]), color=MUTED, linewidth=2.2, label="all so far")
    for half_life, left in item["decayed_clicks"].items():
        style = styles[half_life]
        label = f"half-life {duration_text(int(half_life))}"
        axis.plot(days, left, color=style.color, linestyle=style.dash, linewidth=2, label=label)
    axis.set_xlabel("days since the first exposure")
    axis.set_ylabel("clicks")
    axis.set_ylim(bottom=0)
    _legend(figure, axis, columns=4)
    return figure


@inline_svg
def evidence() -> Figure:
    """Draw rolling recall by exposures with and without fresh evidence."""
    lines = {"with fresh evidence": "live_gated", "totals alone": "live_totals", "trending": "live_trending"}
    first, second, third = lines
    styles = line_styles(first, [second], [third])
    figure = Figure(figsize=_WIDE, layout="constrained")
    panels = figure.subplots(1, 2)
    for axis, data in zip(panels, ("demo", "kuairand"), strict=True):
        _lines(axis, {name: _by_exposures(of, data, rolling=True) for name, of in lines.items()}, styles)
        axis.set_title(_NAMES[data])
        axis.set_xlabel("exposures as of the click")
    panels[0].set_ylabel(f"rolling {_K}")
    _legend(figure, panels[0])
    return figure


@inline_svg
def gate() -> Figure:
    """Draw the share of behaviour by exposures, a line a data set."""
    styles = line_styles("demo", ["kuairand", "movielens"], ())
    figure = Figure(figsize=_SIZE, layout="constrained")
    axis = figure.subplots()
    for data, style in styles.items():
        found = [
            [np.nan if bucket["share"] is None else bucket["share"] for bucket in result["gate_share"]]
            for result in results("gated", data)
        ]
        draw_line(axis, range(len(_BUCKETS)), np.mean(found, axis=0), style, label=_NAMES[data])
    axis.set_xticks(range(len(_BUCKETS)), _BUCKETS)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("exposures of the item")
    axis.set_ylabel("share of behaviour")
    _legend(figure, axis)
    return figure


@inline_svg
def gate_items() -> Figure:
    """Draw exposures and share of behaviour of single items."""
    shares = _measured()["shares"]
    figure = Figure(figsize=_SIZE, layout="constrained")
    axis = figure.subplots()
    axis.plot(
        np.maximum(shares["exposures"], 0.5), shares["behaviour_share"], "o", color=ACCENT, alpha=0.45, markersize=4
    )
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("exposures of the item")
    axis.set_ylabel("share of behaviour")
    return figure


@inline_svg
def hidden_ids() -> Figure:
    """Draw how often ids are hidden, and what cold items gain by it."""
    figure = Figure(figsize=_WIDE, layout="constrained")
    left, right = figure.subplots(1, 2)
    exposures = np.geomspace(1, 1000, 100)
    by_exposures = 0.8 / (1 + exposures / 5)
    left.plot(exposures, 1 - (1 - by_exposures) * (1 - 0.15), color=ACCENT, linewidth=2.4)
    left.axhline(0.15, color=MUTED, linestyle=(0, (2, 2)), linewidth=1.2)
    left.set_xscale("log")
    left.xaxis.set_major_formatter(ScalarFormatter())
    left.set_ylim(0, 1)
    left.yaxis.set_major_formatter(PercentFormatter(1))
    left.set_xlabel("exposures as of the example")
    left.set_title("shown without its id")
    data_sets = ("demo-cold20", "movielens-cold20")
    for place, (label, experiment, color) in enumerate(
        (("with", "gated", ACCENT), ("without", "no_cold_simulation", MUTED))
    ):
        values = [np.mean([block["cold"][_K] for block in test_blocks(experiment, data)]) for data in data_sets]
        right.bar(np.arange(2) + 0.4 * place, values, 0.36, color=color, label=label)
    right.set_xticks(np.arange(2) + 0.2, ["community", "MovieLens"])
    right.set_title(f"{_K}, cold items")
    right.legend()
    return figure


@inline_svg
def cold_bias() -> Figure:
    """Draw recall of all clicks against recall of clicks on new items, a point a bias."""
    measured = _measured()["cold_bias"]
    new, everything = (
        np.array([point[name] for point in measured["curve"]]) for name in ("cold_recall@50", "recall@50")
    )
    chosen = int(np.argmin([abs(point["bias"] - measured["chosen"]) for point in measured["curve"]]))
    figure = Figure(figsize=_SIZE, layout="constrained")
    axis = figure.subplots()
    axis.plot(new, everything, color=ACCENT, linewidth=2, marker="o", markersize=4)
    axis.plot(new[chosen], everything[chosen], "o", color="#d9600a", markersize=10, zorder=5)
    axis.annotate(
        f"chosen: {measured['chosen']:.2f}", (new[chosen], everything[chosen]), (0, 12), textcoords="offset points",
        ha="center",
    )  # fmt: skip
    axis.axhline(everything.max() * 0.99, color=MUTED, linestyle=(0, (2, 2)), linewidth=1.2)
    axis.set_ylim(everything.min() - 0.01, everything.max() + 0.012)
    axis.set_xlabel(f"{_K} of clicks on new items")
    axis.set_ylabel(f"{_K} of all clicks")
    return figure


@inline_svg
def content_term() -> Figure:
    """Draw recall among cold items with and without the content term."""
    bars = (
        ("gated, with the term", "live_gated", ACCENT),
        ("gated, without", "live_no_content_term", MUTED),
        ("content_knn", "live_content_knn", "#d9600a"),
        ("meta_only", "live_meta_only", "#12926c"),
    )
    data_sets = ("demo-cold20", "movielens-cold20")
    figure = Figure(figsize=_SIZE, layout="constrained")
    axis = figure.subplots()
    for place, (label, experiment, color) in enumerate(bars):
        values = [
            np.mean([block["cold_among_cold"][_K] for block in test_blocks(experiment, data)]) for data in data_sets
        ]
        axis.bar(np.arange(2) + 0.2 * place, values, 0.18, color=color, label=label)
    axis.set_xticks(np.arange(2) + 0.3, ["simulated community", "MovieLens"])
    axis.set_ylabel(f"{_K}, cold among cold")
    _legend(figure, axis, columns=2)
    return figure


@inline_svg
def rolling() -> Figure:
    """Draw recall through the test period, frozen and rolling."""
    pieces = [piece for piece in _measured()["rolling"] if piece["clicks"] >= 100]
    hours = [piece["from_hours"] + 3 for piece in pieces]
    styles = line_styles("rolling", ["frozen"], ())
    figure = Figure(figsize=_SIZE, layout="constrained")
    axis = figure.subplots()
    for name, style in styles.items():
        draw_line(axis, hours, [piece[name] for piece in pieces], style, label=name)
    axis.set_ylim(0, 0.45)
    axis.set_xlabel("hours since the start of the test period")
    axis.set_ylabel(_K)
    _legend(figure, axis)
    return figure


@inline_svg
def warm_up() -> Figure:
    """Draw recall of items from after the training by the clicks known of them."""
    found = json.loads((ROOT / "benchmarks" / "warm_up" / "results" / "demo.json").read_text())
    buckets = [bucket for bucket in found["buckets"] if bucket["clicks"] >= 20]
    labels = [f"{b['from']}–{b['to']}" if b["to"] not in (None, b["from"]) else f"{b['from']}" for b in buckets]
    labels = [
        label if bucket["to"] is not None else f"≥ {label}" for label, bucket in zip(labels, buckets, strict=True)
    ]
    styles = line_styles("kept", ["retrained"], ())
    figure = Figure(figsize=_SIZE, layout="constrained")
    axis = figure.subplots()
    for name, style in styles.items():
        draw_line(axis, range(len(buckets)), [bucket[name] for bucket in buckets], style, label=name)
    axis.set_xticks(range(len(buckets)), labels)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("clicks of the item so far")
    axis.set_ylabel(_K)
    _legend(figure, axis)
    return figure


FIGURES: dict[str, Callable[[], str | None]] = {
    drawn.__name__: drawn
    for drawn in (
        towers, item_life, evidence, gate, gate_items, hidden_ids, cold_bias, content_term, rolling, warm_up,
    )
}  # fmt: skip
