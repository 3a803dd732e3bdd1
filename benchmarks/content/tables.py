"""The tables of README.md, derived from the results. Prose around them is written by hand."""

from __future__ import annotations

from benchmarks.quality.comparisons import Comparisons
from benchmarks.quality.results import Results
from benchmarks.quality.slices import METRICS, SLICE_NAMES
from benchmarks.quality.sweep import Sweep
from benchmarks.quality.tables import changes_table, environment_table

_SLICES = ("all", "cold", "cold_among_cold")


def content_tables(sweep: Sweep, results: Results, comparisons: Comparisons) -> dict[str, str]:
    """Every table by the name that its markers in README.md have: one per group, and `made_with`."""
    tables = {
        group: "\n\n".join(
            f"**{METRICS[0]}, {SLICE_NAMES[part]}**\n\n{changes_table(sweep, results, comparisons, group, part)}"
            for part in _SLICES
        )
        for group in sweep.groups
    }
    tables["made_with"] = environment_table(results)
    return {name: text or "No results yet." for name, text in tables.items()}
