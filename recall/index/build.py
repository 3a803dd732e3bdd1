"""From ids and vectors to the index that suits them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from recall.config import IndexConfig
from recall.errors import DataError
from recall.index.base import Index, first_width
from recall.index.exact import ExactIndex
from recall.index.items import Items, Vectors, float_matrix
from recall.index.scann_index import ScannIndex, ScannSettings
from recall.index.tuning import Progress, measure, tune, tuning_queries


def build_index(
    ids: Any,
    vectors: Any,
    *,
    config: IndexConfig | None = None,
    sample_queries: Any | None = None,
    seed: int = 1,
    progress: Progress | None = None,
) -> Index:
    """Builds, tunes and measures an index.

    `kind: auto` searches small catalogues exactly; larger ones with ScaNN, unless exact search turns out to be
    as fast at the target recall. What was chosen, why, and every tuning step is in `Index.report`.

    Args:
      ids: strings [items], unique.
      vectors: float [items, dim], of any length (the score is the inner product); or [items, entries, dim], of which
        an item's best one counts.
      config: the `index` section of an experiment.
      sample_queries: float [queries, dim], real query vectors to tune with; without them, perturbed item vectors.
      seed: of the choice of sample queries.
      progress: called with one line of text per step.

    Raises:
      DataError: ids or vectors cannot be indexed; names the rows.
    """
    config = config or IndexConfig()
    items = Items.checked(ids, vectors)
    if config.kind == "exact":
        return ExactIndex(items, report={"reason": "index.kind is exact"})
    if config.kind == "auto" and len(items.vectors) < config.exact_below:
        reason = f"{_counted(items)}, fewer than index.exact_below = {config.exact_below:,}"
        return ExactIndex(items, report={"reason": reason})
    return _tuned(items, _queries(items, sample_queries, seed), config=config, progress=progress)


def _queries(items: Items, given: Any | None, seed: int) -> Vectors:
    if given is not None:
        given = float_matrix(given, "sample_queries")
        dim = items.vectors.shape[1]
        if given.shape[1] != dim:
            raise DataError(f"sample_queries: expected {dim} dimensions as the items have, found {given.shape[1]}")
    return tuning_queries(items, given, seed=seed)


def _tuned(items: Items, queries: Vectors, *, config: IndexConfig, progress: Progress | None) -> Index:
    exact = ExactIndex(items)
    k = min(config.k, len(exact))
    measured = {"exact": measure(exact, queries, k=k)}
    exact_time = measured["exact"].microseconds
    if progress:
        progress(f"building ScaNN over {_counted(items)}; exact search takes {exact_time:.0f} us per query")
    limit = exact_time if config.kind == "auto" else math.inf
    built = ScannIndex.build(items, ScannSettings.for_vectors(items.vectors, first_width(k, items.entries_per_item)))
    tuning = tune(built, queries, k=k, target=config.target_recall, limit_microseconds=limit, progress=progress)
    if tuning.measured:
        measured["scann"] = tuning.measured
    index = tuning.index or exact
    index.report = {
        "reason": _reason(index, config),
        "measured": {kind: dataclasses.asdict(measurement) for kind, measurement in measured.items()},
        "tuning": list(tuning.steps),
    }
    return index


def _counted(items: Items) -> str:
    return f"{len(items.vectors):,} {'items' if items.entries_per_item == 1 else 'vectors of items'}"


def _reason(index: Index, config: IndexConfig) -> str:
    if config.kind == "scann":
        return "index.kind is scann"
    if index.is_exact:
        return f"exact search is as fast as ScaNN at recall@{config.k} {config.target_recall}"
    return f"ScaNN reaches recall@{config.k} {config.target_recall} faster than exact search"
