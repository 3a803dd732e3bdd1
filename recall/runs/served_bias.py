"""Chooses the cold bias that the items of a run are served with."""

from __future__ import annotations

import numpy as np

from recall.config.experiment import Config
from recall.core.arrays import Bools
from recall.data.prepared import PreparedData
from recall.evaluation.cold_bias import ColdBias, Shown, choose_cold_bias, choose_rolling_cold_bias
from recall.evaluation.rolling import Published, Window, windows
from recall.evaluation.scorers import vector_scorer
from recall.model.batches.dataset import read_examples
from recall.model.inference import CatalogueVectors, answerable, encode_queries
from recall.model.recall_model import RecallModel
from recall.runs.moments import published, vectors_as_of

# MovieLens has 8 validation clicks on items without exposures as of the refresh, and 29 as of the start of the period.
# The 8 chose a bias that costs a point of recall of all test clicks.
FEWEST = 20


def cold_bias(config: Config, prepared: PreparedData, model: RecallModel, *, limit: int = 10_000) -> ColdBias:
    """Return the cold bias of `index.cold_bias`, or choose it on validation examples.

    Items are as of the last refresh before each click where the experiment has rolling evaluation
    (`choose_rolling_cold_bias`). Without it, or where fewer than `FEWEST` clicks are on items that are new then, they
    are as of the start of the validation period, since when more items are new (`choose_cold_bias`).

    Args:
      config: the experiment.
      prepared: its data.
      model: encodes queries and items.
      limit: examples to choose on at most, drawn at random.
    """
    if config.index.cold_bias != "auto":
        return ColdBias(config.index.cold_bias)
    examples = answerable(model, read_examples(prepared.shards("validation")))
    chosen = np.random.default_rng(config.seed).permutation(len(examples))[:limit]
    examples = examples.select(np.sort(chosen))
    queries, catalogue = encode_queries(model, examples), CatalogueVectors(model)
    absent, temperature = _comes_after_validation(prepared), float(model.temperature)
    tolerance, exclude_seen = config.index.cold_bias_tolerance, config.evaluation.exclude_seen

    def frozen() -> ColdBias:
        posterior = prepared.posterior("validation")
        vectors, _ = catalogue.at(posterior)
        return choose_cold_bias(
            vector_scorer(queries, vectors), examples, exposures=posterior.exposures, absent=absent,
            temperature=temperature, tolerance=tolerance, exclude_seen=exclude_seen,
        )  # fmt: skip

    def as_of(window: Window) -> Shown:
        fresh, posterior = vectors_as_of(catalogue, prepared, window.moment_ms, cold_bias=0.0)
        return Shown(vector_scorer(queries[window.examples], fresh), posterior.exposures)

    if config.refresh_ms is None:
        return frozen()
    items_ms = published(config, prepared)
    rolling = choose_rolling_cold_bias(
        as_of, examples, windows(examples.times_ms, refresh_ms=config.refresh_ms),
        published=None if items_ms is None else Published(items_ms, examples.times_ms), absent=absent,
        temperature=temperature, tolerance=tolerance, exclude_seen=exclude_seen,
    )  # fmt: skip
    return rolling if rolling.cold_clicks >= FEWEST else frozen()


def _comes_after_validation(prepared: PreparedData) -> Bools | None:
    """Mark the items whose first event is in the test period, bool [items]; None for a split without a common clock."""
    test_start_ms = prepared.manifest["split"].get("test_start_ms")
    if test_start_ms is None:
        return None
    history = prepared.posterior_history
    absent = np.zeros(len(prepared.item_ids), bool)
    absent[history.item] = history.first_time_ms >= test_start_ms
    return absent
