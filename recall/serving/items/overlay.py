"""Keeps one entry per row where few rows change: an immutable base, and overlays with the newer entries.

`posterior.py` and `recall.data.item_attributes` have the entries; `facts.py` adds the overlays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from recall.core.arrays import Int32s


class Entries(Protocol):
    """Hold one entry for each of some items, in their order."""

    def __len__(self) -> int:
        """Count the entries."""

    def take(self, places: Any) -> Any:
        """Return the entries at some places, in the order of the places."""

    def joined(self, other: Any) -> Any:
        """Return these entries followed by the entries of other items."""


E = TypeVar("E", bound=Entries)


@dataclass(frozen=True, eq=False)
class Overlay(Generic[E]):
    """Hold newer entries of some rows.

    Attributes:
      rows: int32 [entries], rising.
      entries: the entry of each row.
    """

    rows: Int32s
    entries: E

    @classmethod
    def of(cls, rows: Int32s, entries: E) -> Overlay[E]:
        """Build an overlay from unique rows in any order."""
        order = np.argsort(rows)
        return cls(rows[order].astype(np.int32), entries.take(order))

    def place(self, row: int) -> int:
        """Find the place of a row's entry; -1 without one."""
        place = int(np.searchsorted(self.rows, row))
        return place if place < len(self.rows) and self.rows[place] == row else -1

    def under(self, later: Overlay[E]) -> Overlay[E]:
        """Merge this overlay with a later one, whose entries win."""
        kept = np.flatnonzero(~np.isin(self.rows, later.rows))
        return Overlay.of(np.concatenate([self.rows[kept], later.rows]), self.entries.take(kept).joined(later.entries))


@dataclass(frozen=True, eq=False)
class Overlaid(Generic[E]):
    """Hold the entries of rows 0, 1, ... of a base and of overlays; a later overlay wins over an earlier one.

    An instance never changes, so that a reader may keep it through later changes.

    Attributes:
      base: the entries of the first rows.
      overlays: newer entries, oldest first. Each overlay is at least twice as long as the next, so that an entry is
        copied log2(entries) times in its life.
    """

    base: E
    overlays: tuple[Overlay[E], ...] = ()

    def with_overlay(self, new: Overlay[E]) -> Overlaid[E]:
        """Return a copy with newer entries."""
        overlays = list(self.overlays)
        while overlays and len(overlays[-1].rows) < 2 * len(new.rows):
            new = overlays.pop().under(new)
        return Overlaid(self.base, (*overlays, new))

    @property
    def merged_overlay(self) -> Overlay[E] | None:
        """Merge all overlays into one; None without any."""
        if not self.overlays:
            return None
        merged = self.overlays[-1]
        for overlay in reversed(self.overlays[:-1]):
            merged = overlay.under(merged)
        return merged

    def by_row(self, values_of: Callable[[E], npt.NDArray[Any]], *, rows: int) -> npt.NDArray[Any]:
        """Compute one value per row from its entry.

        Args:
          values_of: entries -> an array of as many values. Each value depends on its own entry alone.
          rows: number of rows of the result. Entries of later rows are left out; a row without an entry is an error.

        Returns:
          An array [rows] of the dtype that `values_of` gives.
        """
        values = values_of(self.base)[:rows]
        if not self.overlays:
            return values
        found = np.empty(rows, values.dtype)
        found[: len(values)] = values
        for overlay in self.overlays:
            count = int(np.searchsorted(overlay.rows, rows))
            found[overlay.rows[:count]] = values_of(overlay.entries)[:count]
        return found
