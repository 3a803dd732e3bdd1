"""Measures how far a living index has moved from its built base, and the recall that this costs."""

from __future__ import annotations

import dataclasses

import numpy as np

from recall.index.living.snapshot import LivingSnapshot

_SEED = 1


@dataclasses.dataclass(frozen=True)
class Drift:
    """Describe the state of a living index.

    Attributes:
      items: number of items.
      recent: number of items that came or were replaced since the base was built.
      gone: items of the base that were deleted or replaced: they still take its time.
      recent_share: recent / items; 0 of an empty index.
      gone_share: gone / items of the base.
      queries: number of queries asked, each near a recent item; 0 without one.
      recent_recall: share of the recent items among the exact k best that search finds. None without queries.
      recall: share of all items among the exact k best of these queries that search finds. It falls where new content
        is unlike the content that the base was built and tuned for. None without queries.
    """

    items: int
    recent: int
    gone: int
    recent_share: float
    gone_share: float
    queries: int
    recent_recall: float | None
    recall: float | None


def measure_drift(snapshot: LivingSnapshot, *, k: int, sample: int) -> Drift:
    """Count recent and gone items, and compare search with exact search for queries near recent items.

    Args:
      snapshot: the index at a moment.
      k: candidates per query.
      sample: highest number of queries: vectors of recent items drawn evenly, moved by noise of 0.3 of their length.
        Exact search of a million items takes about 20 ms for each. 0 only counts.
    """
    recent = snapshot.recent_rows
    counted = Drift(
        items=len(snapshot),
        recent=recent.size,
        gone=snapshot.gone_items,
        recent_share=recent.size / max(1, len(snapshot)),
        gone_share=snapshot.gone_items / len(snapshot.base),
        queries=0,
        recent_recall=None,
        recall=None,
    )
    if not recent.size or sample < 1:
        return counted
    k = min(k, len(snapshot))
    random = np.random.default_rng(_SEED)
    chosen = np.sort(random.permutation(recent)[:sample])
    near = snapshot.vectors(chosen).reshape(len(chosen), -1, snapshot.dim)[:, 0]  # [queries, dim]
    scale = 0.3 * np.linalg.norm(near, axis=1, keepdims=True) / np.sqrt(snapshot.dim)
    queries = (near + scale * random.standard_normal(near.shape)).astype(np.float32)
    found, truth = snapshot.search(queries, k).rows, snapshot.exact().search(queries, k).rows
    is_found = np.stack([np.isin(best, own) for best, own in zip(truth, found, strict=True)])  # [queries, k]
    is_recent = np.isin(truth, recent)
    return dataclasses.replace(
        counted,
        queries=len(queries),
        recent_recall=float(is_found[is_recent].mean()) if is_recent.any() else None,
        recall=float(is_found.mean()),
    )
