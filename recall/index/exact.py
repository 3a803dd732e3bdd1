"""Searches exactly, by computing every inner product.

It is the oracle of the approximate indexes, and the best index of a small catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from recall.core.arrays import Float32s, Int32s
from recall.index.base import VectorIndex
from recall.index.items import Items
from recall.index.results import top_rows

# Numbers held at a time: 16 MB of scores stay near the caches and bound the memory of any batch.
_BLOCK = 1 << 22
_FILE = "vectors.npy"


class ExactIndex(VectorIndex):
    """Search by a blocked matrix product and a partial sort; among equal scores the lower row comes first."""

    kind: ClassVar[str] = "exact"
    is_exact = True

    @staticmethod
    def exact_over(items: Items) -> ExactIndex:
        """Return an exact index of items."""
        return ExactIndex(items)

    def best_entries(self, queries: Float32s, k: int) -> tuple[Int32s, Float32s]:
        """Find the best entries; see `VectorIndex.best_entries`."""
        block = max(1, _BLOCK // max(self.entries, k * self.dim))
        found = [self._search_block(queries[start : start + block], k) for start in range(0, len(queries), block)]
        return np.concatenate([rows for rows, _ in found]), np.concatenate([scores for _, scores in found])

    def _search_block(self, queries: Float32s, k: int) -> tuple[Int32s, Float32s]:
        """Find the best entries of as many queries as one block holds."""
        vectors = self.items.vectors
        rows = top_rows(queries @ vectors.T, k)  # [queries, k]
        # BLAS sums in another order for another number of queries; this one depends on the pair alone, so
        # that a query gets the same scores alone and in a batch.
        scores = np.einsum("qd,qkd->qk", queries, vectors[rows])  # [queries, k]
        order = np.lexsort((rows, -scores), axis=1)
        return np.take_along_axis(rows, order, axis=1).astype(np.int32), np.take_along_axis(scores, order, axis=1)

    def write(self, directory: Path) -> None:
        """Write the vectors; see `VectorIndex.write`."""
        np.save(directory / _FILE, self.items.vectors, allow_pickle=False)

    @classmethod
    def read(cls, directory: Path, ids: pa.StringArray, *, settings: Any, report: Mapping[str, Any]) -> ExactIndex:
        """Open the vectors as a memory map; see `VectorIndex.read`."""
        return cls(Items(ids, np.load(directory / _FILE, mmap_mode="r", allow_pickle=False)), report=report)
