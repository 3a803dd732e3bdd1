"""Reads the items that were added or refreshed since the catalogue was made: raw rows, counts, titles and facts.

Their sources are in the journal of the index -> `living.py` writes them, `served.py` shows them to queries.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypedDict

import numpy as np
import pyarrow as pa
from typing_extensions import NotRequired

from recall.core.arrays import Int64s
from recall.core.errors import DataError
from recall.data.posterior import Posterior
from recall.data.prepared import PreparedData
from recall.serving.items.audience import COLUMN as AUDIENCE
from recall.serving.items.audience import Given, sources_of
from recall.serving.items.encode import EncodedItems, ItemEncoder
from recall.serving.items.facts import FactUpdate, ItemFacts
from recall.serving.items.posterior import catalogue_prior_ctr, latest_moment, posterior_of_counts

NO_COUNTS = (0, 0, 0)


class Sources(Protocol):
    """Keep what changed items were made from; a `LivingIndex` does."""

    @property
    def with_sources(self) -> list[str]:
        """Return the ids of the present items that can be encoded again."""

    def sources(self, ids: Sequence[str]) -> list[Any]:
        """Return the sources of items, None without one."""

    @property
    def report(self) -> Mapping[str, Any]:
        """Return the report of the index."""


@dataclasses.dataclass(frozen=True)
class ItemColumns:
    """Name the id column of the items file, and its title column if there is one."""

    id: str
    title: str | None = None


@dataclasses.dataclass(frozen=True)
class KeptSources:
    """Hold the sources that a version of an index keeps, where no journal is read.

    Attributes:
      by_id: see `SavedVersion.sources`.
      report: report of the version's index.
    """

    by_id: Mapping[str, Any]
    report: Mapping[str, Any]

    @property
    def with_sources(self) -> list[str]:
        """Return the ids of the items with sources."""
        return list(self.by_id)

    def sources(self, ids: Sequence[str]) -> list[Any]:
        """Return the sources of items, None without one."""
        return [self.by_id.get(name) for name in ids]


class ChangedGroup(NamedTuple):
    """Hold changed items, either all added or all of the catalogue.

    Attributes:
      ids: item ids.
      counts: int64 [items, 3]: exposures, clicks, Unix milliseconds of the first exposure.
      rows: raw rows of added items; None for items of the catalogue.
      audiences: audience of each item as it was given with the counts; empty where none was.
    """

    ids: Sequence[str]
    counts: Int64s
    rows: Sequence[dict[str, Any]] | None
    audiences: Given = ()


class Behaviour(TypedDict):
    """Describe the input of an item's vector: its exposures, and the gate's share of behaviour if there is a gate."""

    exposures: int
    gate_share: NotRequired[float]


class ChangedItems:
    """Describe the changed items of a run by their sources.

    Args:
      kept: keeper of the sources.
      encoder: item encoder of the run.
      prepared: data of the run.
      columns: columns of the items file.
      facts: checker of facts; without it there are none.
    """

    def __init__(
        self,
        kept: Sources,
        *,
        encoder: ItemEncoder,
        prepared: PreparedData,
        columns: ItemColumns,
        facts: ItemFacts | None = None,
    ) -> None:
        self._kept, self._encoder, self._prepared, self._facts = kept, encoder, prepared, facts
        self._columns = columns
        self._behaviour: dict[str, Behaviour] = {}

    def added(self, ids: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """Return raw rows of added items by id: among `ids`, or all that the index holds."""
        return rows_of(self.sources(ids))

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """Return exposures, clicks and Unix milliseconds of the first exposure, by id of added or refreshed items."""
        return {name: tuple(source.get("counts") or NO_COUNTS) for name, source in self.sources().items()}

    def titles(self, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
        """Return the titles of added items by id, None for an item without one.

        Args:
          rows: as `added` gives them.
        """
        column = self._columns.title
        found = {name: None if column is None else row.get(column) for name, row in rows.items()}
        return {name: None if title is None else str(title) for name, title in found.items()}

    def reused(self, ids: Sequence[str]) -> list[str]:
        """Return the ids that the catalogue has, too: of another item, which the added one has replaced."""
        return [name for name, row in zip(ids, self._prepared.rows(ids), strict=True) if row >= 0]

    def behaviour(self, ids: Sequence[str]) -> dict[str, Behaviour]:
        """Describe the inputs of the vectors of added or refreshed items, by id; other ids are left out."""
        unknown = [name for name in ids if name not in self._behaviour]
        for group in self.groups(unknown, self._kept.sources(unknown)):
            self.note(group, self.encoded(group, self.posterior(group)))
        return {name: self._behaviour[name] for name in ids if name in self._behaviour}

    def updates(self, sources: Mapping[str, Any]) -> list[FactUpdate]:
        """Compute the facts of changed items from their sources."""
        if self._facts is None:
            return []
        updates = []
        for group in self.groups(list(sources), list(sources.values())):
            now_ms = latest_moment(group.counts, prepared=self._prepared)
            posterior = self.posterior(group, now_ms=now_ms)
            updates.append(self._facts.checked(group.ids, posterior=posterior, at_ms=now_ms))
            if group.rows is None:
                continue
            try:
                updates.append(self._facts.checked(group.ids, rows=group.rows))
            except DataError:  # the run was prepared again since, with columns of other types
                for name, row in zip(group.ids, group.rows, strict=True):
                    with contextlib.suppress(DataError):
                        updates.append(self._facts.checked([name], rows=[row]))
        return updates

    def groups(self, ids: Sequence[str], sources: Sequence[Any]) -> list[ChangedGroup]:
        """Group items that can be encoded: added items, and changed items of the catalogue; others are left out.

        Args:
          ids: item ids.
          sources: the source of each item; None for an unchanged one.

        Returns:
          At most two groups, none of them empty.
        """
        with_row = {name: source for name, source in zip(ids, sources, strict=True) if source and "row" in source}
        in_catalogue = {
            name: source
            for name, source, row in zip(ids, sources, self._prepared.rows(ids), strict=True)
            if source and row >= 0 and name not in with_row
        }
        groups = []
        for group in (with_row, in_catalogue):
            if group:
                counts = np.asarray([source.get("counts") or NO_COUNTS for source in group.values()], np.int64)
                rows = [source["row"] for source in group.values()] if group is with_row else None
                audiences = [source.get(AUDIENCE) for source in group.values()]
                groups.append(ChangedGroup(list(group), counts, rows, audiences))
        return groups

    def posterior(self, items: ChangedGroup, *, now_ms: int | None = None) -> Posterior:
        """Compute the posterior of items at a moment; default: `latest_moment` of their counts."""
        now_ms = latest_moment(items.counts, prepared=self._prepared) if now_ms is None else now_ms
        prepared, counts = self._prepared, items.counts
        audiences = items.audiences or [None] * len(items.ids)
        if items.rows is not None:
            return posterior_of_raw(
                items.rows, counts, audiences, encoder=self._encoder, prepared=prepared, now_ms=now_ms
            )
        rows = prepared.rows(items.ids)
        prior_ctr = catalogue_prior_ctr(rows, prepared=prepared, now_ms=now_ms)
        found = posterior_of_counts(counts, prior_ctr=prior_ctr, prepared=prepared, now_ms=now_ms, rows=rows)
        return found._replace(sources=sources_of(audiences, rows=rows, prepared=prepared))

    def encoded(self, items: ChangedGroup, posterior: Posterior) -> EncodedItems:
        """Encode items with a posterior, from their raw rows or from the catalogue."""
        if items.rows is not None:
            return self._encoder.of_raw(items.rows, posterior, cold_bias=self.cold_bias)
        encoded = self._prepared.items.take(pa.array(self._prepared.rows(items.ids)))
        return self._encoder.of_encoded(encoded, posterior, cold_bias=self.cold_bias)

    def note(self, items: ChangedGroup, encoded: EncodedItems) -> None:
        """Remember the behaviour that vectors were made with."""
        for name, counts, share in zip(items.ids, items.counts, encoded.behaviour_share.tolist(), strict=True):
            known: Behaviour = {"exposures": int(counts[0])}
            self._behaviour[name] = known if np.isnan(share) else {**known, "gate_share": share}

    def forget(self, ids: Sequence[str]) -> None:
        """Forget the behaviour of items that have changed since."""
        for name in ids:
            self._behaviour.pop(name, None)

    @property
    def cold_bias(self) -> float:
        """Return the cold bias of the index."""
        return float(self._kept.report.get("cold_bias", 0.0))

    def sources(self, ids: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the sources of changed items by id: among `ids`, or of all that the index holds."""
        chosen = self._kept.with_sources if ids is None else ids
        return {name: source for name, source in zip(chosen, self._kept.sources(chosen), strict=True) if source}


def rows_of(sources: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the raw rows of the added items among changed ones."""
    return {name: source["row"] for name, source in sources.items() if "row" in source}


def posterior_of_raw(
    rows: Sequence[Mapping[str, Any]],
    counts: Int64s,
    audiences: Given,
    *,
    encoder: ItemEncoder,
    prepared: PreparedData,
    now_ms: int | None = None,
) -> Posterior:
    """Compute the posterior of items that the catalogue lacks, from their content's prior and their counts.

    Args:
      rows: raw rows of the items.
      counts: int64 [items, 3], as of `posterior_of_counts`.
      audiences: as of `ChangedGroup`, one for each item.
      encoder: predictor of the prior CTR.
      prepared: data of the run.
      now_ms: the moment of the ages; default: `latest_moment`.
    """
    by_content = encoder.prior_ctr(rows)
    posterior = posterior_of_counts(
        counts,
        prior_ctr=prepared.manifest["posterior"]["prior_ctr"] if by_content is None else by_content,
        prepared=prepared,
        now_ms=latest_moment(counts, prepared=prepared) if now_ms is None else now_ms,
    )
    return posterior._replace(sources=sources_of(audiences, rows=None, prepared=prepared))
