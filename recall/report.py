"""The report of a run: one HTML file that needs nothing else, for the screen, the phone and the printer."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recall.errors import ArtifactError
from recall.report_numbers import Floats, chance, metric_value
from recall.report_tables import (
    bucket_table,
    data_tables,
    join,
    metric_tables,
    number,
    settings_table,
    training_table,
    validation_table,
)

if TYPE_CHECKING:
    import pandas as pd

BASELINES = ("popularity", "item_knn")


@dataclass(frozen=True)
class RecalledItem:
    """One line of a recalled list.

    Attributes:
      title: the item's title, or its id where it has none.
      score: what the list is sorted by.
      exposures: of the item before the test period.
      is_cold: no exposure and no click before the test period.
      hit: the user clicked it in the test period.
    """

    title: str
    score: float
    exposures: int
    is_cold: bool
    hit: bool = False


@dataclass(frozen=True)
class RecallSample:
    """What one user clicked, oldest first, and what was recalled for that, best first."""

    user: str
    history: Sequence[str]
    recalled: Sequence[RecalledItem]


@dataclass(frozen=True)
class ReportInputs:
    """Everything that a report shows.

    Attributes:
      title: heading of the page.
      config_yaml: the resolved experiment file.
      metrics: content of metrics.json: `test` and `validation` by model, `index`, `timing` (seconds, where a
        name does not say otherwise).
      configured: name of the configured model, a key of `metrics["test"]`.
      training: per trained model its epochs: `epoch` (from 1), `loss`, one `val_...` metric, `seconds`; other keys
        with `loss` in their name are terms of the loss.
      items: one row per item of the catalogue: `exposures` and `clicks` before the test period,
        `behaviour_share` of the item vector in [0, 1] (absent or NaN: the model has no gate).
      vectors: float32 [items, dim], row i belongs to row i of `items`.
      samples: recalled lists to show.
      counts: `counts` of the training data's manifest.
      versions: package -> version.

    Raises:
      ArtifactError: `metrics` lack the configured model, or vectors and items have different lengths.
    """

    title: str
    config_yaml: str
    metrics: Mapping[str, Any]
    configured: str
    items: pd.DataFrame
    vectors: Floats
    training: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    samples: Sequence[RecallSample] = ()
    counts: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.configured not in self.test:
            found = ", ".join(self.test) or "no model"
            raise ArtifactError(
                f"metrics.json: test has no {self.configured}, only {found}; run `recall evaluate` again"
            )
        if len(self.vectors) != len(self.items):
            raise ArtifactError(
                f"{len(self.vectors):,} vectors for {len(self.items):,} items; "
                "they come from different runs, so run `recall vectors` again"
            )

    @property
    def test(self) -> Mapping[str, Any]:
        """Model -> its test metrics."""
        return self.metrics.get("test") or {}

    @cached_property
    def models(self) -> list[str]:
        """Models in the order of the page: the configured one, others, baselines."""
        return [self.configured, *self.others, *self.baselines]

    @cached_property
    def others(self) -> list[str]:
        """Models trained beside the configured one."""
        return [name for name in self.test if name not in (self.configured, *BASELINES)]

    @cached_property
    def baselines(self) -> list[str]:
        """Baselines of the run."""
        return [name for name in BASELINES if name in self.test and name != self.configured]

    @cached_property
    def is_cold(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """bool [items]: neither shown nor clicked before the test period."""
        return (self.items["exposures"].to_numpy() == 0) & (self.items["clicks"].to_numpy() == 0)

    @cached_property
    def behaviour_share(self) -> Floats:
        """float64 [items]: share of behaviour in the item vector, NaN without a gate."""
        if "behaviour_share" not in self.items:
            return np.full(len(self.items), np.nan)
        return self.items["behaviour_share"].to_numpy(dtype=np.float64, na_value=np.nan)

    @cached_property
    def headline_metric(self) -> str:
        """recall@50, or what comes nearest: the largest k below 50, else the smallest."""
        found = [re.fullmatch(r"recall@(\d+)", key) for key in self.test[self.configured].get("all") or {}]
        cutoffs = sorted(int(match[1]) for match in found if match)
        if not cutoffs:
            return "mrr"
        return f"recall@{max((k for k in cutoffs if k <= 50), default=cutoffs[0])}"

    def value(self, model: str, part: str, metric: str | None = None) -> float:
        """A test metric (default: the headline metric) of a model on a slice; NaN where there is none."""
        return metric_value(self.test[model].get(part) or {}, metric or self.headline_metric)

    def highest(self, models: Sequence[str], part: str) -> str | None:
        """Which of `models` has the highest headline metric on a slice; None where none has one."""
        measured = [model for model in models if np.isfinite(self.value(model, part))]
        return max(measured, key=lambda model: self.value(model, part), default=None)

    def examples(self, part: str) -> int:
        """Test examples of a slice."""
        return int((self.test[self.configured].get(part) or {}).get("examples") or 0)


def write_report(path: str | Path, inputs: ReportInputs) -> None:
    """Writes the report beside its place and renames it, so that a reader sees a whole page or the one before.

    Raises:
      ArtifactError: the file cannot be written; nothing is left behind.
    """
    page, path = render(inputs), Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise ArtifactError(
            f"{path}: could not be written ({error}); free some space, then run `recall report` again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def render(inputs: ReportInputs) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("recall"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        inputs=inputs,
        headline=headline(inputs),
        facts=_facts(inputs),
        data=data_tables(inputs.counts),
        tables=metric_tables(inputs),
        validation=validation_table(inputs),
        buckets=bucket_table(inputs),
        training=training_table(inputs),
        index=settings_table("The index", inputs.metrics.get("index") or {}),
        timing=settings_table("Timings", inputs.metrics.get("timing") or {}, seconds=True),
        versions=settings_table("Versions", inputs.versions),
        plots=_plots(inputs),
    )


def _plots(inputs: ReportInputs) -> dict[str, str | None]:
    # Imported here: matplotlib costs a second that no other command should pay.
    from recall import plots

    untested = [name for name in inputs.training if name not in inputs.models]
    styles = plots.line_styles(inputs.configured, inputs.others + untested, inputs.baselines)
    return {
        "exposures": plots.recall_by_exposures(
            {name: inputs.test[name].get("by_exposures") or [] for name in inputs.models},
            metric=inputs.headline_metric,
            styles=styles,
            configured=inputs.configured,
        ),
        "gate": plots.gate_by_exposures(inputs.items["exposures"].to_numpy(), inputs.behaviour_share),
        "loss": plots.training_loss(inputs.training, styles=styles),
        "validation": plots.training_validation(inputs.training, styles=styles),
        "terms": plots.training_terms(inputs.training.get(inputs.configured) or [], model=inputs.configured),
        "map": plots.item_map(inputs.vectors, inputs.is_cold),
    }


# --- what the page says in words -----------------------------------------------------------------------------


def headline(inputs: ReportInputs) -> list[str]:
    """What was run and how good it is, one plain sentence each; the same words whichever way it went."""
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
    return [what, *(_slice_sentence(inputs, part, name) for part, name in slices.items())]


def _slice_sentence(inputs: ReportInputs, part: str, name: str) -> str:
    own, examples = inputs.value(inputs.configured, part), inputs.examples(part)
    if not examples or not np.isfinite(own):
        return f"{name}: none, so this run says nothing about them."
    sentence = f"{name} ({examples:,}): {inputs.headline_metric} is {number(own)}"
    baseline = inputs.highest(inputs.baselines, part)
    if baseline is None:
        sentence += "; there is no baseline to compare with"
    else:
        value = inputs.value(baseline, part)
        noise = number(own) != number(value) and is_noise(own, value, examples)
        sentence += f", {difference(own, value)} {baseline}, the best baseline ({number(value)})"
        sentence += ", a difference within sampling noise" if noise else ""
    other = inputs.highest(inputs.others, part)
    if other is not None and inputs.value(other, part) > own:
        sentence += f"; of the models trained beside it {other} is highest ({number(inputs.value(other, part))})"
    return f"{sentence}."


def difference(own: float, other: float) -> str:
    """`0.0312 higher than`, `0.0312 lower than` or `the same as`, as far as four decimals show."""
    if number(own) == number(other):
        return "the same as"
    return f"{number(abs(own - other))} {'higher' if own > other else 'lower'} than"


def is_noise(own: float, other: float, examples: int) -> bool:
    """Whether two shares differ by less than 1.96 standard errors, each taken over `examples` independent clicks.

    Both models are judged on the same clicks, which as a rule makes the true error smaller.
    """
    return bool(abs(own - other) <= 1.96 * np.sqrt((own * (1 - own) + other * (1 - other)) / max(examples, 1)))


class Fact(NamedTuple):
    """A number that is shown large, what it is, and what to hold against it."""

    value: str
    label: str
    beside: str


def _facts(inputs: ReportInputs) -> list[Fact]:
    facts = []
    for part, label in (("all", "all test clicks"), ("cold", "clicks on cold items")):
        if inputs.examples(part):
            value = number(inputs.value(inputs.configured, part))
            beside = [f"{name}\u00a0{number(inputs.value(name, part))}" for name in inputs.baselines]
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
