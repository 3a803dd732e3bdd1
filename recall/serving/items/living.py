"""Adds, refreshes and deletes items while a run is served: raw features and counts -> the living index.

`encode.py` makes the vectors, `facts.py` keeps attributes and posteriors in step; `served.py` shows the result to
queries.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml
from typing_extensions import NotRequired

from recall.config.index import IndexConfig
from recall.core.arrays import Float32s, Int64s
from recall.core.errors import ArtifactError, DataError, shown
from recall.data.posterior import Posterior
from recall.data.prepared import PreparedData
from recall.index import LivingIndex
from recall.index.items import listed
from recall.serving.items.encode import EncodedItems, ItemEncoder, RawRows
from recall.serving.items.facts import FactUpdate, ItemFacts
from recall.serving.items.posterior import (
    catalogue_prior_ctr,
    checked_counts,
    latest_moment,
    posterior_of_counts,
)
from recall.serving.items.raw import as_json, item_ids_of, records_of

_NO_COUNTS = (0, 0, 0)


def open_living_items(
    run: Path,
    *,
    fingerprint: str,
    encoder: ItemEncoder,
    prepared: PreparedData,
    facts: ItemFacts | None = None,
    read_only: bool = False,
) -> LivingItems:
    """Open the index of a run with the items that were added, refreshed and deleted since; see `LivingIndex.open`.

    Items that were added under another model are encoded again from their raw rows, with their last counts.
    """
    settings, columns = _settings_of(run / "config.yaml")

    def encode(sources: Sequence[Any], report: Mapping[str, Any]) -> Float32s:
        if any("row" not in source for source in sources):
            raise DataError("an item of the catalogue before: its features are not in the journal")
        rows = [source["row"] for source in sources]
        counts = np.asarray([source.get("counts") or _NO_COUNTS for source in sources], np.int64)
        posterior = _posterior_of_raw(rows, counts, encoder=encoder, prepared=prepared)
        return encoder.of_raw(rows, posterior, cold_bias=report.get("cold_bias", 0.0)).vectors

    index = LivingIndex.open(
        run / "index",
        fingerprint=fingerprint,
        read_only=read_only,
        config=settings,
        encode=encode,
    )
    return LivingItems(index, encoder=encoder, prepared=prepared, columns=columns, facts=facts)


def _settings_of(path: Path) -> tuple[IndexConfig, ItemColumns]:
    """Read the index and item settings of a run's config.yaml; other sections may name files that are not here."""
    try:
        settings = yaml.safe_load(path.read_text())
        items = settings["data"].get("items") or {}
        columns = ItemColumns(items.get("id", settings["data"]["events"]["item"]), items.get("title"))
        return IndexConfig.model_validate(settings.get("index") or {}), columns
    except (OSError, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"{path}: is no longer the experiment of the run ({type(error).__name__}: {error}); put the one back that "
            "it was made from"
        ) from error


def _posterior_of_raw(
    rows: Sequence[Mapping[str, Any]],
    counts: Int64s,
    *,
    encoder: ItemEncoder,
    prepared: PreparedData,
    now_ms: int | None = None,
) -> Posterior:
    """Compute the posterior of items that the catalogue lacks, from their content's prior and their counts.

    Args:
      rows: raw rows of the items.
      counts: int64 [items, 3], as of `posterior_of_counts`.
      encoder: predictor of the prior CTR.
      prepared: data of the run.
      now_ms: the moment of the ages; default: `latest_moment`.
    """
    by_content = encoder.prior_ctr(rows)
    return posterior_of_counts(
        counts,
        prior_ctr=prepared.manifest["posterior"]["prior_ctr"] if by_content is None else by_content,
        prepared=prepared,
        now_ms=latest_moment(counts, prepared=prepared) if now_ms is None else now_ms,
    )


@dataclasses.dataclass(frozen=True)
class ItemColumns:
    """Name the id column of the items file, and its title column if there is one."""

    id: str
    title: str | None = None


