"""Compares the categories of recalled items with the categories of the query: last clicks, or a trigger."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from recall.core.arrays import AnyInts, Int32s, Intps
from recall.core.ragged import Ragged

LAST_CLICKS = 10
"""Number of last clicks whose categories a user asks with."""


@dataclass(frozen=True)
class AskedCategories:
    """Hold the values of one feature, `category` or `tags`, of the catalogue's items and of the examples' queries.

    Attributes:
      items: sparse [items, values], 1 where an item has a value.
      asked: sparse [examples, values], above 0 where an item of the example's query has the value.
    """

    items: sparse.csr_array
    asked: sparse.csr_array

    @classmethod
    def of_histories(cls, items: sparse.csr_array, history: Ragged) -> AskedCategories:
        """Take the values of the user's last `LAST_CLICKS` clicks: item rows of each example, oldest first."""
        kept = np.minimum(history.lengths, LAST_CLICKS)
        places = Ragged.from_spans(history.offsets[1:] - kept, kept)
        return cls._asked_with(items, places.owners, history.values[places.values], examples=len(kept))

    @classmethod
    def of_triggers(cls, items: sparse.csr_array, triggers: Int32s) -> AskedCategories:
        """Take the values of the trigger item, int32 [examples]."""
        return cls._asked_with(items, np.arange(len(triggers)), triggers, examples=len(triggers))

    @classmethod
    def _asked_with(cls, items: sparse.csr_array, owners: Intps, rows: Int32s, *, examples: int) -> AskedCategories:
        clicked = sparse.csr_array(
            (np.ones(len(rows), np.int32), (owners, rows)), shape=(examples, items.shape[0])
        )  # [examples, items]
        return cls(items, sparse.csr_array(clicked @ items))

    def consistency(self, lists: AnyInts, *, block: int = 4096) -> float | None:
        """Compute the share of recalled items that agree with their query, of the ones that could; None without any.

        Args:
          lists: integer [examples, k] of item rows, one for each row of `asked`; -1 is an empty slot.
          block: lists that are compared together.
        """
        spans = [slice(start, start + block) for start in range(0, len(lists), block)]
        counts = [self.agreement(span, lists[span]) for span in spans]
        agreeing, comparable = (sum(part) for part in zip(*counts, strict=True)) if counts else (0, 0)
        return agreeing / comparable if comparable else None

    def agreement(self, examples: slice, lists: AnyInts) -> tuple[int, int]:
        """Count the recalled items that share a value with their query, and the items that could.

        Items without a value, and examples whose query has none, neither agree nor disagree.

        Args:
          examples: rows of `asked` that the lists answer.
          lists: integer [examples, k] of item rows; -1 is an empty slot.
        """
        asked = self.asked[examples]
        owners, slots = np.nonzero((lists >= 0) & (np.diff(asked.indptr) > 0)[:, np.newaxis])
        values = self.items[lists[owners, slots]]  # [filled, values]
        common = values.multiply(asked[owners]).sum(axis=1)
        return int((np.asarray(common) > 0).sum()), int((np.diff(values.indptr) > 0).sum())
