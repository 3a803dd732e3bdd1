"""What is known of the behaviour of served items by now: totals from a table, and the posterior that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from recall.core.arrays import Int64s
from recall.core.errors import DataError
from recall.data.posterior import Posterior, Prior, age_hours, smoothed_ctr
from recall.data.prepared import PreparedData
from recall.index.items import listed
from recall.serving.items.encode import ItemVectors
from recall.serving.items.raw import item_ids_of

_COUNTS = ("exposures", "clicks")
_FIRST_TIME = "first_time_ms"


def checked_counts(counts: pd.DataFrame, *, id_column: str, prepared: PreparedData) -> tuple[list[str], Int64s]:
    """Ids and counts of items from a table; see `LivingItems.refresh`.

    Returns:
      ids [items] and int64 [items, 3]: exposures, clicks, Unix milliseconds of the first exposure.

    Raises:
      DataError: a column is missing, or counts make no sense.
    """
    has_clock = prepared.manifest["time_unit"] != "order"
    wanted = [id_column, *_COUNTS, *([_FIRST_TIME] if has_clock else [])]
    if missing := [name for name in wanted if name not in counts.columns]:
        raise DataError(f"counts: no column {', '.join(missing)}; expected {', '.join(wanted)}")
    ids = item_ids_of(counts[id_column], column=id_column)
    known = np.zeros((len(ids), 3), np.int64)
    for place, name in enumerate(wanted[1:]):
        values = pd.to_numeric(counts[name], errors="coerce")
        if name == _FIRST_TIME:
            values = values.where(counts["exposures"] != 0, 0)  # nobody asks when what never happened happened
        bad = values.isna() | ~np.isfinite(values) | (values < 0) | (values != values.round())
        if bad.any():
            at = [ids[place] for place in np.flatnonzero(bad)]
            raise DataError(f"counts: {name} of {bad.sum():,} items is no whole number from 0: {listed(at)}")
        known[:, place] = values.astype(np.int64)
    if (more := known[:, 1] > known[:, 0]).any():
        at = [ids[place] for place in np.flatnonzero(more)]
        raise DataError(f"counts: {more.sum():,} items have more clicks than exposures: {listed(at)}")
    return ids, known


def latest_moment(counts: Int64s, *, prepared: PreparedData) -> int:
    """The end of the log or the latest first exposure among counts, Unix milliseconds."""
    return max(prepared.manifest["last_time_ms"] or 0, int(counts[counts[:, 0] > 0, 2].max(initial=0)))


def posterior_of(
    items: Int64s | Sequence[Mapping[str, Any]],
    counts: Int64s,
    *,
    prepared: PreparedData,
    vectors: ItemVectors | None = None,
    now_ms: int | None = None,
) -> Posterior:
    """The posterior of items as training knew it, from totals.

    Args:
      items: rows of the catalogue, or with `vectors` raw rows of items that it lacks.
      counts: int64 [items, 3]: exposures, clicks, Unix milliseconds of the first exposure.
      prepared: data of the run: its prior.
      vectors: of the run: the prior of raw rows.
      now_ms: see `LivingItems.refresh`; default: `latest_moment`.
    """
    exposures, clicks, first_ms = counts.T
    known = (exposures > 0) & (prepared.manifest["time_unit"] != "order")
    now_ms = latest_moment(counts, prepared=prepared) if now_ms is None else now_ms
    settings = prepared.manifest["posterior"]
    prior = Prior(settings["prior_ctr"], settings["prior_strength"])
    if isinstance(items, np.ndarray):
        # Reading the history of all posteriors takes its time, and only these priors are there.
        theirs = prepared.posterior_history.prior if prepared.has_content_prior else prior
        own = theirs.ctr_of(items, np.full(len(items), now_ms))
    else:
        assert vectors is not None
        by_content = vectors.prior_ctr(items)
        own = prior.ctr if by_content is None else by_content
    ctr = smoothed_ctr(clicks, exposures, prior, prior_ctr=own)
    return Posterior(exposures, clicks, ctr, age_hours(now_ms, first_ms, known=known))
