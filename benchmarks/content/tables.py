"""The tables of README.md, derived from the results. Prose around them is written by hand."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.common.pages import NOTHING, markdown_table
from benchmarks.quality.claims import mean_ecology
from benchmarks.quality.comparisons import Comparisons
from benchmarks.quality.results import Results
from benchmarks.quality.slices import METRICS, SLICE_NAMES
from benchmarks.quality.sweep import Sweep
from benchmarks.quality.tables import changes_table, environment_table, number

LATENCY = "latency.json"
_SLICES = ("all", "cold", "cold_among_cold")
_CONSISTENCY = "category_consistency@100"
_FLOAT_BYTES = 4


def content_tables(sweep: Sweep, results: Results, comparisons: Comparisons, folder: Path) -> dict[str, str]:
    """Every table by the name that its markers in README.md have: one per group, and those of their costs."""
    tables = {
        group: "\n\n".join(
            f"**{METRICS[0]}, {SLICE_NAMES[part]}**\n\n{changes_table(sweep, results, comparisons, group, part)}"
            for part in _SLICES
        )
        for group in sweep.groups
    }
    tables["consistency"] = consistency_table(sweep, results, "category")
    tables["index_size"] = index_table(sweep, results, "item_codes")
    tables["latency"] = latency_table(folder / LATENCY)
    tables["made_with"] = environment_table(results)
    return {name: text or "No results yet." for name, text in tables.items()}


def consistency_table(sweep: Sweep, results: Results, group: str) -> str:
    """Share of listed items that have a category in common with the user's last clicks, means over seeds."""
    data_sets = sweep.groups[group].data
    rows = []
    for name in sweep.members_anywhere(group):
        cells = [number(mean_ecology(results, name, data, _CONSISTENCY)) for data in data_sets]
        if set(cells) != {NOTHING}:
            rows.append([sweep.label(name), *cells])
    return markdown_table([_CONSISTENCY, *data_sets], rows)


def index_table(sweep: Sweep, results: Results, group: str) -> str:
    """Vectors that an index holds, and their size as floats."""
    data_sets = sweep.groups[group].data
    rows = []
    for name in sweep.members_anywhere(group):
        found = [next(iter(results.seeds(name, data).values()), None) for data in data_sets]
        if any(found):
            sizes = [result.content["index"] if result else None for result in found]
            rows.append([sweep.label(name), *(_size(size) for size in sizes)])
    return markdown_table(["index: vectors, MB", *data_sets], rows)


def latency_table(path: Path) -> str:
    """Milliseconds per call of the large tower and its students, and their ratio."""
    if not path.exists():
        return ""
    rows = []
    for data, pairs in json.loads(path.read_text())["measured"].items():
        for pair, by_size in pairs.items():
            times = [(one["teacher"], one["student"]) for one in by_size.values()]
            rows.append(
                [f"{data}: {pair}", *(f"{large:.2f} / {small:.2f} ({small / large:.2f})" for large, small in times)]
            )
    return markdown_table(["ms: teacher / student (ratio)", "one user", "256 users"], rows)


def _size(size: dict[str, int] | None) -> str:
    if size is None:
        return NOTHING
    return f"{size['entries']:,}, {size['entries'] * size['width'] * _FLOAT_BYTES / 1e6:.2f}"
