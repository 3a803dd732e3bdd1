"""Measures the lists of items like an item, as a run serves them: whether a few items are next to everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from recall.data.prepared import PreparedData
from recall.evaluation.categories import AskedCategories
from recall.evaluation.metrics import recommendation_counts, spread
from recall.serving.recaller import Recaller

LENGTH = 10
"""Length of a list: the default of `recall similar`."""
LIMIT = 10_000
"""Items asked about at most."""


def similar_summary(
    run: Path, prepared: PreparedData, *, seed: int, categories: sparse.csr_array | None = None
) -> dict[str, Any]:
    """Ask a finished index for the items like each of its items, and measure the lists for metrics.json.

    Args:
      run: a run directory with its index.
      prepared: its data.
      seed: of the draw of items, where there are more than `LIMIT`.
      categories: sparse [items, values], 1 where an item of the catalogue has a value.

    Returns:
      {"by": "cosine" or "trigger", "queries": n, ...} with the entries of `metrics.spread` for lists of 10. With
      categories also "category_consistency@10": of the places whose items and queries have a category, the share with
      one in common.
    """
    recaller = Recaller.load(run)
    names = np.asarray(prepared.item_ids.to_pylist(), object)
    asked = np.sort(np.random.default_rng(seed).permutation(len(names))[:LIMIT]).astype(np.int32)
    lists = recaller.similar(names[asked].tolist(), k=LENGTH).ids  # [queries, 10], None where there are no more items
    rows = np.full(lists.shape, -1, np.int32)
    is_item = lists != np.array(None)
    rows[is_item] = prepared.rows(lists[is_item].tolist())
    by_trigger = recaller.user_queries.vectors.has_trigger_tower
    measured = {
        "by": "trigger" if by_trigger else "cosine",
        "queries": len(asked),
        **spread(recommendation_counts(rows, len(names)), k=LENGTH),
    }
    if categories is not None:
        agree, could = AskedCategories.of_triggers(categories, asked).agreement(slice(None), rows)
        measured[f"category_consistency@{LENGTH}"] = agree / could if could else None
    return measured