class _JournalItems(NamedTuple):
    """Hold items of the journal, either all added or all of the catalogue.

    Attributes:
      ids: item ids.
      counts: int64 [items, 3]: exposures, clicks, Unix milliseconds of the first exposure.
      rows: raw rows of added items; None for items of the catalogue.
    """

    ids: Sequence[str]
    counts: Int64s
    rows: Sequence[dict[str, Any]] | None


class Behaviour(TypedDict):
    """Describe the input of an item's vector: its exposures, and the gate's share of behaviour if there is a gate."""

    exposures: int
    gate_share: NotRequired[float]


class LivingItems:
    """Change the items of a served run. Threads may share it; changes happen one after another.

    Args:
      index: living index of the run.
      encoder: item encoder of the run.
      prepared: data of the run.
      columns: columns of the items file.
      facts: facts of the items, which change in step with the index (see `LivingIndex`).
    """

    def __init__(
        self,
        index: LivingIndex,
        *,
        encoder: ItemEncoder,
        prepared: PreparedData,
        columns: ItemColumns,
        facts: ItemFacts | None = None,
    ) -> None:
        self.index, self.columns = index, columns
        self._encoder, self._prepared, self._facts = encoder, prepared, facts
        self._behaviour: dict[str, Behaviour] = {}
        self._writing = threading.Lock()  # a change replaces the state that it has read
        self.apply(self._updates_of(index.with_sources))

    def added(self, ids: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """Return raw rows of added items by id: among `ids`, or all that the index holds."""
        chosen = self.index.with_sources if ids is None else ids
        sources = zip(chosen, self.index.sources(chosen), strict=True)
        return {name: source["row"] for name, source in sources if source and "row" in source}

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """Return exposures, clicks and Unix milliseconds of the first exposure, by id of added or refreshed items."""
        chosen = self.index.with_sources
        sources = zip(chosen, self.index.sources(chosen), strict=True)
        return {name: tuple(source.get("counts") or _NO_COUNTS) for name, source in sources if source}

    def titles(self, ids: Sequence[str] | None = None) -> dict[str, str]:
        """Return the titles of `added` items that have one, by id."""
        column = self.columns.title
        if column is None:
            return {}
        return {name: str(row[column]) for name, row in self.added(ids).items() if row.get(column) is not None}

    def behaviour(self, ids: Sequence[str]) -> dict[str, Behaviour]:
        """Describe the inputs of the vectors of added or refreshed items, by id; other ids are left out."""
        unknown = [name for name in ids if name not in self._behaviour]
        for known in self._encodable(unknown, self.index.sources(unknown)):
            self._note(known, self._encoded(known, self._posterior_of(known)))
        return {name: self._behaviour[name] for name in ids if name in self._behaviour}

    def catch_up(self) -> tuple[list[str], list[FactUpdate]]:
        """Read the changes that another process has published.

        Returns:
          Ids of the items that it added or refreshed meanwhile, and their updates, to be applied in step with the
          snapshot that is searched. Both are empty where this process makes the changes itself.

        Raises:
          ArtifactError: as `LivingIndex.refresh`; everything is as it was.
        """
        before = self.index.sequence
        self.index.refresh()
        if not self.index.is_read_only:
            return [], []
        changed = self.index.with_sources_since(before)
        for name in changed:
            self._behaviour.pop(name, None)
        return changed, self._updates_of(changed)

    def apply(self, updates: Sequence[FactUpdate]) -> None:
        """Apply updates to the facts."""
        if self._facts is not None:
            self._facts.apply(updates)

    def add(self, rows: RawRows) -> list[str]:
        """Encode items by their content and make them searchable.

        Args:
          rows: raw values under the column names of the items file, with an id each. An item that was added before
            gets the new content and starts without exposures.

        Returns:
          The ids, in the order of the rows.

        Raises:
          DataError: an id is missing, repeats, or is in the index as an item of the catalogue; or a value is not of its
            feature's type. Nothing was changed.
        """
        records = records_of(rows)
        ids = item_ids_of((record.get(self.columns.id) for record in records), column=self.columns.id)
        if not ids:
            return []
        with self._writing:
            self._require_new(ids)
            encoded = self._encoder.of_new(rows, cold_bias=self._cold_bias)
            plain = [as_json(record, where=f"item {name}") for name, record in zip(ids, records, strict=True)]
            added = _JournalItems(ids, np.zeros((len(ids), 3), np.int64), plain)
            posterior = self._posterior_of(added)
            updates = [self._facts.checked(ids, rows=plain, posterior=posterior)] if self._facts else []
            self._upsert([(added, encoded)], [{"row": row} for row in plain], updates=updates)
        return ids

    def delete(self, ids: Iterable[str | int], *, missing_ok: bool = False) -> int:
        """Delete items and return how many were deleted; see `LivingIndex.delete`."""
        if isinstance(ids, str | bytes):
            raise DataError(f"items: expected a list of ids, found the text {shown(repr(ids))}; write [...]")
        names = dict.fromkeys(item_ids_of(dict.fromkeys(ids), column="items"))
        with self._writing:
            return self.index.delete(names, missing_ok=missing_ok)

    def refresh(self, counts: pd.DataFrame, *, now_ms: int | None = None) -> int:
        """Encode items again with newer counts: the gate moves, and the new vector replaces the old one.

        Args:
          counts: a table with the item's id (named as in the items file), exposures, clicks, and for a log with a
            clock first_time_ms, the Unix milliseconds of the first exposure. Counts are totals up to now, not what was
            added.
          now_ms: the moment that ages are counted to; default: the end of the log, or the latest first exposure.

        Returns:
          Number of refreshed items.

        Raises:
          DataError: a column is missing, an id is not in the index, or counts make no sense; nothing was changed.
        """
        ids, known = checked_counts(counts, id_column=self.columns.id, prepared=self._prepared)
        if not ids:
            return 0
        with self._writing:
            now_ms = latest_moment(known, prepared=self._prepared) if now_ms is None else now_ms
            return self._refresh(ids, known, now_ms=now_ms)

    def _refresh(self, ids: Sequence[str], counts: Int64s, *, now_ms: int) -> int:
        """Encode items with checked counts, int64 [items, 3], and upsert them."""
        self.index.snapshot().rows(ids)  # refuses ids that it lacks
        before = self.index.sources(ids)
        sources = [{**(source or {}), "counts": own} for source, own in zip(before, counts.tolist(), strict=True)]
        groups = self._encodable(ids, sources)
        if unknown := set(ids).difference(*(group.ids for group in groups)):
            raise DataError(
                f"{len(unknown):,} of {len(ids):,} items have no features to encode, as they were upserted as vectors: "
                f"{listed([name for name in ids if name in unknown])}; upsert their vectors again"
            )
        refreshed, updates = list[tuple[_JournalItems, EncodedItems]](), list[FactUpdate]()
        for group in groups:
            posterior = self._posterior_of(group, now_ms=now_ms)
            refreshed.append((group, self._encoded(group, posterior)))
            if self._facts is not None:
                updates.append(self._facts.checked(group.ids, posterior=posterior, at_ms=now_ms))
        source_of = dict(zip(ids, sources, strict=True))
        self._upsert(refreshed, [source_of[name] for group in groups for name in group.ids], updates=updates)
        return len(ids)

    def _upsert(
        self,
        groups: Sequence[tuple[_JournalItems, EncodedItems]],
        sources: Sequence[Any],
        *,
        updates: Sequence[FactUpdate],
    ) -> None:
        """Make groups of items searchable, and apply their updates in step; sources are in the same order."""
        self.index.upsert(
            [name for items, _ in groups for name in items.ids],
            np.concatenate([encoded.vectors for _, encoded in groups]),
            sources=sources,
            in_step=lambda: self.apply(updates),
        )
        for items, encoded in groups:
            self._note(items, encoded)

    def _updates_of(self, ids: Sequence[str]) -> list[FactUpdate]:
        """Read the facts of items from the journal."""
        if self._facts is None:
            return []
        updates = []
        for items in self._encodable(ids, self.index.sources(ids)):
            now_ms = latest_moment(items.counts, prepared=self._prepared)
            posterior = self._posterior_of(items, now_ms=now_ms)
            updates.append(self._facts.checked(items.ids, posterior=posterior, at_ms=now_ms))
            if items.rows is None:
                continue
            try:
                updates.append(self._facts.checked(items.ids, rows=items.rows))
            except DataError:  # the run was prepared again since, with columns of other types
                for name, row in zip(items.ids, items.rows, strict=True):
                    with contextlib.suppress(DataError):
                        updates.append(self._facts.checked([name], rows=[row]))
        return updates

    def _encodable(self, ids: Sequence[str], sources: Sequence[Any]) -> list[_JournalItems]:
        """Group items that can be encoded: added items, and changed items of the catalogue; others are left out.

        Args:
          ids: item ids.
          sources: the journal's entry of each item; None for an unchanged one.

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
                counts = np.asarray([source.get("counts") or _NO_COUNTS for source in group.values()], np.int64)
                rows = [source["row"] for source in group.values()] if group is with_row else None
                groups.append(_JournalItems(list(group), counts, rows))
        return groups

    def _posterior_of(self, items: _JournalItems, *, now_ms: int | None = None) -> Posterior:
        """Compute the posterior of items at a moment; default: `latest_moment` of their counts."""
        now_ms = latest_moment(items.counts, prepared=self._prepared) if now_ms is None else now_ms
        prepared, counts = self._prepared, items.counts
        if items.rows is not None:
            return _posterior_of_raw(items.rows, counts, encoder=self._encoder, prepared=prepared, now_ms=now_ms)
        prior_ctr = catalogue_prior_ctr(prepared.rows(items.ids), prepared=prepared, now_ms=now_ms)
        return posterior_of_counts(counts, prior_ctr=prior_ctr, prepared=prepared, now_ms=now_ms)

    def _encoded(self, items: _JournalItems, posterior: Posterior) -> EncodedItems:
        """Encode items with a posterior, from their raw rows or from the catalogue."""
        if items.rows is not None:
            return self._encoder.of_raw(items.rows, posterior, cold_bias=self._cold_bias)
        encoded = self._prepared.items.take(pa.array(self._prepared.rows(items.ids)))
        return self._encoder.of_encoded(encoded, posterior, cold_bias=self._cold_bias)

    def _note(self, items: _JournalItems, encoded: EncodedItems) -> None:
        """Remember the behaviour that vectors were made with."""
        for name, counts, share in zip(items.ids, items.counts, encoded.behaviour_share.tolist(), strict=True):
            known: Behaviour = {"exposures": int(counts[0])}
            self._behaviour[name] = known if np.isnan(share) else {**known, "gate_share": share}

    @property
    def _cold_bias(self) -> float:
        """Return the cold bias of the index."""
        return float(self.index.report.get("cold_bias", 0.0))

    def _require_new(self, ids: Sequence[str]) -> None:
        """Refuse ids of catalogue items that the index holds; DataError lists them."""
        snapshot = self.index.snapshot()
        held = [name for name in ids if snapshot.row(name) >= 0]
        added = self.added(held)
        known = [name for name in held if name not in added]
        if known:
            raise DataError(
                f"{len(known):,} of {len(ids):,} items are in the catalogue already, with what is known of their "
                f"behaviour: {listed(known)}; use refresh_posterior, or delete_items first to start anew"
            )
