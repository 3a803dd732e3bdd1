"""The posterior that is served with: counts and first exposures of items, in some order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import AnyInts, Float32s, Int64s
from recall.core.times import MS_PER_HOUR
from recall.data.posterior import Posterior

NEVER = -1


class Counts(NamedTuple):
    """What is known of the behaviour of one item; as of `ServedPosterior`."""

    exposures: int
    clicks: int
    smoothed_ctr: float
    first_exposed_ms: int


@dataclass(frozen=True, eq=False)
class ServedPosterior:
    """What is known of the behaviour of some items.

    Attributes:
      ids: string [items], unique; null where nobody has a row any more.
      exposures: int64 [items].
      clicks: int64 [items].
      smoothed_ctr: float32 [items].
      first_exposed_ms: int64 [items], Unix milliseconds; NEVER without exposures or clock.
      has_clock: whether the log has times.
    """

    ids: pa.StringArray
    exposures: Int64s
    clicks: Int64s
    smoothed_ctr: Float32s
    first_exposed_ms: Int64s
    has_clock: bool = True

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def at(cls, ids: pa.StringArray, posterior: Posterior, *, at_ms: int | None) -> ServedPosterior:
        """From a posterior, entry i of item i, whose ages were counted to `at_ms`; None: the log has no clock."""
        known = (posterior.exposures > 0) & (at_ms is not None)
        age_ms = np.round(posterior.age_hours.astype(np.float64) * MS_PER_HOUR).astype(np.int64)
        first = np.where(known, (at_ms or 0) - age_ms, NEVER)
        return cls(ids, posterior.exposures, posterior.clicks, posterior.smoothed_ctr, first, at_ms is not None)

    @classmethod
    def of_counts(cls, ids: Sequence[str], counts: Sequence[Counts], *, has_clock: bool) -> ServedPosterior:
        """From the counts of each item."""
        exposures, clicks, ctr, first = zip(*counts, strict=True) if counts else ((), (), (), ())
        return cls(
            pa.array(ids, pa.string()),
            np.asarray(exposures, np.int64),
            np.asarray(clicks, np.int64),
            np.asarray(ctr, np.float32),
            np.asarray(first, np.int64),
            has_clock,
        )

    def counts(self, place: int) -> Counts:
        """Those of one item."""
        return Counts(*(values[place].item() for values in self._counts.values()))

    def of(self, ids: pa.StringArray, *, new_ctr: float = 0.0) -> ServedPosterior:
        """That of other ids, in their order; an id that is not here has no exposures and `new_ctr`."""
        if ids.equals(self.ids):
            return self
        places = pc.index_in(ids, value_set=self.ids).fill_null(-1).to_numpy()
        nobody = ServedPosterior.of_counts(["\0"], [Counts(0, 0, new_ctr, NEVER)], has_clock=self.has_clock)
        return self.joined(nobody)._at(places, ids=ids)

    def take(self, places: AnyInts) -> ServedPosterior:
        """That of the items at some places."""
        return self._at(places, ids=self.ids.take(pa.array(places)))

    def joined(self, other: ServedPosterior) -> ServedPosterior:
        """That of these items and of others after them."""
        return self._with(
            pa.concat_arrays([self.ids, other.ids]),
            {name: np.concatenate([values, getattr(other, name)]) for name, values in self._counts.items()},
        )

    def _at(self, places: AnyInts, *, ids: pa.StringArray) -> ServedPosterior:
        return self._with(ids, {name: values[places] for name, values in self._counts.items()})

    def _with(self, ids: pa.StringArray, counts: dict[str, npt.NDArray[Any]]) -> ServedPosterior:
        return ServedPosterior(ids, **counts, has_clock=self.has_clock)

    @property
    def _counts(self) -> dict[str, npt.NDArray[Any]]:
        return {name: getattr(self, name) for name in Counts._fields}
