"""The tables of README.md, derived from the results. Prose around them is written by hand."""

from __future__ import annotations

from benchmarks.quality.claims import mean_ecology
from benchmarks.quality.comparisons import Comparisons
from benchmarks.quality.results import Results
from benchmarks.quality.slices import METRICS, SLICE_NAMES
from benchmarks.quality.sweep import Sweep
from benchmarks.quality.tables import NOTHING, changes_table, environment_table, markdown_table, number

_SLICES = ("all", "cold", "cold_among_cold")
_CONSISTENCY = "category_consistency@100"


def content_tables(sweep: Sweep, results: Results, comparisons: Comparisons) -> dict[str, str]:
    """Every table by the name that its markers in README.md have: one per group, and `made_with`."""
    tables = {
        group: "\n\n".join(
            f"**{METRICS[0]}, {SLICE_NAMES[part]}**\n\n{changes_table(sweep, results, comparisons, group, part)}"
            for part in _SLICES
        )
        for group in sweep.groups
    }
    tables["consistency"] = consistency_table(sweep, results, "category")
    tables["made_with"] = environment_table(results)
    return {name: text or "No results yet." for name, text in tables.items()}


def consistency_table(sweep: Sweep, results: Results, group: str) -> str:
    """Share of listed items that have a category in common with the user's last clicks, means over seeds."""
    data_sets = sweep.groups[group].data
    rows = []
    for name in dict.fromkeys(name for data in data_sets for name in sweep.members(group, data)):
        cells = [number(mean_ecology(results, name, data, _CONSISTENCY)) for data in data_sets]
        if set(cells) != {NOTHING}:
            rows.append([sweep.label(name), *cells])
    return markdown_table([_CONSISTENCY, *data_sets], rows)
