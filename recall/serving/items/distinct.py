"""Computes values of items from the distinct values of an attribute: a million items have some hundred categories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import Int32s
from recall.data.item_attributes import TAGS


@dataclass(frozen=True)
class DistinctValues:
    """Hold each value of a column once.

    Attributes:
      values: the distinct values, in the order of their first entries; a missing one is a value too.
      codes: int32 [items], the place of each item's value.
    """

    values: pa.Array
    codes: Int32s

    @classmethod
    def of(cls, column: pa.Array) -> DistinctValues | None:
        """Find the distinct values of a column; None where they are not much fewer than the items."""
        try:
            found = _list_keys(column) if column.type == TAGS else column
            encoded = found.dictionary_encode(null_encoding="encode")
        except pa.ArrowException:  # no such operation for values of this type
            return None
        if 2 * len(encoded.dictionary) > len(column):
            return None
        codes = np.asarray(encoded.indices, np.int32)
        _, first = np.unique(codes, return_index=True)
        return cls(column.take(pa.array(first)), codes)

    def by_item(self, values_of: Callable[[pa.Array], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Compute one value per item; `values_of` gives each entry of a column a value that depends on it alone."""
        return values_of(self.values)[self.codes]


def _list_keys(lists: pa.Array) -> pa.Array:
    """Return one text per list of tags, equal for equal lists."""
    codes = pc.list_flatten(lists).dictionary_encode(null_encoding="encode").indices.cast(pa.string())
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    keys = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), codes), ",")
    return pc.if_else(lists.is_valid(), keys, pa.scalar(None, pa.string()))
