"""Finds the audiences of changed items: given with newer counts, or as the log left them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from recall.core.arrays import Int32s
from recall.core.errors import DataError
from recall.data.audience import NOBODY
from recall.data.prepared import PreparedData
from recall.index.items import listed

COLUMN = "audience"
"""The column of counts with an item's audience: a list of item ids, the latest first; null leaves it as it was."""

Given = Sequence[list[str] | None]
"""The audience of each item as it was given; None where it was not."""


def given_audiences(counts: pd.DataFrame, ids: Sequence[str], *, prepared: PreparedData) -> Given:
    """Check the audiences in a table of counts; see `LivingItems.refresh`.

    Args:
      counts: the table.
      ids: the ids of its rows.
      prepared: data of the run.

    Raises:
      DataError: the run reads no audiences, or an entry is no list of ids.
    """
    if COLUMN not in counts.columns:
        return [None] * len(ids)
    if not prepared.audience:
        raise DataError(
            f"counts: found a column {COLUMN}, but the run reads no audiences; remove the column, or train a run with "
            "data.posterior.audience"
        )
    given: list[list[str] | None] = []
    wrong = []
    for name, value in zip(ids, counts[COLUMN], strict=True):
        if isinstance(value, list | tuple | np.ndarray):
            given.append([str(source) for source in value][: prepared.audience])
        elif pd.api.types.is_scalar(value) and pd.isna(value):
            given.append(None)
        else:
            wrong.append(name)
    if wrong:
        raise DataError(
            f"counts: {COLUMN} of {len(wrong):,} items is no list of item ids: {listed(wrong)}; give the items that "
            "the last users who clicked the item had clicked just before, the latest first"
        )
    return given


def sources_of(given: Given, *, rows: np.ndarray | None, prepared: PreparedData) -> Int32s | None:
    """Return the sources of items, as `Posterior.sources`; None where the run reads no audiences.

    An item that the catalogue lacks has no token: it is left out of an audience.

    Args:
      given: audiences that were given.
      rows: int64 [items], rows of the catalogue, whose audiences at the end of the log hold where none was given; None
        for items that it lacks, which then have nobody.
      prepared: data of the run.
    """
    if not prepared.audience:
        return None
    sources = np.full((len(given), prepared.audience), NOBODY, np.int32)
    at_end = prepared.serving_posterior.sources
    if rows is not None and at_end is not None:
        sources = at_end[rows]
    lists = [audience or [] for audience in given]
    found = prepared.rows(pa.array([name for audience in lists for name in audience], pa.string()))
    bounds = np.cumsum([0, *map(len, lists)])
    for place, audience in enumerate(given):
        if audience is not None:
            known = found[bounds[place] : bounds[place + 1]]
            known = known[known >= 0]
            sources[place] = NOBODY
            sources[place, : len(known)] = known
    return sources
