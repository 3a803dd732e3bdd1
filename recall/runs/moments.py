"""Tells what is known of the items at a moment, and makes their vectors of it: the one place that asks for either."""

from __future__ import annotations

import numpy as np

from recall.config.experiment import Config
from recall.core.arrays import AnyInts, Float32s, Float64s, Int64s
from recall.core.times import MS_PER_HOUR
from recall.data.compaction import Base
from recall.data.posterior import Posterior
from recall.data.prepared import PreparedData
from recall.data.published import candidates_from, published_times
from recall.evaluation.cold_bias import with_cold_bias
from recall.evaluation.rolling import Known
from recall.evaluation.trending import DecayedClicks, Start
from recall.model.inference import CatalogueVectors


def vectors_as_of(
    catalogue: CatalogueVectors, prepared: PreparedData, moment_ms: int, *, cold_bias: float
) -> tuple[Float32s, Posterior]:
    """Make vectors of the catalogue from what is known at a moment, as a service does that refreshes its items then.

    Args:
      catalogue: the items of the model.
      prepared: its data; the log has a clock.
      moment_ms: Unix milliseconds.
      cold_bias: added to the score of an item without exposures, see `with_cold_bias`.

    Returns:
      Vectors as of `encode_items`, the bias in them, and the posterior of every item.
    """
    rows = np.arange(len(prepared.item_ids))
    posterior = prepared.posterior_history.as_of(rows, np.full(len(rows), moment_ms))
    if prepared.audience:
        sources = prepared.audience_history.as_of(rows, np.full(len(rows), moment_ms), last=prepared.audience)
        posterior = posterior._replace(sources=sources)
    vectors, _ = catalogue.at(posterior)
    return with_cold_bias(vectors, posterior.exposures, cold_bias), posterior


def counts_as_of(prepared: PreparedData) -> Known:
    """Return the lookup of exposures and clicks that are known of items at moments."""

    def known(rows: AnyInts, times_ms: Int64s) -> tuple[Int64s, Int64s]:
        posterior = prepared.posterior_history.as_of(rows, times_ms)
        return posterior.exposures, posterior.clicks

    return known


def published(config: Config, prepared: PreparedData) -> Int64s | None:
    """Return when items became candidates, int64 [items]; None without `data.items.published`."""
    name = config.data.items.published
    if name is None or prepared.attributes is None:
        return None
    return candidates_from(published_times(prepared.attributes[name], config.data), prepared.posterior_history)


def decayed_clicks(prepared: PreparedData) -> DecayedClicks:
    """Read the clicks of the log, for sums that decay; the log has a clock."""
    history = prepared.posterior_history
    entries, base = history.entries(), history.base
    newer = slice(None) if base is None else np.flatnonzero(entries.bucket > base.bucket)
    return DecayedClicks(
        entries.item[newer],
        entries.bucket[newer],
        entries.clicks[newer],
        bucket_ms=history.bucket_ms,
        delay_ms=history.delay_ms,
        item_count=len(prepared.item_ids),
        start=_start(base, prepared) if base else None,
    )


def _start(base: Base, prepared: PreparedData) -> Start:
    """Return the decayed clicks of compacted entries, by half-life in hours."""

    def clicks(half_life_ms: int) -> Float64s:
        result = np.zeros(len(prepared.item_ids))
        result[base.item] = base.of_items("clicks", half_life_ms)
        return result

    end_ms = (base.bucket + 1) * prepared.posterior_history.bucket_ms
    return Start(end_ms, {half_life / MS_PER_HOUR: clicks(half_life) for half_life in base.half_lives_ms})
