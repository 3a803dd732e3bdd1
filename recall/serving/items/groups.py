"""Groups items by the values of a column, for the caps of `recall.serving.search.caps`."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import Bools, Int32s, Int64s
from recall.core.ragged import Ragged
from recall.data.item_attributes import TAGS, ItemAttributes
from recall.serving.items.overlay import Overlaid, Overlay


@dataclass(frozen=True)
class Groups:
    """Hold the codes of a base's rows and of rows that were added or changed later.

    Attributes:
      base: codes of the first rows.
      overlays: newer attributes and their codes, the latest last.
      rows: number of rows.
    """

    base: Ragged
    overlays: Sequence[tuple[Overlay[ItemAttributes], Ragged]]
    rows: int

    @property
    def values(self) -> int:
        """Return a number that all codes are below."""
        return 1 + max(codes.largest for codes in (self.base, *(codes for _, codes in self.overlays)))

    @property
    def items_without_value(self) -> int:
        """Return a number that the count of the rows without a code does not exceed."""
        return self.base.empty_lists + sum(codes.empty_lists for _, codes in self.overlays)

    @property
    def most_values(self) -> int:
        """Return a number of codes that no row exceeds."""
        return max(codes.longest for codes in (self.base, *(codes for _, codes in self.overlays)))

    def of_rows(self, rows: Int32s) -> Ragged:
        """Return the codes of some rows, as `distinct` lists in the order of the rows."""
        lists = self.base.take(np.minimum(rows, len(self.base) - 1))  # an overlay has the rows beyond
        for overlay, codes in self.overlays:
            places = np.searchsorted(overlay.rows, rows)
            is_newer = overlay.rows.take(places, mode="clip") == rows
            if is_newer.any():
                lists = lists.replaced(is_newer, codes.take(places[is_newer]))
        return lists.distinct()

    def holding(self, codes: Collection[int] | Int64s) -> Bools:
        """Mark the rows that have any of the given codes; bool [rows]."""
        is_chosen = np.zeros(self.values, bool)
        is_chosen[np.asarray(codes, np.int64)] = True
        found = np.zeros(self.rows, bool)
        of_base = self.base.any_where(is_chosen[self.base.values])[: self.rows]
        found[: len(of_base)] = of_base
        for overlay, own in self.overlays:
            count = int(np.searchsorted(overlay.rows, self.rows))
            found[overlay.rows[:count]] = own.any_where(is_chosen[own.values])[:count]
        return found


class ColumnCodes:
    """Assign codes to the values of one column; a value keeps its code when overlays arrive. Threads may share it.

    Args:
      column: the base's column of text or tags.
      name: name of the column.
    """

    def __init__(self, column: pa.Array, *, name: str) -> None:
        self._name, self._code_of = name, dict[str, int]()
        self._lock = threading.Lock()
        self._base = self._coded(column)
        self._overlays: WeakKeyDictionary[Overlay[ItemAttributes], Ragged] = WeakKeyDictionary()

    def groups(self, attributes: Overlaid[ItemAttributes], *, rows: int) -> Groups:
        """Return the codes by the rows of an index. Reads only overlays that it has not seen before."""
        with self._lock:
            for overlay in attributes.overlays:
                if overlay not in self._overlays:
                    self._overlays[overlay] = self._coded(overlay.entries.column(self._name, what=self._name))
            known = [(overlay, self._overlays[overlay]) for overlay in attributes.overlays]
            return Groups(self._base, known, rows)

    def _coded(self, column: pa.Array) -> Ragged:
        """Encode a column, with new codes for values that have none yet."""
        if column.type == TAGS:
            values, lengths = pc.list_flatten(column), pc.fill_null(pc.list_value_length(column), 0)
        else:
            values, lengths = column.drop_null(), column.is_valid()
        found = values.dictionary_encode()
        codes = [self._code_of.setdefault(value, len(self._code_of)) for value in found.dictionary.to_pylist()]
        codes_of_values = np.asarray(codes, np.int64)[np.asarray(found.indices, np.int64)]
        return Ragged.from_lengths(codes_of_values, np.asarray(lengths)).distinct()
