"""Items by the values of a column, as caps count them."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import Bools
from recall.core.ragged import Ragged
from recall.data.item_attributes import TAGS, ItemAttributes
from recall.serving.items.layered import Layer, Layered


@dataclass(frozen=True)
class Groups:
    """Codes of a base's rows, and of those that came or changed later.

    Attributes:
      base: of the rows that were there first.
      later: layers of rows and their codes, the latest last.
      rows: how many there are.
    """

    base: Ragged
    later: Sequence[tuple[Layer[ItemAttributes], Ragged]]
    rows: int

    def of(self, row: int) -> set[int]:
        """The codes of a row."""
        for layer, codes in reversed(self.later):
            if (place := layer.place(row)) >= 0:
                return set(codes[place].tolist())
        return set(self.base[row].tolist())

    def holding(self, codes: Collection[int]) -> Bools:
        """Bool [rows], those that have any of some codes."""
        found = np.zeros(self.rows, bool)
        of_base = self.base.any_of(codes)[: self.rows]
        found[: len(of_base)] = of_base
        for layer, own in self.later:
            several = int(np.searchsorted(layer.rows, self.rows))
            found[layer.rows[:several]] = own.any_of(codes)[:several]
        return found


class ColumnCodes:
    """Gives the values of one column codes that stay, whatever layers come. Threads may share it.

    Args:
      column: of the base: text or tags.
      name: of the column.
    """

    def __init__(self, column: pa.Array, *, name: str) -> None:
        self._name, self._code_of = name, dict[str, int]()
        self._lock = threading.Lock()
        self._base = self._coded(column)
        self._later: WeakKeyDictionary[Layer[ItemAttributes], Ragged] = WeakKeyDictionary()

    def groups(self, attributes: Layered[ItemAttributes], *, rows: int) -> Groups:
        """By the rows of an index; only layers that were never seen are read."""
        with self._lock:
            for layer in attributes.layers:
                if layer not in self._later:
                    self._later[layer] = self._coded(layer.entries.column(self._name, what=self._name))
            return Groups(self._base, [(layer, self._later[layer]) for layer in attributes.layers], rows)

    def _coded(self, column: pa.Array) -> Ragged:
        if column.type == TAGS:
            values, lengths = pc.list_flatten(column), pc.fill_null(pc.list_value_length(column), 0)
        else:
            values, lengths = column.drop_null(), column.is_valid()
        found = values.dictionary_encode()
        codes = [self._code_of.setdefault(value, len(self._code_of)) for value in found.dictionary.to_pylist()]
        values_of_rows = np.asarray(codes, np.int64)[np.asarray(found.indices, np.int64)]
        return Ragged.from_lengths(values_of_rows, np.asarray(lengths))
