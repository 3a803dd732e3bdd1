"""Judges answers on held-out clicks: as of the start of their period, and as of the last refresh before each click.

An `Answer` holds the scorers of a model or baseline -> `Judge` evaluates it on a split. `assessment.py` asks the
models, `baselines.py` the baselines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from scipy import sparse

from recall.config.experiment import Config
from recall.content.judge.evaluation import tag_matrices
from recall.core.arrays import Float32s, Int64s
from recall.data.posterior import Posterior
from recall.data.prepared import PreparedData
from recall.evaluation.calibration import Calibration
from recall.evaluation.categories import AskedCategories
from recall.evaluation.cold_bias import with_cold_bias
from recall.evaluation.ranks import RollingRanks, ranks_table
from recall.evaluation.rolling import Published, Ranked, Window, rank_windows, rolling_metrics, windows
from recall.evaluation.scorers import Scorer, ScorerOfSome, vector_scorer
from recall.evaluation.slices import Evaluation, evaluate_examples
from recall.model.batches.dataset import Examples
from recall.model.inference import CatalogueVectors
from recall.model.recall_model import RecallModel
from recall.runs.moments import counts_as_of, published, vectors_as_of


class Answer(NamedTuple):
    """Hold the scorers of a model or baseline.

    Attributes:
      frozen: scores all examples from what was known when their period began.
      as_of: makes the scorer of a window's examples from what was known at its moment; None: it is the frozen one.
    """

    frozen: Scorer
    as_of: Callable[[Window], Scorer] | None = None

    def later(self, window: Window) -> Scorer:
        """Return the frozen scorer for the examples of a window."""
        return ScorerOfSome(self.frozen, first=window.examples.start)


@dataclass(frozen=True)
class ModelItems:
    """Make the item vectors of a model that a split is judged with.

    Attributes:
      model: the model.
      prepared: its data.
      posterior: of every item when the period began.
      cold_bias: of the model.
    """

    model: RecallModel
    prepared: PreparedData
    posterior: Posterior
    cold_bias: float

    @cached_property
    def catalogue(self) -> CatalogueVectors:
        """Run the towers once, for all moments."""
        return CatalogueVectors(self.model)

    @cached_property
    def vectors(self) -> Float32s:
        """Encode the items as of the start of the period, with the cold bias."""
        vectors, _ = self.catalogue.at(self.posterior)
        return with_cold_bias(vectors, self.posterior.exposures, self.cold_bias)

    def answer(self, queries: Float32s) -> Answer:
        """Answer examples, of which each has one or several query vectors, with the items."""

        def as_of(window: Window) -> Scorer:
            fresh, _ = vectors_as_of(self.catalogue, self.prepared, window.moment_ms, cold_bias=self.cold_bias)
            return vector_scorer(queries[window.examples], fresh)

        return Answer(vector_scorer(queries, self.vectors), as_of)


class Judge:
    """Evaluate one answer after the other on a split.

    Attributes:
      split: `test` or `validation`.
      posterior: of every item when the period began.
      metrics: model -> its part of metrics.json.
      ranks: model -> its `recall.evaluation.ranks.ranks_table`.
    """

    def __init__(self, config: Config, prepared: PreparedData, split: Literal["test", "validation"]) -> None:
        self._config, self._prepared = config, prepared
        self.split, self.posterior = split, prepared.posterior(split)
        self._published_ms = published(config, prepared)
        self.metrics: dict[str, Any] = {}
        self.ranks: dict[str, pa.Table] = {}

    def __call__(
        self, name: str, answer: Answer, examples: Examples, *, by_trigger: bool = False, **about: Any
    ) -> None:
        """Evaluate an answer.

        Args:
          name: the model's, in metrics.json.
          answer: its scorers.
          examples: the held-out clicks that it is asked about.
          by_trigger: see `asked_categories`.
          **about: further entries of metrics.json.
        """
        exposures, clicks = self.posterior.exposures, self.posterior.clicks
        categories = asked_categories(self._config, self._prepared, examples, by_trigger=by_trigger)
        found = evaluate_examples(
            answer.frozen,
            examples,
            exposures=exposures,
            clicks=clicks,
            config=self._config.evaluation,
            categories=categories,
            weights=examples.weights if self._prepared.is_weighted else None,
        )
        rolling, rolling_ranks = self._rolling(answer, examples, found, categories=categories)
        self.metrics[name] = {**found.metrics, **rolling, **about}
        self.ranks[name] = ranks_table(
            users=examples.users,
            items=self._prepared.item_ids.take(pa.array(examples.targets)),
            times_ms=examples.times_ms,
            exposures=exposures[examples.targets],
            ranks=found.ranks,
            ranks_among_cold=found.ranks_among_cold,
            rolling=rolling_ranks,
        )

    def _rolling(
        self, answer: Answer, examples: Examples, frozen: Evaluation, *, categories: AskedCategories | None
    ) -> tuple[dict[str, Any], RollingRanks | None]:
        """Return the entry `rolling` of metrics.json, and ranks; nothing where there is no rolling evaluation."""
        config, refresh_ms = self._config.evaluation, self._config.refresh_ms
        if refresh_ms is None:
            return {}, None
        cut, known = windows(examples.times_ms, refresh_ms=refresh_ms), counts_as_of(self._prepared)
        exposures, _ = known(examples.targets, examples.times_ms)
        # One function at every moment, of the same candidates, answers as it did: only the slices differ.
        ranked, calibration = Ranked(frozen.ranks, frozen.lists), None
        if answer.as_of or self._published_ms is not None:
            there = None if self._published_ms is None else Published(self._published_ms, examples.times_ms)
            if answer.as_of:
                calibration = Calibration(self._exposures_at, exposures, config.exposure_buckets)
            ranked = rank_windows(
                answer.as_of or answer.later, examples, cut, published=there, calibration=calibration,
                exclude_seen=config.exclude_seen,
            )  # fmt: skip
        metrics = rolling_metrics(
            ranked,
            cut,
            known,
            targets=examples.targets,
            times_ms=examples.times_ms,
            item_count=len(self._prepared.item_ids),
            config=config,
            young=self._prepared.posterior("validation").exposures == 0,
            categories=categories,
        )
        if calibration:
            metrics["calibration"] = calibration.summary()
        return {"rolling": metrics}, RollingRanks(exposures, ranked.ranks)

    def _exposures_at(self, moment_ms: int) -> Int64s:
        """Count the exposures of all items that are known at a moment, int64 [items]."""
        rows = np.arange(len(self._prepared.item_ids))
        exposures, _ = counts_as_of(self._prepared)(rows, np.full(len(rows), moment_ms))
        return exposures


def asked_categories(
    config: Config, prepared: PreparedData, examples: Examples, *, by_trigger: bool
) -> AskedCategories | None:
    """Return the categories that each example's query has; None where the experiment names no category feature.

    Args:
      config: the experiment; see `Config.category`.
      prepared: its data.
      examples: the examples.
      by_trigger: take the categories of the trigger item, not of the user's last clicks.
    """
    items = category_matrix(config, prepared)
    if items is None:
        return None
    if by_trigger:
        return AskedCategories.of_triggers(items, examples.triggers)
    return AskedCategories.of_histories(items, examples.history)


def category_matrix(config: Config, prepared: PreparedData) -> sparse.csr_array | None:
    """Return the values of the experiment's category feature, sparse [items, values]; None where it names none."""
    return None if config.category is None else tag_matrices(prepared)[config.category]
