"""Further histories as the query model is asked with them: item ids, whatever vocabulary their codes are of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recall.data.features.vocabulary import FIRST_CODE
from recall.data.prepared import PreparedData
from recall.data.serving_histories import ServingHistories


class FurtherIds(NamedTuple):
    """A further history of every user of the log, and the item id of each of its codes ("\\0" for none)."""

    histories: ServingHistories
    ids: npt.NDArray[np.object_]

    @classmethod
    def all_of(cls, prepared: PreparedData) -> dict[str, FurtherIds]:
        """Those of prepared data, by name."""
        return {name: cls(found, _codes_to_ids(prepared, name)) for name, found in prepared.further_histories.items()}

    def of(self, user: str) -> list[str]:
        """Item ids of one user, oldest first."""
        return list(self.ids[self.histories.recent(user)])


def _codes_to_ids(prepared: PreparedData, name: str) -> npt.NDArray[np.object_]:
    if name not in prepared.history_vocabularies:
        return np.asarray(prepared.item_ids.to_pylist(), dtype=object)
    # No id holds NUL, so that these are out of vocabulary again when they are looked up.
    return np.array(["\0"] * FIRST_CODE + prepared.history_vocabularies[name].values.to_pylist(), dtype=object)
