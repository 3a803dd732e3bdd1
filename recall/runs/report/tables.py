"""Builds the tables of the report, and writes its numbers as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recall.evaluation.metrics import chance
from recall.evaluation.slices import bucket_label, metric_value
from recall.runs.report.numbers import best_epoch, validation_metric

if TYPE_CHECKING:
    from recall.evaluation.bootstrap import Interval
    from recall.runs.report.inputs import ReportInputs

DASH = "–"
_SPREAD = (
    "Coverage: share of the catalogue in at least one list. Gini: 0 when all items are listed equally often, 1 when "
    "one item takes all places. Hub share 10: share of places held by the ten most frequent items. K-occurrence skew: "
    "skewness of the number of lists that hold an item, 0 without favourites."
)


def number(value: float) -> str:
    """Write a metric with four decimals, NaN as a dash."""
    return f"{value:.4f}" if np.isfinite(value) else DASH


def duration(seconds: float) -> str:
    """Write a time as `340 ms`, `12.3 s`, `4 min 05 s` or `2 h 10 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def join(names: Sequence[str]) -> str:
    """Join names as `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


class Cell(NamedTuple):
    """Hold a table cell; `best` is printed bold."""

    text: str
    best: bool = False


class Row(NamedTuple):
    """Hold a table row: its name, its cells, and a class for the style sheet (configured, aside, sub)."""

    label: str
    cells: Sequence[Cell]
    kind: str = ""


