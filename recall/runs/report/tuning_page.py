"""Writes the page of a tuning, in the style of a run's report: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recall.config.search_space import Dimension, value_text
from recall.evaluation.slices import bucket_label, metric_value
from recall.runs.report.html_file import rendered, write_page
from recall.runs.report.tables import DASH, Cell, Row, Table, duration, number

if TYPE_CHECKING:
    from recall.runs.tuning.results import Tuned
    from recall.runs.tuning.study import Trial

Validation = Mapping[str, Any]
"""The validation metrics of a model, as metrics.json has them."""


def write_tuning_page(
    path: Path, tuned: Tuned, space: Sequence[Dimension], *, importance: Mapping[str, float],
    validation: Mapping[int, Validation], best_yaml: str,
) -> None:  # fmt: skip
    """Write the page.

    Args:
      path: the file.
      tuned: the result.
      space: the settings that were tuned.
      importance: dotted key -> share of the variance.
      validation: number of a trial -> its validation metrics, of the best and the configured trial at least.
      best_yaml: the content of best.yaml.

    Raises:
      ArtifactError: the file cannot be written.
    """
    # Imported here: matplotlib costs a second that no other command should pay.
    from recall.runs.report import tuning_plots

    trials, best = tuned.trials, tuned.best.number
    ordered = sorted(space, key=lambda dimension: -importance.get(dimension.key, 0.0))
    plots = {
        "history": tuning_plots.tuning_history(trials, metric=tuned.metric),
        "curves": tuning_plots.tuning_curves(trials, best=best),
        "importance": tuning_plots.tuning_importance(importance),
        "slices": tuning_plots.tuning_slices(trials, ordered, metric=tuned.metric, best=best),
    }
    page = rendered(
        "tuning.html.j2", title=f"recall tune {tuned.directory.name}", sentences=tuned.sentences,
        facts=_facts(tuned), settings=_settings(tuned, ordered, importance), trials=_trials(tuned),
        buckets=_buckets(tuned, validation), plots=plots, best_yaml=best_yaml,
    )  # fmt: skip
    write_page(path, page, command="recall tune")


def _facts(tuned: Tuned) -> list[dict[str, str]]:
    """List the numbers that are shown large."""
    configured = tuned.configured.value if tuned.configured else None
    states = [trial.state for trial in tuned.trials]
    ended = {"complete": "complete", "pruned": "ended early", "failed": "failed", "interrupted": "killed, taken again"}
    facts = [
        {"value": number(_known(tuned.best.value)), "label": f"{tuned.metric}, best trial",
         "beside": f"trial {tuned.best.number}; validation clicks"},
        {"value": number(_known(configured)), "label": f"{tuned.metric}, as configured", "beside": "the same clicks"},
        {"value": str(sum(state != "interrupted" for state in states)), "label": "trials",
         "beside": ", ".join(f"{states.count(state)} {text}" for state, text in ended.items() if state in states)},
    ]  # fmt: skip
    if tuned.gains:
        gains = ", ".join(f"{gain:+.4f}" for gain in tuned.gains)
        facts.insert(2, {"value": f"{tuned.gain:+.4f}", "label": "gain with other seeds", "beside": gains})
    return facts


def _known(value: float | None) -> float:
    return float("nan") if value is None else value


def _settings(tuned: Tuned, space: Sequence[Dimension], importance: Mapping[str, float]) -> Table:
    """Build the table of the settings, the most important first."""
    rows = []
    for one in space:
        best, share = tuned.best.settings[one.key], importance.get(one.key)
        shown = "" if share is None else f"{share:.2f}"
        cells = [Cell(value_text(one.configured)), Cell(value_text(best), best != one.configured), Cell(shown)]
        rows.append(Row(one.key, [*cells, Cell(one.text)]))
    note = "Bold: another value than configured."
    return Table("What was tuned", ["configured", "best trial", "importance", "tried"], rows, note)


def _trials(tuned: Tuned) -> Table:
    """Build the table of the trials, the best first."""
    configured = {} if tuned.configured is None else tuned.configured.settings
    rows = []
    for trial in sorted(tuned.trials, key=lambda trial: (trial.value is None, -(trial.value or 0.0), trial.number)):
        changed = {key: value for key, value in trial.settings.items() if value != configured.get(key)}
        text = ", ".join(f"{key.partition('.')[2]} {value_text(value)}" for key, value in changed.items())
        about = "as configured" if trial.is_configured else text
        cells = [
            Cell(trial.state), Cell(number(_known(trial.value)), trial.number == tuned.best.number),
            Cell(str(len(trial.curve))), Cell(duration(trial.seconds) if trial.seconds else DASH),
            Cell(f"{trial.reason} ({about})" if trial.reason else about),
        ]  # fmt: skip
        rows.append(Row(f"trial {trial.number}", cells, _kind(trial, tuned)))
    return Table("All trials", ["", tuned.metric, "epochs", "time", "settings that differ"], rows)


def _kind(trial: Trial, tuned: Tuned) -> str:
    if trial.number == tuned.best.number:
        return "configured"  # the shade of the report
    return "" if trial.state == "complete" else "aside"


def _buckets(tuned: Tuned, validation: Mapping[int, Validation]) -> Table | None:
    """Build the table of both settings by exposures; None where they are the same."""
    if tuned.configured is None or tuned.best.is_configured:
        return None
    *rolling, metric = tuned.metric.split(" ")
    parts = [validation[trial.number] for trial in (tuned.configured, tuned.best)]
    configured, best = [part["rolling"] if rolling else part for part in parts]
    slices = [("all clicks", configured["all"], best["all"]), ("cold items", configured["cold"], best["cold"])]
    slices += [
        (f"{bucket_label(one)} exposures", one, other)
        for one, other in zip(configured["by_exposures"], best["by_exposures"], strict=True)
    ]
    rows = []
    for label, one, other in slices:
        if one["examples"]:
            values = metric_value(one, metric), metric_value(other, metric)
            shown = [Cell(f"{one['examples']:,}"), *(Cell(number(value), value == max(values)) for value in values)]
            rows.append(Row(label, [*shown, Cell(f"{values[1] - values[0]:+.4f}")]))
    when = "as of the click" if rolling else "before the validation period"
    return Table(
        f"{tuned.metric} by exposures {when}", ["clicks", "configured", "best trial", "difference"], rows,
        "In the study, with the seed of the experiment. A gain in all may be a loss among new items.",
    )  # fmt: skip
