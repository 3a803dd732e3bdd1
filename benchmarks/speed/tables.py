"""The tables of README.md, derived from the results. Prose around them is written by hand."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.common.pages import NOTHING, environments_table, markdown_table
from benchmarks.speed.check import Verdict
from benchmarks.speed.growth import growth_lines
from benchmarks.speed.results import Result, Results, Value
from benchmarks.speed.sweep import Sweep


def all_tables(sweep: Sweep, results: Results, verdicts: Sequence[Verdict]) -> dict[str, str]:
    """Every table by the name that its markers in README.md have."""
    tables = {"claims": claims_table(verdicts)}
    tables |= {row: row_table(sweep, results, row) for row in sweep.rows}
    tables["growth"] = growth_table(sweep, results)
    tables["made_with"] = environments_table(result.content["environment"] for result in results)
    return {name: text or "No results yet." for name, text in tables.items()}


def claims_table(verdicts: Sequence[Verdict]) -> str:
    """What was wanted, what was measured."""
    rows = [
        [
            verdict.claim.row,
            verdict.claim.claim,
            verdict.claim.target,
            as_measured(verdict),
            *(_bare(value) for value in (verdict.lowest, verdict.highest)),
            outcome(verdict),
        ]
        for verdict in verdicts
    ]
    return markdown_table(["row", "claim", "target", "measured", "lowest", "highest", "verdict"], rows)


def as_measured(verdict: Verdict) -> str:
    """What the claim is about, with a fourth digit where three would show the bound itself."""
    if verdict.value is None:
        return NOTHING
    bound = number(verdict.claim.bound)
    return f"{verdict.value:.4g}" if number(verdict.value) == bound else number(verdict.value)


def outcome(verdict: Verdict) -> str:
    """Holds, falls short, or why nobody knows; and what holds without a number says why."""
    if verdict.unreached:
        return f"holds: {verdict.unreached}"
    return verdict.problem or ("holds" if verdict.holds else "falls short")


def row_table(sweep: Sweep, results: Results, row: str) -> str:
    """Medians of what the row shows, a line per case, with lowest and highest."""
    settings, found = sweep.rows[row], {result.case: result for result in results.matching(f"{row}/*")}
    rows = []
    for case in settings.cases:
        if result := found.get(case):
            cells = [_with_spread(result, measure) for measure in settings.shown]
            rows.append([case, *cells, str(len(result.content["repeats"]))])
    return markdown_table([settings.title, *settings.shown.values(), "repeats"], rows)


def growth_table(sweep: Sweep, results: Results) -> str:
    """The fitted exponent of every line of every growth plot."""
    rows = []
    for row, settings in sweep.rows.items():
        found = results.matching(f"{row}/*")
        for growth in settings.growth:
            for system, line in growth_lines(found, growth).items():
                if line.exponent is not None:
                    sizes = f"{line.sizes[0]:,.0f} – {line.sizes[-1]:,.0f}"
                    rows.append([row, f"{growth.measure} over {growth.over}", system, sizes, f"{line.exponent:.2f}"])
    return markdown_table(["row", "growth", "system", "sizes", "exponent"], rows)


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _bare(value: float | None) -> str:
    return NOTHING if value is None else number(value)


def _with_spread(result: Result, measure: str) -> str:
    value: Value | None = result.median.get(measure)
    if value is None:
        return NOTHING
    if isinstance(value, list):
        return f"{number(min(value))} – {number(max(value))}" if value else NOTHING
    lowest, highest = result.content["lowest"][measure], result.content["highest"][measure]
    spread = "" if lowest == highest else f" ({number(lowest)} – {number(highest)})"
    return f"{number(value)}{spread}"
