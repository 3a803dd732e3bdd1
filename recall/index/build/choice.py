"""Chooses between exact search and ScaNN for given items."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from recall.config.index import IndexConfig
from recall.core.arrays import Float32s
from recall.index.base import VectorIndex, first_width
from recall.index.build.tuning import Progress, measure, tune
from recall.index.exact import ExactIndex
from recall.index.items import Items
from recall.index.scann import ScannIndex, ScannSettings, is_installed

_COSINE_QUERIES = 500


def exact_at_once(items: Items, config: IndexConfig) -> str | None:
    """Return the reason to search these items exactly without any measurement; None where ScaNN has to be tried."""
    if config.kind == "exact":
        return "index.kind is exact"
    if config.kind == "auto" and len(items.vectors) < config.exact_below:
        return f"{_counted(items)}, fewer than index.exact_below = {config.exact_below:,}"
    if config.kind == "auto" and not is_installed():
        return "ScaNN is not installed; on this machine all search is exact"
    return None


def tuned_index(
    items: Items,
    queries: Float32s,
    *,
    config: IndexConfig,
    worst: Float32s | None = None,
    progress: Progress | None = None,
) -> VectorIndex:
    """Build ScaNN and tune it to the target recall; return exact search where `kind: auto` finds that as fast.

    Args:
      items: items of a catalogue, or of a shard.
      queries: float32 [queries, dim] to tune with.
      config: the `index` section of an experiment.
      worst: see `measure`; given for a shard.
      progress: called with one line of text per step.
    """
    exact = ExactIndex(items)
    k = min(config.k, len(exact))
    measured = {"exact": measure(exact, queries, k=k)}
    exact_time = measured["exact"].microseconds
    if progress:
        progress(f"building ScaNN over {_counted(items)}; exact search takes {exact_time:.0f} us per query")
    limit = exact_time if config.kind == "auto" else math.inf
    built = ScannIndex.build(items, ScannSettings.for_vectors(items.vectors, first_width(k, items.entries_per_item)))
    tuning = tune(
        built, queries, k=k, target=config.target_recall, limit_microseconds=limit, worst=worst, progress=progress
    )
    if tuning.measured:
        measured["scann"] = tuning.measured
    index = tuning.index or exact
    index.report = {
        "reason": _reason(index, config),
        "measured": {kind: dataclasses.asdict(measurement) for kind, measurement in measured.items()},
        "tuning": list(tuning.steps),
    }
    return index


def add_cosine(index: VectorIndex, *, width: int, config: IndexConfig, progress: Progress | None = None) -> None:
    """Build the index that `by_cosine` gives, and keep it with this one, where comparing all vectors takes long.

    Args:
      index: the built index; an exact one needs none.
      width: see `Index.by_cosine`.
      config: the `index` section of an experiment.
      progress: called with one line of text per step.
    """
    if index.is_exact or config.similar == "exact":
        return
    items = index.items.of_unit_length(width)
    # The queries are the items themselves.
    chosen = np.random.default_rng(1).permutation(len(items.vectors))[:_COSINE_QUERIES]
    index.cosine = tuned_index(items, items.vectors[np.sort(chosen)], config=config, progress=progress)


def _counted(items: Items) -> str:
    """Format the number of vectors."""
    return f"{len(items.vectors):,} {'items' if items.entries_per_item == 1 else 'vectors of items'}"


def _reason(index: VectorIndex, config: IndexConfig) -> str:
    """Explain the choice of an index for its report."""
    if config.kind == "scann":
        return "index.kind is scann"
    if index.is_exact:
        return f"exact search is as fast as ScaNN at recall@{config.k} {config.target_recall}"
    return f"ScaNN reaches recall@{config.k} {config.target_recall} faster than exact search"
