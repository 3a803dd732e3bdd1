"""Lists of different lengths in one array, so that those of a batch of users are read without a loop."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recall.core.arrays import Bools, Int64s


class ManyLists(NamedTuple):
    """A list for each of several users.

    Attributes:
      values: [all], those of one user behind those of the one before.
      lengths: int64 [users].
    """

    values: npt.NDArray[Any]
    lengths: Int64s

    @property
    def owners(self) -> Int64s:
        """Position of the user of each value, int64 [all]."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def split(self) -> list[npt.NDArray[Any]]:
        """The lists by themselves."""
        ends = np.cumsum(self.lengths).tolist()
        starts = [0, *ends[:-1]]
        return [self.values[start:end] for start, end in zip(starts, ends, strict=False)]

    def where(self, is_kept: Bools) -> ManyLists:
        """Some of the values, bool [all]."""
        return ManyLists(self.values[is_kept], np.bincount(self.owners[is_kept], minlength=len(self.lengths)))


def flat_places(starts: Int64s, lengths: Int64s) -> Int64s:
    """Places of lists in an array, one list behind the other: starts and lengths [lists] -> int64 [all]."""
    before = np.cumsum(lengths) - lengths
    places: Int64s = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    return places
