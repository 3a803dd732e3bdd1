"""Keeps the posteriors that are served: counts and first exposures of items, and posteriors from newer counts.

`recall.data.posterior` has the formulas; `facts.py` keeps the served posteriors by item id.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import AnyInts, Float32s, Float64s, Int64s
from recall.core.errors import DataError
from recall.core.times import MS_PER_HOUR
from recall.data.clock import Clock, date_text, fitting_unit
from recall.data.fresh_evidence import COLUMNS
from recall.data.posterior import Posterior, Prior, age_hours, smoothed_ctr
from recall.data.prepared import PreparedData
from recall.index.items import listed
from recall.serving.items.raw import item_ids_of

NEVER = -1
"""The first exposure of an item without exposures, and of every item in a log without a clock."""

_COUNTS = ("exposures", "clicks")
_FIRST_TIME = "first_time_ms"
_MOST = 10**12
_INT64_MAX = float(2**63 - 1024)  # the largest float64 below 2^63


class Counts(NamedTuple):
    """Hold the posterior of one item; the fields are as of `ServedPosterior`."""

    exposures: int
    clicks: int
    smoothed_ctr: float
    first_exposed_ms: int


@dataclass(frozen=True, eq=False)
class ServedPosterior:
    """Hold the posteriors of some items, in the order of their ids.

    Attributes:
      ids: string [items], unique; null for a row that no item has any more.
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
        """Convert a posterior whose entry i is of item i.

        Args:
          ids: string [items].
          posterior: the posterior of these items.
          at_ms: the moment of its ages (Unix milliseconds); None for a log without a clock.
        """
        known = (posterior.exposures > 0) & (at_ms is not None)
        age_ms = np.round(posterior.age_hours.astype(np.float64) * MS_PER_HOUR).astype(np.int64)
        first = np.where(known, (at_ms or 0) - age_ms, NEVER)
        return cls(ids, posterior.exposures, posterior.clicks, posterior.smoothed_ctr, first, at_ms is not None)

    @classmethod
    def of_counts(cls, ids: Sequence[str], counts: Sequence[Counts], *, has_clock: bool) -> ServedPosterior:
        """Build the posteriors from the counts of each item."""
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
        """Return the counts of the item at a place."""
        return Counts(*(values[place].item() for values in self._counts.values()))

    def of(self, ids: pa.StringArray, *, new_ctr: float = 0.0) -> ServedPosterior:
        """Look up posteriors by item id. Unknown ids get zero exposures and the CTR `new_ctr`."""
        if ids.equals(self.ids):
            return self
        places = pc.index_in(ids, value_set=self.ids).fill_null(-1).to_numpy()
        unknown = ServedPosterior.of_counts(["\0"], [Counts(0, 0, new_ctr, NEVER)], has_clock=self.has_clock)
        return self.joined(unknown)._at(places, ids=ids)

    def take(self, places: AnyInts) -> ServedPosterior:
        """Return the posteriors at some places, in the order of the places."""
        return self._at(places, ids=self.ids.take(pa.array(places)))

    def joined(self, other: ServedPosterior) -> ServedPosterior:
        """Return these posteriors followed by the posteriors of other items."""
        return self._with(
            pa.concat_arrays([self.ids, other.ids]),
            {name: np.concatenate([values, getattr(other, name)]) for name, values in self._counts.items()},
        )

    def _at(self, places: AnyInts, *, ids: pa.StringArray) -> ServedPosterior:
        """Return the counts at some places under the given ids."""
        return self._with(ids, {name: values[places] for name, values in self._counts.items()})

    def _with(self, ids: pa.StringArray, counts: dict[str, npt.NDArray[Any]]) -> ServedPosterior:
        """Return other ids and counts with the clock of these."""
        return ServedPosterior(ids, **counts, has_clock=self.has_clock)

    @property
    def _counts(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of counts by field name."""
        return {name: getattr(self, name) for name in Counts._fields}


def checked_counts(counts: pd.DataFrame, *, id_column: str, prepared: PreparedData) -> tuple[list[str], Int64s]:
    """Check a table of total counts per item; see `LivingItems.refresh`.

    Returns:
      ids [items] and int64 [items, 3]: exposures, clicks, Unix milliseconds of the first exposure.

    Raises:
      DataError: a column is missing, or counts make no sense.
    """
    has_clock = prepared.manifest["time_unit"] != "order"
    columns = [id_column, *_COUNTS, *([_FIRST_TIME] if has_clock else [])]
    if missing := [name for name in columns if name not in counts.columns]:
        raise DataError(f"counts: no column {', '.join(missing)}; expected {', '.join(columns)}")
    ids = item_ids_of(counts[id_column], column=id_column)
    checked = np.zeros((len(ids), 3), np.int64)
    for place, name in enumerate(columns[1:]):
        values = pd.to_numeric(counts[name], errors="coerce")
        if name == _FIRST_TIME:
            values = values.where(counts["exposures"] != 0, 0)  # an item without exposures needs no first one
        bad = values.isna() | ~np.isfinite(values) | (values < 0) | (values != values.round())
        if bad.any():
            at = [ids[place] for place in np.flatnonzero(bad)]
            raise DataError(f"counts: {name} of {bad.sum():,} items is no whole number from 0: {listed(at)}")
        if name != _FIRST_TIME and (many := values > _MOST).any():
            at = [ids[place] for place in np.flatnonzero(many)]
            raise DataError(
                f"counts: {name} of {many.sum():,} items is above {_MOST:,}, which no log holds: {listed(at)}; give "
                "totals per item"
            )
        if name == _FIRST_TIME and (late := values > _INT64_MAX).any():
            at = [ids[place] for place in np.flatnonzero(late)]
            raise DataError(
                f"counts: {name} of {late.sum():,} items is no moment: {listed(at)}; expected Unix milliseconds"
            )
        checked[:, place] = values.astype(np.int64)
    if (more := checked[:, 1] > checked[:, 0]).any():
        at = [ids[place] for place in np.flatnonzero(more)]
        raise DataError(f"counts: {more.sum():,} items have more clicks than exposures: {listed(at)}")
    if has_clock:
        _require_milliseconds(checked[checked[:, 0] > 0, 2], prepared=prepared)
    return ids, checked


def _require_milliseconds(first_ms: Int64s, *, prepared: PreparedData) -> None:
    """Refuse first exposures that fit another unit, in a run whose log is of our days."""
    now_ms = int(time.time() * 1_000)
    is_calendar = Clock.of(np.array([prepared.manifest["last_time_ms"]]), now_ms=now_ms).is_calendar
    if len(first_ms) and is_calendar and (unit := fitting_unit(first_ms, "ms", now_ms=now_ms)):
        raise DataError(
            f"counts: {_FIRST_TIME} lies about {date_text(int(np.median(first_ms)))}, as if given in {unit}; expected "
            "Unix milliseconds"
        )


def latest_moment(counts: Int64s, *, prepared: PreparedData) -> int:
    """Return the end of the log or the latest first exposure among counts, Unix milliseconds.

    A first exposure that is still to come, by a clock that is wrong, must not make all others old: it counts as one of
    this moment.
    """
    latest = min(int(counts[counts[:, 0] > 0, 2].max(initial=0)), int(time.time() * 1_000))
    return max(prepared.manifest["last_time_ms"] or 0, latest)


def catalogue_prior_ctr(rows: Int64s, *, prepared: PreparedData, now_ms: int) -> float | Float64s:
    """Return the prior CTR of items of the catalogue at a moment: one for all items, or float64 [items].

    Args:
      rows: int64 [items], rows of the catalogue.
      prepared: data of the run.
      now_ms: the moment, Unix milliseconds.
    """
    if not prepared.has_content_prior:  # reading the history of all posteriors takes long, and would give no more
        return float(prepared.manifest["posterior"]["prior_ctr"])
    return prepared.posterior_history.prior.ctr_of(rows, np.full(len(rows), now_ms))


def posterior_of_counts(
    counts: Int64s, *, prior_ctr: float | Float64s, prepared: PreparedData, now_ms: int, rows: Int64s | None = None
) -> Posterior:
    """Compute the posterior of items from their total counts, as training does.

    Args:
      counts: int64 [items, 3]: exposures, clicks, Unix milliseconds of the first exposure.
      prior_ctr: prior CTR of all items, or float64 [items].
      prepared: data of the run, with the strength of its prior.
      now_ms: the moment that ages are counted to, Unix milliseconds.
      rows: int64 [items], rows of the catalogue; None for items that it lacks.
    """
    exposures, clicks, first_ms = counts.T
    known = (exposures > 0) & (prepared.manifest["time_unit"] != "order")
    settings = prepared.manifest["posterior"]
    prior = Prior(settings["prior_ctr"], settings["prior_strength"])
    ctr = smoothed_ctr(clicks, exposures, prior, prior_ctr=prior_ctr)
    fresh = None
    if (at_end := prepared.serving_posterior).fresh is not None:
        fresh = fresh_of_counts(counts[:, :2], at_end, rows=rows, prepared=prepared, now_ms=now_ms)
    return Posterior(exposures, clicks, ctr, age_hours(now_ms, first_ms, known=known), fresh)


def fresh_of_counts(
    counts: Int64s, at_end: Posterior, *, rows: Int64s | None, prepared: PreparedData, now_ms: int
) -> Float32s:
    """Carry the fresh evidence of items forward from the end of the log to a moment.

    What the log held decays; what the counts have gained since counts in full, as if it had happened now. The pace of
    the feed, which lifts are relative to, is that of the end of the log.

    Args:
      counts: int64 [items, 2]: exposures and clicks.
      at_end: posterior of the catalogue at the end of the log.
      rows: int64 [items], rows of the catalogue; None for items that it lacks.
      prepared: data of the run, with its half-lives.
      now_ms: the moment, Unix milliseconds.

    Returns:
      float32 [items, 3 * half-lives], as `FreshEvidence.as_of`.
    """
    settings = prepared.manifest["posterior"]
    half_lives_ms = np.array(settings["half_lives_ms"], np.float64)
    assert at_end.fresh is not None
    known = at_end.fresh.reshape(len(at_end.fresh), len(half_lives_ms), len(COLUMNS))
    if rows is None:
        before, decayed = np.zeros_like(counts), np.zeros((len(counts), len(half_lives_ms), 2))
    else:
        before = np.stack([at_end.exposures[rows], at_end.clicks[rows]], axis=1)
        decayed = known[rows, :, :2].astype(np.float64)
    passed_ms = max(now_ms - (prepared.manifest["last_time_ms"] + settings["bucket_ms"] + settings["delay_ms"]), 0)
    decayed *= np.exp2(-passed_ms / half_lives_ms)[:, np.newaxis]
    decayed += np.maximum(counts - before, 0)[:, np.newaxis, :]
    # Clicks of the mean item: an item's own clicks divided by its lift, read off the item with most clicks.
    most = known[:, :, 1].argmax(axis=0) if len(known) else np.zeros(0, np.int64)
    lives = np.arange(len(most))
    clicks, lifts = known[most, lives, 1], known[most, lives, 2]
    pace = np.divide(clicks, lifts, out=np.full(len(lives), np.inf, np.float32), where=lifts > 0)
    lift = decayed[:, :, 1] / pace if len(known) else np.zeros(decayed.shape[:2])
    return np.concatenate([decayed, lift[:, :, np.newaxis]], axis=2).reshape(len(counts), -1).astype(np.float32)
