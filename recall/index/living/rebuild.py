"""Builds a new base for a living index from the items of a snapshot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from recall.config.index import IndexConfig
from recall.core.errors import DataError
from recall.index.base import Index
from recall.index.build.build import build_index
from recall.index.living.snapshot import LivingSnapshot
from recall.index.shards import ShardedIndex

_OF_A_BUILD = ("reason", "measured", "tuning", "shards")  # keys of a report that tell how an index was built


def rebuilt(
    snapshot: LivingSnapshot,
    *,
    config: IndexConfig,
    sample_queries: Any | None,
    progress: Callable[[str], None] | None = None,
) -> Index:
    """Build an index of the items of a snapshot; its report keeps the facts that are not of a build.

    Args:
      snapshot: the items.
      config: the `index` section of an experiment.
      sample_queries: see `build_index`.
      progress: called with one line of text per step.

    Raises:
      ConfigError: there are too few items for the shards.
      DataError: there is no item.
    """
    rows = np.flatnonzero(snapshot.is_alive)
    if not rows.size:
        raise DataError("rebalance: every item was deleted; an index needs one at least")
    base = build_index(
        snapshot.names[rows].tolist(),
        snapshot.vectors(rows),
        config=config,
        sample_queries=sample_queries,
        cosine_width=snapshot.report.get("cosine_width"),
        progress=progress,
    )
    kept = {name: fact for name, fact in snapshot.report.items() if name not in _OF_A_BUILD}  # e.g. the cold bias
    base.report = {**kept, **base.report}
    return base


def config_like(base: Index) -> IndexConfig:
    """Return the `index` section that builds an index of the same kind."""
    if isinstance(base, ShardedIndex):
        kinds = {shard.index.kind for shard in base.shards}
        return IndexConfig(kind="auto" if len(kinds) > 1 else _kind(kinds.pop()), shards=base.count)
    return IndexConfig(kind=_kind(base.kind))


def _kind(kind: str) -> Any:
    """Return the `index.kind` that builds an index of this kind."""
    return "scann" if kind == "scann" else "exact"
