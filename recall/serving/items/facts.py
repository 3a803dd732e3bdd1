"""Keeps the attributes and posteriors of the served items by id, and shows them by the rows of an index.

An index numbers its items by itself, and a living index numbers them anew with every base; facts outlive that. Facts of
a base are put together once, and a change costs time for the changed items alone. Ids -> `row_facts.py` shows them by
row.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa

from recall.data.item_attributes import ItemAttributes, separators_of
from recall.data.posterior import Posterior
from recall.data.prepared import PreparedData
from recall.index import Index
from recall.index.items import ItemIds
from recall.index.living.snapshot import LivingSnapshot
from recall.serving.items.distinct import DistinctValues
from recall.serving.items.groups import ColumnCodes
from recall.serving.items.overlay import Overlaid, Overlay
from recall.serving.items.posterior import NEVER, Counts, ServedPosterior
from recall.serving.items.row_facts import Masks, RowFacts

V = TypeVar("V")


@dataclasses.dataclass(frozen=True)
class FactUpdate:
    """Hold checked new facts of some items; see `ItemFacts.checked`.

    Attributes:
      ids: unique item ids.
      values: per item its attributes by column; None where they stay.
      counts: per item its newer posterior; None where they stay.
    """

    ids: Sequence[str]
    values: Sequence[dict[str, Any]] | None = None
    counts: Sequence[Counts] | None = None


class ItemFacts:
    """Keep the attributes and posteriors of items by id. The next query sees the latest update. Threads may share it.

    Args:
      attributes: attributes of the catalogue; None where the run kept none.
      posterior: posteriors of the catalogue.
      new_ctr: smoothed CTR of an item without a posterior: the prior CTR.
    """

    def __init__(self, attributes: ItemAttributes | None, posterior: ServedPosterior, *, new_ctr: float = 0.0) -> None:
        self.attributes, self.posterior, self.new_ctr = attributes, posterior, new_ctr
        self._values: _Latest[dict[str, Any]] = _Latest()
        self._posteriors: _Latest[Counts] = _Latest()
        self._of_base: WeakKeyDictionary[Index, _BaseFacts] = WeakKeyDictionary()
        self._lock = threading.Lock()

    @classmethod
    def of_run(cls, prepared: PreparedData) -> ItemFacts:
        """Read the facts as of the end of a run's log."""
        manifest, ids = prepared.manifest, prepared.item_ids
        at_ms = None if manifest["time_unit"] == "order" else manifest["last_time_ms"]
        attributes = None
        if (table := prepared.attributes) is not None:
            features = [encoder.feature for _, encoder in prepared.item_encoder.features]
            attributes = ItemAttributes(ids, table, separators_of(features))
        posterior = ServedPosterior.at(ids, prepared.posterior("serving"), at_ms=at_ms)
        return cls(attributes, posterior, new_ctr=manifest["posterior"]["prior_ctr"])

    def of(self, index: Index) -> RowFacts:
        """Show the facts by the rows of an index that does not change.

        The first call for an index, and the first after a living index got a new base, takes time for the whole
        catalogue; a later call takes time for what has changed since the last one.
        """
        base = index.base if isinstance(index, LivingSnapshot) else index
        with self._lock:
            if (known := self._of_base.get(base)) is None:
                known = self._of_base[base] = _BaseFacts(base, self)
            self._catch_up(known, index)
            return RowFacts(
                index,
                attributes=known.attributes,
                posterior=known.posterior,
                codes=known.codes,
                distinct=known.distinct,
                masks=known.masks,
            )

    def checked(
        self,
        ids: Sequence[str],
        *,
        rows: Sequence[Mapping[str, Any]] | None = None,
        posterior: Posterior | None = None,
        at_ms: int = 0,
    ) -> FactUpdate:
        """Check new facts of old or new items. Nothing changes before `apply`.

        Args:
          ids: unique item ids.
          rows: raw values under the column names of the items file; an absent value is missing.
          posterior: the posterior of these items.
          at_ms: the moment of the posterior's ages, if the log has a clock.

        Raises:
          DataError: a value is not of its column's type.
        """
        values = counts = None
        if rows is not None and self.attributes is not None:
            values = self.attributes.read(ids, rows).table.to_pylist()
        if posterior is not None:
            at = at_ms if self.posterior.has_clock else None
            known = ServedPosterior.at(pa.array(ids, pa.string()), posterior, at_ms=at)
            counts = [known.counts(place) for place in range(len(ids))]
        return FactUpdate(ids, values, counts)

    def apply(self, updates: Iterable[FactUpdate]) -> None:
        """Show updates in all views that are made from now on."""
        with self._lock:
            for update in updates:
                if update.values is not None:
                    self._values.put(update.ids, update.values)
                if update.counts is not None:
                    self._posteriors.put(update.ids, update.counts)

    def posterior_of(self, ids: Sequence[str]) -> ServedPosterior:
        """Return the current posteriors of some items."""
        with self._lock:
            return self._posterior_of(list(ids))

    def _catch_up(self, known: _BaseFacts, index: Index) -> None:
        """Add overlays for rows that the index has beyond its base, and for newer facts of ids."""
        new = index.later_ids(known.rows) if isinstance(index, LivingSnapshot) else []
        row_of = index.row_ever if isinstance(index, LivingSnapshot) else index.row
        known.rows += len(new)

        def rows_of(changed: list[str]) -> dict[str, int]:
            rows = {name: row_of(name) for name in [*changed, *new]}
            return {name: row for name, row in rows.items() if row >= 0}  # others get their facts with their row

        rows = rows_of(self._values.since(known.values_seen))
        if rows and known.attributes is not None:
            attributes = Overlay.of(np.asarray([*rows.values()]), self._attributes_of([*rows]))
            known.attributes = known.attributes.with_overlay(attributes)
        if rows := rows_of(self._posteriors.since(known.posteriors_seen)):
            posterior = Overlay.of(np.asarray([*rows.values()]), self._posterior_of([*rows]))
            known.posterior = known.posterior.with_overlay(posterior)
        known.values_seen, known.posteriors_seen = self._values.count, self._posteriors.count

    def _attributes_of(self, ids: list[str]) -> ItemAttributes:
        """Return the latest attributes of items, from updates or else from the catalogue."""
        assert self.attributes is not None
        own = self._values.of(ids)
        if any(values is None for values in own):
            places = [self._catalogue.row(name) for name in ids]
            in_catalogue = self.attributes.table.take(pa.array([None if at < 0 else at for at in places], pa.int64()))
            own = [values or other for values, other in zip(own, in_catalogue.to_pylist(), strict=True)]
        table = pa.Table.from_pylist(own, schema=self.attributes.table.schema)
        return ItemAttributes(pa.array(ids, pa.string()), table.combine_chunks(), self.attributes.separators)

    def _posterior_of(self, ids: list[str]) -> ServedPosterior:
        """Return the latest posteriors of items, from updates or else from the catalogue."""
        own = self._posteriors.of(ids)
        counts = [known or self._catalogue_counts(name) for name, known in zip(ids, own, strict=True)]
        return ServedPosterior.of_counts(ids, counts, has_clock=self.posterior.has_clock)

    def _catalogue_counts(self, name: str) -> Counts:
        """Return the catalogue's counts of an item; zero exposures for an unknown one."""
        place = self._catalogue.row(name)
        return Counts(0, 0, self.new_ctr, NEVER) if place < 0 else self.posterior.counts(place)

    @cached_property
    def _catalogue(self) -> ItemIds:
        """Map ids to places in the catalogue, for items that a base lacks. Few runs ever need it."""
        return ItemIds(self.posterior.ids)


