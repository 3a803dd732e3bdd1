"""What is known of the items that are served: attributes and posterior, kept by id and read by the rows of an index.

An index numbers its items as it likes; what is known of items outlives that. A living index numbers them anew with
every base and keeps the numbers in between, so that facts of a base are put together once, and a change costs what has
changed.
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
from recall.serving.items.groups import ColumnCodes
from recall.serving.items.layered import Layer, Layered
from recall.serving.items.posterior import NEVER, Counts, ServedPosterior
from recall.serving.items.row_facts import RowFacts

V = TypeVar("V")


@dataclasses.dataclass(frozen=True)
class News:
    """What became known of some items, checked; see `ItemFacts.read`.

    Attributes:
      ids: unique.
      values: of the attributes, by column.
      counts: newer posteriors.
    """

    ids: Sequence[str]
    values: Sequence[dict[str, Any]] | None = None
    counts: Sequence[Counts] | None = None


class ItemFacts:
    """Attributes and posterior of items by id; what came last is what the next query sees. Threads may share it.

    Args:
      attributes: of the catalogue; None where the run kept none.
      posterior: of the catalogue.
      new_ctr: smoothed CTR of an item that the posterior lacks, the prior's.
    """

    def __init__(self, attributes: ItemAttributes | None, posterior: ServedPosterior, *, new_ctr: float = 0.0) -> None:
        self.attributes, self.posterior, self.new_ctr = attributes, posterior, new_ctr
        self._values: _Later[dict[str, Any]] = _Later()
        self._posteriors: _Later[Counts] = _Later()
        self._of_base: WeakKeyDictionary[Index, _BaseFacts] = WeakKeyDictionary()
        self._lock = threading.Lock()

    @classmethod
    def of_run(cls, prepared: PreparedData) -> ItemFacts:
        """As of the end of a run's log."""
        manifest, ids = prepared.manifest, prepared.item_ids
        at_ms = None if manifest["time_unit"] == "order" else manifest["last_time_ms"]
        attributes = None
        if (table := prepared.attributes) is not None:
            features = [encoder.feature for _, encoder in prepared.item_encoder.features]
            attributes = ItemAttributes(ids, table, separators_of(features))
        posterior = ServedPosterior.at(ids, prepared.posterior("serving"), at_ms=at_ms)
        return cls(attributes, posterior, new_ctr=manifest["posterior"]["prior_ctr"])

    def of(self, index: Index) -> RowFacts:
        """By the rows of an index that does not change.

        Costs the whole catalogue for the first index and after a living one got a new base; then what has changed
        since the last call.
        """
        base = index.base if isinstance(index, LivingSnapshot) else index
        with self._lock:
            if (known := self._of_base.get(base)) is None:
                known = self._of_base[base] = _BaseFacts(base, self)
            self._catch_up(known, index)
            return RowFacts(index, attributes=known.attributes, posterior=known.posterior, codes=known.codes)

    def read(
        self,
        ids: Sequence[str],
        *,
        rows: Sequence[Mapping[str, Any]] | None = None,
        posterior: Posterior | None = None,
        at_ms: int = 0,
    ) -> News:
        """News of items, old ones or new; nothing changes before `learn`.

        Args:
          ids: unique.
          rows: raw values under the column names of the items file; what is absent is missing.
          posterior: of these items.
          at_ms: the moment that its ages were counted to, if the log has a clock.

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
        return News(ids, values, counts)

    def learn(self, news: Iterable[News]) -> None:
        """Lets all that is asked for from now on show some news."""
        with self._lock:
            for one in news:
                if one.values is not None:
                    self._values.put(one.ids, one.values)
                if one.counts is not None:
                    self._posteriors.put(one.ids, one.counts)

    def posterior_of(self, ids: Sequence[str]) -> ServedPosterior:
        """What is known of the behaviour of some items now."""
        with self._lock:
            return self._posterior_of(list(ids))

    def _catch_up(self, known: _BaseFacts, index: Index) -> None:
        """Puts on top what is new of a base: rows that an index has beyond it, and newer facts of ids."""
        new = index.later_ids(known.rows) if isinstance(index, LivingSnapshot) else []
        row_of = index.row_ever if isinstance(index, LivingSnapshot) else index.row
        known.rows += len(new)

        def rows_of(changed: list[str]) -> dict[str, int]:
            rows = {name: row_of(name) for name in [*changed, *new]}
            return {name: row for name, row in rows.items() if row >= 0}  # others get their facts with their row

        rows = rows_of(self._values.since(known.values_seen))
        if rows and known.attributes is not None:
            attributes = Layer.of(np.asarray([*rows.values()]), self._attributes_of([*rows]))
            known.attributes = known.attributes.with_layer(attributes)
        if rows := rows_of(self._posteriors.since(known.posteriors_seen)):
            posterior = Layer.of(np.asarray([*rows.values()]), self._posterior_of([*rows]))
            known.posterior = known.posterior.with_layer(posterior)
        known.values_seen, known.posteriors_seen = self._values.count, self._posteriors.count

    def _attributes_of(self, ids: list[str]) -> ItemAttributes:
        assert self.attributes is not None
        own = self._values.of(ids)
        if any(values is None for values in own):
            places = [self._catalogue.row(name) for name in ids]
            theirs = self.attributes.table.take(pa.array([None if at < 0 else at for at in places], pa.int64()))
            own = [values or other for values, other in zip(own, theirs.to_pylist(), strict=True)]
        table = pa.Table.from_pylist(own, schema=self.attributes.table.schema)
        return ItemAttributes(pa.array(ids, pa.string()), table.combine_chunks(), self.attributes.separators)

    def _posterior_of(self, ids: list[str]) -> ServedPosterior:
        own = self._posteriors.of(ids)
        counts = [known or self._catalogue_counts(name) for name, known in zip(ids, own, strict=True)]
        return ServedPosterior.of_counts(ids, counts, has_clock=self.posterior.has_clock)

    def _catalogue_counts(self, name: str) -> Counts:
        place = self._catalogue.row(name)
        return Counts(0, 0, self.new_ctr, NEVER) if place < 0 else self.posterior.counts(place)

    @cached_property
    def _catalogue(self) -> ItemIds:
        """Places by id, for items that a base lacks though the catalogue has them: few runs ever ask."""
        return ItemIds(self.posterior.ids)


class _BaseFacts:
    """Facts by the rows of a base and of what came on top of it.

    Attributes:
      rows: how many rows have facts.
      values_seen: changes of attributes that are in.
      posteriors_seen: changes of posteriors that are in.
    """

    def __init__(self, base: Index, facts: ItemFacts) -> None:
        ids = base.items.ids
        self.attributes = None if facts.attributes is None else Layered(facts.attributes.of(ids))
        self.posterior = Layered(facts.posterior.of(ids, new_ctr=facts.new_ctr))
        self.rows, self.values_seen, self.posteriors_seen = len(base), 0, 0
        self._codes: dict[str, ColumnCodes] = {}

    def codes(self, column: str) -> ColumnCodes:
        """Of a column that there is."""
        if column not in self._codes:
            assert self.attributes is not None
            self._codes[column] = ColumnCodes(self.attributes.base.column(column, what=column), name=column)
        return self._codes[column]


class _Later(Generic[V]):
    """The last of what became known of each id, in the order in which it did.

    Attributes:
      count: how often something did.
    """

    def __init__(self) -> None:
        self._of: dict[str, tuple[int, V]] = {}
        self.count = 0

    def put(self, ids: Iterable[str], values: Iterable[V]) -> None:
        """Keeps newer values."""
        for name, value in zip(ids, values, strict=True):
            self._of.pop(name, None)  # so that the order is that of the last ones
            self.count += 1
            self._of[name] = (self.count, value)

    def since(self, count: int) -> list[str]:
        """Ids of which something became known after so many times."""
        return [name for name, _ in takewhile(lambda entry: entry[1][0] > count, reversed(self._of.items()))]

    def of(self, ids: Sequence[str]) -> list[V | None]:
        """The last of each id."""
        return [found[1] if (found := self._of.get(name)) else None for name in ids]
