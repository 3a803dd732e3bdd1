"""Categories of recalled items beside those that were asked with: do lists keep to the subject?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from recall.core.arrays import AnyInts, Int32s, Intps
from recall.core.ragged import Ragged

LAST_CLICKS = 10
"""How many of a user's last clicks say what the user asks with."""


@dataclass(frozen=True)
class AskedCategories:
    """What a catalogue's items and a list of examples have of one feature, `category` or `tags`.

    Attributes:
      items: sparse [items, values], 1 where an item has a value.
      asked: sparse [examples, values], above 0 where one of the items that an example was asked with has it.
    """

    items: sparse.csr_array
    asked: sparse.csr_array

    @classmethod
    def of_histories(cls, items: sparse.csr_array, history: Ragged) -> AskedCategories:
        """Asked with the user's last `LAST_CLICKS` clicks: item rows of each example, oldest first."""
        kept = np.minimum(history.lengths, LAST_CLICKS)
        places = Ragged.from_spans(history.offsets[1:] - kept, kept)
        return cls._asked_with(items, places.owners, history.values[places.values], examples=len(kept))

    @classmethod
    def of_triggers(cls, items: sparse.csr_array, triggers: Int32s) -> AskedCategories:
        """Asked with the trigger item, int32 [examples]."""
        return cls._asked_with(items, np.arange(len(triggers)), triggers, examples=len(triggers))

    @classmethod
    def _asked_with(cls, items: sparse.csr_array, owners: Intps, rows: Int32s, *, examples: int) -> AskedCategories:
        clicked = sparse.csr_array(
            (np.ones(len(rows), np.int32), (owners, rows)), shape=(examples, items.shape[0])
        )  # [examples, items]
        return cls(items, sparse.csr_array(clicked @ items))

    def agreement(self, examples: slice, lists: AnyInts) -> tuple[int, int]:
        """How many recalled items have a value in common with what was asked with, and how many could have.

        Items without a value, and examples that asked with none, neither agree nor disagree.

        Args:
          examples: the rows of `asked` that the lists answer.
          lists: integer [examples, k] of item rows; -1 is an empty slot.
        """
        asked = self.asked[examples]
        owners, slots = np.nonzero((lists >= 0) & (np.diff(asked.indptr) > 0)[:, np.newaxis])
        values = self.items[lists[owners, slots]]  # [filled, values]
        common = values.multiply(asked[owners]).sum(axis=1)
        return int((np.asarray(common) > 0).sum()), int((np.diff(values.indptr) > 0).sum())
