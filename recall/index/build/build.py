"""Builds the index that suits given ids and vectors, in memory or saved at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recall.config.index import IndexConfig
from recall.core.arrays import Float32s
from recall.core.errors import DataError
from recall.index.base import Index
from recall.index.build.choice import add_cosine, exact_at_once, tuned_index
from recall.index.build.shard_build import ShardBuild
from recall.index.build.tuning import Progress, tuning_queries
from recall.index.exact import ExactIndex
from recall.index.items import Items, float_matrix
from recall.index.saved.store import load_index, save_index
from recall.index.shards import ShardedIndex


def build_index(
    ids: Any,
    vectors: Any,
    *,
    config: IndexConfig | None = None,
    sample_queries: Any | None = None,
    cosine_width: int | None = None,
    seed: int = 1,
    progress: Progress | None = None,
) -> Index:
    """Build, tune and measure an index.

    `kind: auto` searches small catalogues exactly; larger ones with ScaNN, unless exact search turns out to be
    as fast at the target recall. `Index.report` holds the choice, its reason and every tuning step.
    With `shards` above 1 each shard is built so, and all shards stay in memory: see `build_saved_index`.

    Args:
      ids: strings [items], unique.
      vectors: float [items, dim], of any length (the score is the inner product); or [items, entries, dim], where an
        item's best entry counts.
      config: the `index` section of an experiment.
      sample_queries: float [queries, dim], real query vectors to tune with; without them, perturbed item vectors.
      cosine_width: width that `Index.by_cosine` will be asked for, to make it ready; None: it will not be asked.
        `Index.report` keeps it, so that the next build makes it ready, too.
      seed: of the choice of sample queries.
      progress: called with one line of text per step.

    Raises:
      ConfigError: there are too few items for `index.shards`.
      DataError: ids or vectors cannot be indexed; names the rows.

    Example:
      >>> index = recall.build_index(["a", "b", "c"], np.eye(3))
      >>> index.search(np.array([[0.9, 0.1, 0]]), k=2).ids.tolist()
      [['a', 'b']]
    """
    config = config or IndexConfig()
    items = Items.checked(ids, vectors)
    if config.shards > 1:
        build = _in_shards(
            items, sample_queries, config=config, cosine_width=cosine_width, seed=seed, progress=progress
        )
        shards = [build.shard(number) for number in range(build.count)]
        return ShardedIndex(shards, report=build.report)
    kept = {} if cosine_width is None else {"cosine_width": cosine_width}
    if reason := exact_at_once(items, config):
        return ExactIndex(items, report={"reason": reason, **kept})
    index = tuned_index(items, _queries(items, sample_queries, seed), config=config, progress=progress)
    index.report = {**index.report, **kept}
    if cosine_width is not None:
        add_cosine(index, width=cosine_width, config=config, progress=progress)
    return index


def build_saved_index(
    ids: Any,
    vectors: Any,
    directory: str | Path,
    *,
    fingerprint: str,
    report: Mapping[str, Any] | None = None,
    config: IndexConfig | None = None,
    sample_queries: Any | None = None,
    cosine_width: int | None = None,
    seed: int = 1,
    progress: Progress | None = None,
) -> Index:
    """Build an index and save it; of several shards, each is written and released before the next is built.

    Args:
      ids: strings [items], unique.
      vectors: float [items, dim] or [items, entries, dim]; see `build_index`.
      directory: where to save it; see `save_index`.
      fingerprint: of the model that made the vectors.
      report: added to the report of the index.
      config: the `index` section of an experiment.
      sample_queries: float [queries, dim], real query vectors to tune with; kept beside the index.
      cosine_width: see `build_index`.
      seed: of the choice of sample queries.
      progress: called with one line of text per step.

    Returns:
      The index. In shards it is the saved one, opened again.

    Raises:
      ArtifactError: it could not be written.
      ConfigError: there are too few items for `index.shards`.
      DataError: ids or vectors cannot be indexed.
    """
    config = config or IndexConfig()
    if config.shards > 1:
        items = Items.checked(ids, vectors)
        build = _in_shards(
            items, sample_queries, config=config, cosine_width=cosine_width, seed=seed, report=report, progress=progress
        )  # fmt: skip
        save_index(build, directory, fingerprint=fingerprint, sample_queries=sample_queries)
        return load_index(directory, fingerprint=fingerprint)
    index = build_index(
        ids, vectors, config=config, sample_queries=sample_queries, cosine_width=cosine_width, seed=seed,
        progress=progress,
    )  # fmt: skip
    index.report = {**index.report, **(report or {})}
    save_index(index, directory, fingerprint=fingerprint, sample_queries=sample_queries)
    return index


def _in_shards(
    items: Items,
    sample_queries: Any | None,
    *,
    config: IndexConfig,
    cosine_width: int | None,
    seed: int,
    report: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> ShardBuild:
    """Prepare the build of an index in shards, whose queries are drawn only if a shard needs them."""
    return ShardBuild(
        items, config=config, queries=lambda: _queries(items, sample_queries, seed), cosine_width=cosine_width,
        report=report, progress=progress,
    )  # fmt: skip


def _queries(items: Items, given: Any | None, seed: int) -> Float32s:
    """Check the given queries and draw the queries to tune with."""
    if given is not None:
        given = float_matrix(given, "sample_queries")
        dim = items.vectors.shape[1]
        if given.shape[1] != dim:
            raise DataError(f"sample_queries: expected {dim} dimensions as the items have, found {given.shape[1]}")
    return tuning_queries(items, given, seed=seed)
