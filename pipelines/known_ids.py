"""Counts how many items and users of the log the items and users files know, and warns where few are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.exchange import Scratch
from pipelines.summaries import UNKNOWN_ITEM, OrderedLog
from recall.config.data import DataConfig
from recall.core.errors import shown
from recall.data.catalogue import UserTable
from recall.data.item_totals import ItemTotals

_FEW = 0.5


class Known(NamedTuple):
    """Hold how many ids of the log a file knows.

    Attributes:
      in_log: different ids of the log.
      known: ids among them that the file knows.
      unknown_id: an id of the log that the file lacks.
      unused_id: an id of the file that the log lacks.
    """

    in_log: int
    known: int
    unknown_id: str | None = None
    unused_id: str | None = None

    def warning(self, what: str, path: str, key: str) -> str | None:
        """Say that few ids are known, with one of each side; None where enough are."""
        if not self.in_log or self.known >= _FEW * self.in_log:
            return None
        sides = f"the log has, for example, {shown(repr(self.unknown_id))}"
        if self.unused_id is not None:
            sides += f", the file {shown(repr(self.unused_id))}"
        return f"{path} knows {self.known:,} of the {self.in_log:,} {what} of the log: {sides}; check {key}"


def known_items(log: OrderedLog, totals: ItemTotals) -> Known:
    """Count the items of the log that the items file knows; rows of other items may have been rejected."""
    is_logged = totals.exposures.sum(axis=1) > 0
    of_file = len(log.items) - log.items.added
    rejected = log.rejected.filter(pc.equal(log.rejected["reason"], UNKNOWN_ITEM))["item"].unique()
    unknown = pa.concat_arrays([rejected.cast(pa.string()), log.items.ids.slice(of_file)])
    unused = np.flatnonzero(~is_logged[:of_file])
    return Known(
        in_log=int(is_logged[:of_file].sum()) + len(unknown),
        known=int(is_logged[:of_file].sum()),
        unknown_id=unknown[0].as_py() if len(unknown) else None,
        unused_id=log.items.ids[int(unused[0])].as_py() if len(unused) else None,
    )


def known_users(scratch: Scratch, users: UserTable) -> Known:
    """Count the users of the log that the users file knows."""
    logged = pa.concat_tables(scratch.read_all("users"))["user"].combine_chunks()
    is_known = pc.is_in(logged, value_set=users.ids)
    unknown = logged.filter(pc.invert(is_known))
    unused = users.ids.filter(pc.invert(pc.is_in(users.ids, value_set=logged)))
    return Known(
        in_log=len(logged),
        known=len(logged) - len(unknown),
        unknown_id=unknown[0].as_py() if len(unknown) else None,
        unused_id=unused[0].as_py() if len(unused) else None,
    )


def known_of_files(
    scratch: Scratch, data: DataConfig, log: OrderedLog, users: UserTable | None, totals: ItemTotals
) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Return the counts of both files for the manifest, and warnings."""
    found = {"items": (known_items(log, totals), data.items.path.name, "data.items.id and data.events.item")}
    if users is not None and data.users is not None:
        found["users"] = (known_users(scratch, users), data.users.path.name, "data.users.id and data.events.user")
    counts = {name: {"in_log": known.in_log, "known": known.known} for name, (known, _, _) in found.items()}
    warnings = [known.warning(name, path, key) for name, (known, path, key) in found.items()]
    return counts, [text for text in warnings if text]
