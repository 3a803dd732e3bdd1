"""Writes the report of a run: one HTML file that needs nothing else, for the screen, the phone and the printer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recall.evaluation.metrics import chance
from recall.runs.report.calibration import calibration_of, calibration_sentence, calibration_table
from recall.runs.report.html_file import rendered, write_page
from recall.runs.report.inputs import ReportInputs
from recall.runs.report.rolling import rolling_sentence, rolling_slices, rolling_tables
from recall.runs.report.tables import (
    bucket_table,
    data_tables,
    join,
    metric_tables,
    modality_table,
    number,
    settings_table,
    training_table,
    validation_table,
)


def write_report(path: str | Path, inputs: ReportInputs) -> None:
    """Write the report beside its place and rename it, so that a reader sees a whole page or the one before.

    Args:
      path: the file.
      inputs: everything that the page shows.

    Raises:
      ArtifactError: the file cannot be written; nothing is left behind.
    """
    write_page(path, render(inputs), command="recall report")


def render(inputs: ReportInputs) -> str:
    """Render the page as text."""
    return rendered(
        "report.html.j2",
        inputs=inputs,
        headline=headline(inputs),
        facts=_facts(inputs),
        data=data_tables(inputs.counts),
        tables=metric_tables(inputs),
        rolling=rolling_tables(inputs),
        calibration=calibration_table(inputs),
        validation=validation_table(inputs),
        buckets=bucket_table(inputs),
        modalities=modality_table(inputs),
        training=training_table(inputs),
        index=settings_table("The index", inputs.metrics.get("index") or {}),
        timing=settings_table("Timings", inputs.metrics.get("timing") or {}, seconds=True),
        versions=settings_table("Versions", inputs.versions),
        plots=_plots(inputs),
    )


def _plots(inputs: ReportInputs) -> dict[str, str | None]:
    # Imported here: matplotlib costs a second that no other command should pay.
    from recall.runs.report import calibration_plot, days_plot, drawing, gate_shares, plots, training_plots

    untested = [name for name in inputs.training if name not in inputs.models]
    styles = drawing.line_styles(inputs.configured, inputs.others + untested, inputs.baselines)
    return {
        "exposures": plots.recall_by_exposures(
            {name: inputs.test[name].get("by_exposures") or [] for name in inputs.models},
            metric=inputs.headline_metric,
            styles=styles,
            configured=inputs.configured,
        ),
        "rolling": plots.rolling_by_exposures(
            rolling_slices(inputs), metric=inputs.headline_metric, styles=styles, configured=inputs.configured
        ),
        "days": days_plot.metric_by_day(inputs.metrics.get("days") or [], metric=inputs.headline_metric, styles=styles),
        "calibration": calibration_plot.calibration_plot(calibration_of(inputs), model=inputs.configured),
        "gate": plots.gate_by_exposures(inputs.items["exposures"].to_numpy(), inputs.behaviour_share),
        "shares": gate_shares.shares_by_exposures(
            inputs.items["exposures"].to_numpy(), inputs.behaviour_share, inputs.audience_share
        ),
        "loss": training_plots.training_loss(inputs.training, styles=styles),
        "validation": training_plots.training_validation(inputs.training, styles=styles),
        "terms": training_plots.training_terms(inputs.training.get(inputs.configured) or [], model=inputs.configured),
        "map": plots.item_map(inputs.vectors, inputs.is_cold),
    }


# --- what the page says in words -----------------------------------------------------------------------------


def headline(inputs: ReportInputs) -> list[str]:
    """Say in plain sentences what was run and how good it is, in the same words for good and bad results."""
    counts = inputs.counts.get("examples") or {}
    beside = f", beside {join(inputs.others)}" if inputs.others else ""
    against = f", against the baselines {join(inputs.baselines)}" if inputs.baselines else ""
    trained = f"trained on {counts['train']:,} and " if counts.get("train") is not None else ""
    cold = int(inputs.is_cold.sum())
    what = (
        f"The model {inputs.configured}, {trained}tested on {inputs.examples('all'):,} clicks{beside}{against}. "
        f"The catalogue has {len(inputs.items):,} items, of which {cold:,} had neither an exposure nor a click before "
        "the test period."
    )
    slices = {"all": "All test clicks", "cold": "Clicks on cold items"}
    sentences = [what, *(_slice_sentence(inputs, part, name) for part, name in slices.items())]
    return [*sentences, *filter(None, (rolling_sentence(inputs), calibration_sentence(inputs)))]


def _slice_sentence(inputs: ReportInputs, part: str, name: str) -> str:
    own, examples = inputs.value(inputs.configured, part), inputs.examples(part)
    if not examples or not np.isfinite(own):
        return f"{name}: none, so this run says nothing about them."
    sentence = f"{name} ({examples:,}): {inputs.headline_metric} is {number(own)}"
    baseline = inputs.highest(inputs.able_baselines(part), part)
    if baseline is None and inputs.baselines:
        by_chance = chance(inputs.headline_metric, len(inputs.items))
        sentence += f", {difference(own, by_chance)} chance ({number(by_chance)})"
        sentence += f"; {join(inputs.baselines)} recall none of them"
    elif baseline is None:
        sentence += "; there is no baseline to compare with"
    else:
        value = inputs.value(baseline, part)
        interval = (inputs.differences.get(part) or {}).get(baseline)
        unclear = is_noise(own, value, examples) if interval is None else not interval.excludes_zero
        noise = number(own) != number(value) and unclear
        sentence += f", {difference(own, value)} {baseline}, the best baseline ({number(value)})"
        sentence += ", a difference within sampling noise" if noise else ""
    other = inputs.highest(inputs.others, part)
    if other is not None and inputs.value(other, part) > own:
        sentence += f"; of the models trained beside it {other} is highest ({number(inputs.value(other, part))})"
    return f"{sentence}."


def difference(own: float, other: float) -> str:
    """Say `0.0312 higher than`, `0.0312 lower than` or `the same as`, as far as four decimals show."""
    if number(own) == number(other):
        return "the same as"
    return f"{number(abs(own - other))} {'higher' if own > other else 'lower'} than"


def is_noise(own: float, other: float, examples: int) -> bool:
    """Tell whether two shares differ by less than 1.96 standard errors, each taken over `examples` independent clicks.

    Serves where no paired interval is known. Both models are judged on the same clicks, which as a rule makes the
    true error smaller; the correlation of one user's clicks makes it larger.
    """
    return bool(abs(own - other) <= 1.96 * np.sqrt((own * (1 - own) + other * (1 - other)) / max(examples, 1)))


class Fact(NamedTuple):
    """Hold a number that is shown large, its label, and the numbers to compare it with."""

    value: str
    label: str
    beside: str


def _facts(inputs: ReportInputs) -> list[Fact]:
    facts = []
    for part, label in (("all", "all test clicks"), ("cold", "clicks on cold items")):
        if inputs.examples(part):
            value = number(inputs.value(inputs.configured, part))
            beside = [f"{name}\u00a0{number(inputs.value(name, part))}" for name in inputs.able_baselines(part)]
            beside.append(f"chance\u00a0{number(chance(inputs.headline_metric, len(inputs.items)))}")
            facts.append(Fact(value, f"{inputs.headline_metric}, {label}", ", ".join(beside)))
    for mean, items, label in _gate_means(inputs):
        facts.append(Fact(f"{mean:.3f}", f"behaviour share, {label}", f"mean of {items:,} items"))
    return facts


def _gate_means(inputs: ReportInputs) -> Iterator[tuple[float, int, str]]:
    exposures = inputs.items["exposures"].to_numpy()
    groups = {"items without exposures": exposures == 0, "items with 100 or more exposures": exposures >= 100}
    for label, chosen in groups.items():
        share = inputs.behaviour_share[chosen & np.isfinite(inputs.behaviour_share)]
        if len(share):
            yield float(share.mean()), len(share), label