class Table(NamedTuple):
    """Hold a table as the template prints it."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
    note: str = ""


def data_tables(counts: Mapping[str, Any]) -> list[Table]:
    """Count the rows of the log by use, and the users, items and examples made of them; absent counts are left out."""
    rows_read = counts.get("rows_read")
    rejected: Mapping[str, int] = counts.get("rejected") or {}
    reasons = [(reason, count, "sub deep") for reason, count in sorted(rejected.items(), key=lambda entry: -entry[1])]
    log = [
        ("rows read", rows_read, ""),
        ("rejected", sum(rejected.values()) if "rejected" in counts else None, "sub"),
        *reasons,
        ("exact duplicates", counts.get("duplicates"), "sub"),
        ("events", counts.get("events"), ""),
        ("of them clicks", counts.get("clicks"), "sub"),
    ]
    made = [("users", counts.get("users")), ("items", counts.get("items"))]
    made.append(("items with an exposure", counts.get("items_exposed")))
    made += [(f"{split} examples", count) for split, count in (counts.get("examples") or {}).items()]
    note = "Rejected rows are kept with their reason in data/rejected.parquet." if rejected else ""
    tables = [
        Table(
            "The log",
            ["count", "share of rows"],
            [_count_row(label, count, kind, of=rows_read) for label, count, kind in log if count is not None],
            note,
        ),
        Table(
            "What came of it",
            ["count"],
            [Row(label, [Cell(f"{count:,}")]) for label, count in made if count is not None],
            "An example is a click, with what was known at that moment.",
        ),
    ]
    return [table for table in tables if table.rows]


def _count_row(label: str, count: int, kind: str, *, of: int | None) -> Row:
    share = "" if not of else "< 0.01%" if 0 < count / of < 0.0001 else f"{count / of:.2%}"
    return Row(label, [Cell(f"{count:,}"), Cell(share)], kind)


def metric_tables(inputs: ReportInputs) -> list[Table]:
    """Build the tables of test metrics of all models, one per slice that has examples."""
    catalogue, cold = len(inputs.items), int(inputs.is_cold.sum())
    tables = [
        _ranking_table(inputs, inputs.test, "all", "All test clicks, ranked in the whole catalogue", catalogue),
        _ranking_table(inputs, inputs.test, "cold", "Clicks on cold items, ranked in the whole catalogue", catalogue),
        _ranking_table(inputs, inputs.test, "cold_among_cold", "The same, ranked among cold items only", cold),
        _difference_table(inputs),
        _ecology_table(inputs),
        _similar_table(inputs),
        _graded_table(inputs),
    ]
    return [table for table in tables if table.rows]


def validation_table(inputs: ReportInputs) -> Table:
    """Build the table of ranking metrics on the validation clicks; without clicks it has no rows."""
    validation = inputs.metrics.get("validation") or {}
    caption = "Validation clicks, ranked in the whole catalogue"
    return _ranking_table(inputs, validation, "all", caption, len(inputs.items))


def _ranking_table(inputs: ReportInputs, split: Mapping[str, Any], part: str, caption: str, candidates: int) -> Table:
    parts = {model: split[model][part] for model in inputs.models if (split.get(model) or {}).get(part)}
    metrics = sorted({key for values in parts.values() for key in values if _is_ranking(key)}, key=_metric_order)
    examples = {model: values.get("examples") or 0 for model, values in parts.items()}
    if not metrics or not any(examples.values()):
        return Table(caption, [], [])
    rows = model_rows(inputs, parts, metrics, best=dict.fromkeys(metrics, max), examples=examples)
    by_chance = [Cell(number(chance(metric, candidates))) for metric in metrics]
    rows.append(Row("chance", [Cell(DASH), *by_chance], "aside"))
    note = f"Chance: the mean of random orders of {candidates:,} candidates, clicked items included."
    table = Table(caption, ["clicks", *metrics], rows, note)
    return _with_verdicts(inputs, table, inputs.differences.get(part) or {}) if split is inputs.test else table


def _with_verdicts(inputs: ReportInputs, table: Table, intervals: Mapping[str, Interval]) -> Table:
    """Add a column that says in one word whether the configured model is better: the table is wide already."""
    if not intervals:
        return table
    words = {name: interval.verdict if interval.excludes_zero else "unclear" for name, interval in intervals.items()}
    rows = [
        row._replace(cells=[row.cells[0], Cell(words.get(row.label, DASH)), *row.cells[1:]]) for row in table.rows
    ]  # fmt: skip
    columns = [table.columns[0], f"{inputs.configured} is", *table.columns[1:]]
    return table._replace(columns=columns, rows=rows)


def _difference_table(inputs: ReportInputs) -> Table:
    """Build the table of differences to the configured model, with intervals; without intervals it has no rows."""
    parts = {"all": "all test clicks", "cold": "clicks on cold items", "cold_among_cold": "the same among cold items"}
    known = {part: label for part, label in parts.items() if inputs.differences.get(part)}
    rows = [
        Row(model, [interval_cell(inputs.differences[part].get(model)) for part in known])
        for model in inputs.models
        if any(model in inputs.differences[part] for part in known)
    ]
    note = (
        "On the clicks that both models were asked about, with the 95% interval of a paired bootstrap that draws whole "
        f"users. Bold: the interval excludes zero, and the tables above say that {inputs.configured} is better or "
        "worse. Of twenty models that do not differ, one will look as if it did."
    )
    return Table(f"{inputs.headline_metric}: {inputs.configured} minus the others", list(known.values()), rows, note)


def interval_cell(interval: Interval | None) -> Cell:
    """Write a difference with its interval, bold where it excludes zero."""
    if interval is None:
        return Cell(DASH)
    ends = f"{interval.low:+.4f} to {interval.high:+.4f}"
    return Cell(f"{interval.difference:+.4f} ({ends})", best=interval.excludes_zero)


def _ecology_table(inputs: ReportInputs) -> Table:
    parts = {model: inputs.test[model]["ecology"] for model in inputs.models if inputs.test[model].get("ecology")}
    metrics = list(dict.fromkeys(key for values in parts.values() for key in values if key != "examples"))
    # A cold share or a novelty is not better for being higher: nothing is bold there.
    best: dict[str, Any] = {key: max for key in metrics if key.startswith("coverage")}
    best |= {key: min for key in metrics if key.startswith("gini")}
    note = (
        f"{_SPREAD} Cold share: share of places held by cold items. Novelty: mean of −log₂ of an item's share of the "
        "exposures, in bits. Category consistency: share of places whose item has a category in common with the user's "
        "last clicks."
    )
    return Table("Ecology of the recalled lists", metrics, model_rows(inputs, parts, metrics, best=best), note)


def _similar_table(inputs: ReportInputs) -> Table:
    """Show how the lists of items like an item spread over the catalogue; without rows where they were not measured."""
    measured = inputs.metrics.get("similar") or {}
    metrics = [key for key in measured if "@" in key]
    cells = [Cell(number(metric_value(measured, key))) for key in metrics]
    by = {"trigger": "by the trigger tower"}.get(str(measured.get("by")), f"by {measured.get('by')}")
    note = (
        f"The lists of `recall similar` for {measured.get('queries') or 0:,} items. {_SPREAD} Items that are next to "
        "everything hold a large share of the places."
    )
    rows = [Row(by, cells)] if metrics else []
    return Table("Items like an item", metrics, rows, note)


def _graded_table(inputs: ReportInputs) -> Table:
    """Show the order of clicks by weight per model; without rows where the log has no weights."""
    parts = {model: inputs.test[model]["graded"] for model in inputs.models if inputs.test[model].get("graded")}
    counts = ("pairs", "concordant", "discordant")
    rows = [
        row._replace(cells=[*row.cells, *(Cell(f"{parts[row.label][key]:,}") for key in counts)])
        for row in model_rows(inputs, parts, ["pnr"], best={"pnr": max})
    ]
    note = (
        "Pairs: two test clicks of one user with different weights. Concordant: the click of larger weight has the "
        "better rank; discordant: the worse. PNR: concordant over discordant, 1 for an order at random."
    )
    columns = ["PNR", *counts]
    return Table("Order of a user's clicks by their weights", columns, rows, note)


def model_rows(
    inputs: ReportInputs,
    parts: Mapping[str, Mapping[str, Any]],
    metrics: Sequence[str],
    *,
    best: Mapping[str, Any],
    examples: Mapping[str, int] | None = None,
) -> list[Row]:
    """Build a row per model.

    Args:
      inputs: names the configured model.
      parts: model -> its metrics.
      metrics: the columns.
      best: metric -> `max` or `min`, where one of these is the best and printed bold.
      examples: clicks of each model, for a first column.
    """
    values = {model: [number(metric_value(part, metric)) for metric in metrics] for model, part in parts.items()}
    winners = []
    for column, metric in enumerate(metrics):
        shown = [float(texts[column]) for texts in values.values() if texts[column] != DASH]
        winners.append(number(best[metric](shown)) if metric in best and len(set(shown)) > 1 else None)
    rows = []
    for model, texts in values.items():
        cells = [Cell(text, text == winner) for text, winner in zip(texts, winners, strict=True)]
        if examples is not None:
            cells.insert(0, Cell(f"{examples[model]:,}"))
        rows.append(Row(model, cells, "configured" if model == inputs.configured else ""))
    return rows


def bucket_table(inputs: ReportInputs) -> Table | None:
    """Build the table of the headline metric per slice of exposures: the numbers behind the plot."""
    slices = {model: inputs.test[model].get("by_exposures") or [] for model in inputs.models}
    return bucket_table_of(inputs, slices, of="the clicked item")


def bucket_table_of(
    inputs: ReportInputs, slices: Mapping[str, Sequence[Mapping[str, Any]]], *, of: str, by: str = "exposures"
) -> Table | None:
    """Build the table of the headline metric per slice of exposures, or of another count.

    Args:
      inputs: the models and the metric.
      slices: model -> its `by_exposures` list.
      of: says in the caption what the counts are of.
      by: says what is counted.

    Returns:
      The table; None where the configured model has no slices.
    """
    first = slices.get(inputs.configured)
    if not first:
        return None
    labels = [f"{bucket_label(part)} ({part.get('examples') or 0:,})" for part in first]
    keyed = {model: dict(zip(labels, (metric_value(part, inputs.headline_metric) for part in parts), strict=False))
             for model, parts in slices.items() if parts}  # fmt: skip
    rows = model_rows(inputs, keyed, labels, best=dict.fromkeys(labels, max))
    return Table(f"{inputs.headline_metric} by {by} of {of} (test clicks in brackets)", labels, rows)


def modality_table(inputs: ReportInputs) -> Table | None:
    """Build the table of mean weights of the modalities in the content of items, over all items and over cold ones."""
    if not inputs.modality_weights:
        return None
    has_any = np.any([weight > 0 for weight in inputs.modality_weights.values()], axis=0)
    groups = (has_any, has_any & inputs.is_cold)
    rows = []
    for modality, weight in inputs.modality_weights.items():
        means = [float(weight[chosen].mean()) if chosen.any() else np.nan for chosen in groups]
        shares = [float((weight[chosen] > 0).mean()) if chosen.any() else np.nan for chosen in groups]
        rows.append(Row(modality, [Cell(number(value)) for value in (*means, *shares)]))
    columns = ["mean weight", "mean weight, cold items", "items with it", "cold items with it"]
    note = (
        f"Over the {int(groups[0].sum()):,} items that have any of them, {int(groups[1].sum()):,} of them cold. The "
        "weights of an item sum to 1; a modality that it lacks has none."
    )
    return Table("Weights of the modalities in the content of an item", columns, rows, note)


def training_table(inputs: ReportInputs) -> Table | None:
    """Build the table of epochs, best epoch, its validation metric and the time, per trained model."""
    rows = []
    metrics: dict[str, None] = {}  # an ordered set; one, unless models were stopped by other metrics
    for model, epochs in inputs.training.items():
        if not epochs:
            continue
        best, metric = best_epoch(epochs), validation_metric(epochs)
        metrics |= {metric.removeprefix("val_"): None} if metric else {}
        seconds = [metric_value(epoch, "seconds") for epoch in epochs]
        rows.append(Row(model, [
            Cell(f"{len(epochs):,}"),
            Cell(DASH if best is None else f"{best.get('epoch', epochs.index(best) + 1)}"),
            Cell(DASH if best is None or metric is None else number(best[metric])),
            Cell(duration(float(np.nansum(seconds))) if np.isfinite(seconds).any() else DASH),
        ], "configured" if model == inputs.configured else ""))  # fmt: skip
    columns = ["epochs", "best epoch", f"its {' / '.join(metrics) or 'metric'}", "time"]
    return Table("Epochs trained, and the one that was kept", columns, rows) if rows else None


def settings_table(caption: str, content: Mapping[str, Any], *, seconds: bool = False) -> Table | None:
    """Build a table of names and values, nested names joined by dots, lists of records left out.

    Args:
      caption: of the table.
      content: names and values.
      seconds: take numbers without a unit in their name as times.
    """
    rows = []
    for name, value in _flat(content):
        has_unit = re.search(r"(_ms|_us|_minutes|_hours|_bytes|per_second|count|examples)\b", name)
        is_time = seconds and isinstance(value, int | float) and not isinstance(value, bool) and not has_unit
        text = duration(float(value)) if is_time else _setting(value)
        rows.append(Row(name.removesuffix("_seconds") if is_time else name, [Cell(text)]))
    return Table(caption, [""], rows) if rows else None


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif not (isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value)):
            yield f"{prefix}{key}", value


def _is_ranking(key: str) -> bool:
    # hit_rate@k is recall@k with one target per example: one of the two is enough.
    return key == "mrr" or key.startswith(("recall@", "ndcg@"))


def _metric_order(key: str) -> tuple[int, int]:
    name, _, k = key.partition("@")
    return ("recall", "ndcg", "mrr").index(name), int(k or 0)


def _setting(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
