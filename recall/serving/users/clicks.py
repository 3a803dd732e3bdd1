"""What users of the log clicked, as rows of the catalogue: ids are made only where somebody reads ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recall.core.arrays import Float64s
from recall.core.ragged import Ragged
from recall.core.times import MS_PER_HOUR


@dataclass(frozen=True)
class AskedOfLog:
    """The users of a query, as `recall.serving.users.asked.Asked`, whose names are their ids.

    Attributes:
      users: their ids.
      rows: clicked items as rows of the catalogue, oldest first; -1 for what it lacks.
      times_ms: float64 [clicks], when each was clicked (Unix milliseconds), NaN where that is unknown; None: all are.
      given: by position of a user the clicked ids that the caller gave; of the others the log knows them.
      further: by name of a further history, item ids of each user, oldest first.
      item_ids: object [items], the catalogue by row.
    """

    users: list[str]
    rows: Ragged
    times_ms: Float64s | None
    given: Mapping[int, list[str]]
    further: dict[str, list[list[str]]]
    item_ids: npt.NDArray[np.object_]

    @property
    def names(self) -> list[str]:
        """What the query calls them."""
        return self.users

    @property
    def history(self) -> list[list[str]]:
        """Clicked item ids of each user, oldest first."""
        lists = [self.item_ids[own].tolist() for own in self.rows]
        return [self.given.get(position, own) for position, own in enumerate(lists)]

    def flat_ages_hours(self, now_ms: int) -> Float64s | None:
        """Hours from each click to the query, float64 [clicks]; NaN where no time is given, None where none is."""
        return None if self.times_ms is None else (now_ms - self.times_ms) / MS_PER_HOUR

    def ages_hours(self, now_ms: int) -> list[list[float]]:
        """Hours from each click to the query, by user; -1 where no time is given."""
        hours = self.flat_ages_hours(now_ms)
        if hours is None:
            hours = np.full(len(self.rows.values), -1.0)
        known = Ragged(np.where(np.isnan(hours), -1.0, hours), self.rows.offsets)
        return [own.tolist() for own in known]
