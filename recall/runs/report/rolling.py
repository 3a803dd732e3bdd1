"""Tells of the rolling evaluation in the report: beside the frozen metrics, by exposures, and in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recall.evaluation.metrics import chance
from recall.evaluation.slices import metric_value
from recall.runs.report.tables import Table, bucket_table_of, interval_cell, model_rows, number

if TYPE_CHECKING:
    from recall.runs.report.inputs import ReportInputs


def rolling_tables(inputs: ReportInputs) -> list[Table]:
    """Build the tables of the rolling evaluation; empty where there is none."""
    if inputs.configured not in inputs.rolling:
        return []
    buckets = bucket_table_of(inputs, rolling_slices(inputs), of="the item as of its click, rolling")
    return [table for table in (_side_by_side(inputs), buckets, _warm_up(inputs)) if table]


def rolling_slices(inputs: ReportInputs) -> dict[str, list[dict[str, Any]]]:
    """Return the slices by exposures as of the click: model -> its `by_exposures` list."""
    return {name: part.get("by_exposures") or [] for name, part in inputs.rolling.items()}


def _warm_up(inputs: ReportInputs) -> Table | None:
    """Build the table of items that came after the training, by the clicks that were known of them."""
    slices = {name: part.get("warm_up") or [] for name, part in inputs.rolling.items()}
    table = bucket_table_of(
        inputs, slices, of="items that came after the training, rolling", by="clicks as of the click"
    )
    if table is None or not any(part.get("examples") for part in slices[inputs.configured]):
        return None
    return table


def _side_by_side(inputs: ReportInputs) -> Table:
    """Set each metric of items that stay beside the same metric of items that are made again."""
    metric = inputs.headline_metric
    shown = {
        metric: ("all", metric),
        "mrr": ("all", "mrr"),
        "coverage": ("ecology", "coverage@100"),
        "cold share": ("ecology", "cold_share@100"),
    }
    parts: dict[str, dict[str, float]] = {}
    for name, rolling in inputs.rolling.items():
        parts[name] = {}
        for column, (part, key) in shown.items():
            parts[name][f"{column} frozen"] = inputs.value(name, part, key)
            parts[name][f"{column} rolling"] = metric_value(rolling.get(part) or {}, key)
        cold = rolling.get("cold") or {}
        parts[name][_cold_column(inputs)] = metric_value(cold, metric)
    columns = list(parts[inputs.configured])
    best = {column: max for column in columns if not column.startswith("cold share")}
    rows = model_rows(inputs, parts, columns, best=best)
    if intervals := inputs.rolling_differences.get("all"):
        columns = [*columns, f"{inputs.configured} minus it, rolling {metric}"]
        rows = [row._replace(cells=[*row.cells, interval_cell(intervals.get(row.label))]) for row in rows]
    half_life = (inputs.test.get("trending") or {}).get("half_life_hours")
    note = (
        f"Frozen: items as they were when the test period began. Rolling: made again every {inputs.refresh} from what "
        "was known by then. Cold: neither exposure nor click as of the click, or, for the cold share, as of the list."
    )
    if intervals:
        note += " Differences with the 95% interval of a paired bootstrap of whole users; bold where it excludes zero."
    note += "" if half_life is None else f" Trending: a click weighs half after {half_life:g} hours."
    return Table("All test clicks, frozen and rolling", columns, rows, note)


def _cold_column(inputs: ReportInputs) -> str:
    clicks = (inputs.rolling[inputs.configured].get("cold") or {}).get("examples") or 0
    return f"{inputs.headline_metric} of {clicks:,} cold clicks, rolling"


def rolling_sentence(inputs: ReportInputs) -> str | None:
    """Say how good the configured model is when items are made again; None without rolling evaluation."""
    values = {
        name: metric_value(part.get("all") or {}, inputs.headline_metric) for name, part in inputs.rolling.items()
    }
    own = values.get(inputs.configured, np.nan)
    if not np.isfinite(own):
        return None
    sentence = (
        f"With items made again every {inputs.refresh}, as a service does: {inputs.headline_metric} is {number(own)}"
    )
    baselines = {name: values[name] for name in inputs.baselines if np.isfinite(values.get(name, np.nan))}
    best = max(baselines, key=baselines.__getitem__, default=None)
    beside, name = (
        (chance(inputs.headline_metric, len(inputs.items)), "chance")
        if best is None
        else (baselines[best], f"{best}, the best baseline")
    )
    if number(own) == number(beside):
        return f"{sentence}, the same as {name}."
    word = "higher" if own > beside else "lower"
    return f"{sentence}, {number(abs(own - beside))} {word} than {name} ({number(beside)})."
