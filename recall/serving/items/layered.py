"""What is known by row, where little of it changes: a whole that stays, and layers of later knowledge on top."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from recall.core.arrays import Int32s


class Entries(Protocol):
    """One entry for each of some items, in their order."""

    def __len__(self) -> int:
        """How many."""

    def take(self, places: Any) -> Any:
        """Those at some places."""

    def joined(self, other: Any) -> Any:
        """These and those of other items after them."""


E = TypeVar("E", bound=Entries)


@dataclass(frozen=True, eq=False)
class Layer(Generic[E]):
    """Entries of some rows.

    Attributes:
      rows: int32 [entries], rising.
      entries: of these rows.
    """

    rows: Int32s
    entries: E

    @classmethod
    def of(cls, rows: Int32s, entries: E) -> Layer[E]:
        """A layer from unique rows in any order."""
        order = np.argsort(rows)
        return cls(rows[order].astype(np.int32), entries.take(order))

    def place(self, row: int) -> int:
        """Where the entry of a row is, -1 if nowhere."""
        place = int(np.searchsorted(self.rows, row))
        return place if place < len(self.rows) and self.rows[place] == row else -1

    def under(self, later: Layer[E]) -> Layer[E]:
        """One layer in place of two."""
        kept = np.flatnonzero(~np.isin(self.rows, later.rows))
        return Layer.of(np.concatenate([self.rows[kept], later.rows]), self.entries.take(kept).joined(later.entries))


@dataclass(frozen=True, eq=False)
class Layered(Generic[E]):
    """Entries by row: the base has those of rows 0, 1, ...; a later layer counts before an earlier one.

    Nothing here changes: who has one may read it for as long as it wants.

    Attributes:
      base: of the rows that were there first.
      layers: each at least twice as long as the next, so that an entry is copied log2(entries) times in its life.
    """

    base: E
    layers: tuple[Layer[E], ...] = ()

    def with_layer(self, new: Layer[E]) -> Layered[E]:
        """With newer entries on top."""
        layers = list(self.layers)
        while layers and len(layers[-1].rows) < 2 * len(new.rows):
            new = layers.pop().under(new)
        return Layered(self.base, (*layers, new))

    @property
    def changed(self) -> Layer[E] | None:
        """All layers as one."""
        if not self.layers:
            return None
        top = self.layers[-1]
        for layer in reversed(self.layers[:-1]):
            top = layer.under(top)
        return top

    def by_row(self, values_of: Callable[[E], npt.NDArray[Any]], *, rows: int) -> npt.NDArray[Any]:
        """What a function says of entries, as an array by row.

        Args:
          values_of: entries -> an array of as many values; each value is of its entry alone.
          rows: how many rows there are; entries of later ones are left out, and rows without an entry are an error.
        """
        values = values_of(self.base)[:rows]
        if not self.layers:
            return values
        found = np.empty(rows, values.dtype)
        found[: len(values)] = values
        for layer in self.layers:
            several = int(np.searchsorted(layer.rows, rows))
            found[layer.rows[:several]] = values_of(layer.entries)[:several]
        return found
