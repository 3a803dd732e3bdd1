"""Holds the inputs of a report; the page, its tables and its plots read nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recall.config.values import duration_text
from recall.core.arrays import AnyFloats
from recall.core.errors import ArtifactError
from recall.evaluation.slices import metric_value

if TYPE_CHECKING:
    import pandas as pd

    from recall.evaluation.bootstrap import Interval

BASELINES = ("popularity", "trending", "item_knn", "content_knn", "content_knn_top3")
CLICK_BASELINES = ("popularity", "trending", "item_knn")
"""Baselines that know clicks alone: an item that nobody clicked they cannot recall, whoever asks."""


@dataclass(frozen=True)
class RecalledItem:
    """Hold one line of a recalled list.

    Attributes:
      title: the item's title, or its id where it has none.
      score: the list is sorted by it.
      exposures: exposures of the item before the test period.
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
    """Hold the clicks of one user, oldest first, and the items recalled for them, best first."""

    user: str
    history: Sequence[str]
    recalled: Sequence[RecalledItem]


@dataclass(frozen=True)
class ReportInputs:
    """Hold everything that a report shows.

    Attributes:
      title: heading of the page.
      config_yaml: the resolved experiment file.
      metrics: content of metrics.json: `test` and `validation` by model, `index`, `timing` (seconds, where a
        name does not say otherwise).
      configured: name of the configured model, a key of `metrics["test"]`.
      training: per trained model its epochs: `epoch` (from 1), `loss`, one `val_...` metric, `seconds`; other keys
        with `loss` in their name are terms of the loss.
      items: one row per item of the catalogue: `exposures` and `clicks` before the test period,
        `behaviour_share` of the item vector in [0, 1] (absent or NaN: the model has no gate), and `audience_share`
        (absent or NaN: it reads no audiences).
      vectors: float32 [items, dim], row i belongs to row i of `items`; of several vectors of an item their mean.
      samples: recalled lists to show.
      counts: `counts` of the training data's manifest.
      versions: package -> version.
      differences: test slice (`all`, `cold`, `cold_among_cold`) -> other model -> interval of the headline metric of
        the configured model minus that of the other, on the clicks that both were asked about.
      rolling_differences: the same of the rolling evaluation.
      modality_weights: modality -> float [items], its weight in the item's content, 0 where the item lacks it; empty
        where the model weighs none.

    Raises:
      ArtifactError: `metrics` lack the configured model, or vectors and items have different lengths.
    """

    title: str
    config_yaml: str
    metrics: Mapping[str, Any]
    configured: str
    items: pd.DataFrame
    vectors: AnyFloats
    training: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    samples: Sequence[RecallSample] = ()
    counts: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    differences: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    rolling_differences: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    modality_weights: Mapping[str, AnyFloats] = field(default_factory=dict)

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
        """Return the test metrics by model."""
        return self.metrics.get("test") or {}

    @cached_property
    def models(self) -> list[str]:
        """List the models in the order of the page: the configured one, others, baselines."""
        return [self.configured, *self.others, *self.baselines]

    @cached_property
    def others(self) -> list[str]:
        """List the models trained beside the configured one."""
        return [name for name in self.test if name not in (self.configured, *BASELINES)]

    @cached_property
    def baselines(self) -> list[str]:
        """List the baselines of the run."""
        return [name for name in BASELINES if name in self.test and name != self.configured]

    def able_baselines(self, part: str) -> list[str]:
        """List the baselines that can recall items of a test slice: not the ones by clicks that recall nothing."""
        return [name for name in self.baselines if name not in CLICK_BASELINES or self.value(name, part) > 0]

    @cached_property
    def is_cold(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mark the items without exposure and click before the test period; bool [items]."""
        return (self.items["exposures"].to_numpy() == 0) & (self.items["clicks"].to_numpy() == 0)

    @cached_property
    def behaviour_share(self) -> AnyFloats:
        """Return the share of behaviour in each item vector, float64 [items]; NaN without a gate."""
        return self._share("behaviour_share")

    @cached_property
    def audience_share(self) -> AnyFloats:
        """Return the share of the audience in each item vector, float64 [items]; NaN without audiences."""
        return self._share("audience_share")

    def _share(self, name: str) -> AnyFloats:
        if name not in self.items:
            return np.full(len(self.items), np.nan)
        return self.items[name].to_numpy(dtype=np.float64, na_value=np.nan)

    @cached_property
    def headline_metric(self) -> str:
        """Name the main metric: recall@k with the largest k up to 50, else the smallest k; mrr without any recall."""
        found = [re.fullmatch(r"recall@(\d+)", key) for key in self.test[self.configured].get("all") or {}]
        cutoffs = sorted(int(match[1]) for match in found if match)
        if not cutoffs:
            return "mrr"
        return f"recall@{max((k for k in cutoffs if k <= 50), default=cutoffs[0])}"

    @cached_property
    def rolling(self) -> dict[str, Mapping[str, Any]]:
        """Return the rolling test metrics by model, in the order of the page; empty without rolling evaluation."""
        return {name: self.test[name]["rolling"] for name in self.models if self.test[name].get("rolling")}

    @property
    def refresh(self) -> str:
        """Write the time between two refreshes of the rolling evaluation, e.g. `1h`."""
        return duration_text(int((self.metrics.get("rolling") or {}).get("refresh_ms") or 0))

    @property
    def why_frozen(self) -> str:
        """Say why there is no rolling evaluation."""
        return (self.metrics.get("rolling") or {}).get("why_frozen") or "metrics.json has none"

    def value(self, model: str, part: str, metric: str | None = None) -> float:
        """Return a test metric of a model on a slice; NaN where there is none. Default: the headline metric."""
        return metric_value(self.test[model].get(part) or {}, metric or self.headline_metric)

    def highest(self, models: Sequence[str], part: str) -> str | None:
        """Return the model with the highest headline metric on a slice; None where no model has one."""
        measured = [model for model in models if np.isfinite(self.value(model, part))]
        return max(measured, key=lambda model: self.value(model, part), default=None)

    def examples(self, part: str) -> int:
        """Count the test examples of a slice."""
        return int((self.test[self.configured].get(part) or {}).get("examples") or 0)