class _BaseFacts:
    """Keep the facts of one base by row, with overlays of later facts.

    Attributes:
      attributes: attributes by row; None where the run kept none.
      posterior: posteriors by row.
      rows: number of rows with facts.
      values_seen: number of attribute updates that are included.
      posteriors_seen: number of posterior updates that are included.
      masks: masks of filters by the rows of an index over the base.
    """

    def __init__(self, base: Index, facts: ItemFacts) -> None:
        ids = base.items.ids
        self.attributes = None if facts.attributes is None else Overlaid(facts.attributes.of(ids))
        self.posterior = Overlaid(facts.posterior.of(ids, new_ctr=facts.new_ctr))
        self.rows, self.values_seen, self.posteriors_seen = len(base), 0, 0
        self._codes: dict[str, ColumnCodes] = {}
        self._distinct: dict[str, DistinctValues | None] = {}
        self.masks = Masks()

    def codes(self, column: str) -> ColumnCodes:
        """Return the codes of the values of an existing column."""
        if column not in self._codes:
            assert self.attributes is not None
            self._codes[column] = ColumnCodes(self.attributes.base.column(column, what=column), name=column)
        return self._codes[column]

    def distinct(self, column: str) -> DistinctValues | None:
        """Return the distinct values of an existing column; None where they are many."""
        if column not in self._distinct:
            assert self.attributes is not None
            self._distinct[column] = DistinctValues.of(self.attributes.base.column(column, what=column))
        return self._distinct[column]


class _Latest(Generic[V]):
    """Keep the latest value of each id, in the order of the updates.

    Attributes:
      count: number of updates of single ids.
    """

    def __init__(self) -> None:
        self._of: dict[str, tuple[int, V]] = {}
        self.count = 0

    def put(self, ids: Iterable[str], values: Iterable[V]) -> None:
        """Keep newer values."""
        for name, value in zip(ids, values, strict=True):
            self._of.pop(name, None)  # so that the order is the order of the latest updates
            self.count += 1
            self._of[name] = (self.count, value)

    def since(self, count: int) -> list[str]:
        """List the ids that were updated after the first `count` updates."""
        return [name for name, _ in takewhile(lambda entry: entry[1][0] > count, reversed(self._of.items()))]

    def of(self, ids: Sequence[str]) -> list[V | None]:
        """Return the latest value of each id; None without one."""
        return [found[1] if (found := self._of.get(name)) else None for name in ids]
