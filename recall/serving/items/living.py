"""Adds, refreshes and deletes items while a run is served: raw features and counts -> the living index.

`encode.py` makes the vectors, `changed.py` reads back what was changed, `facts.py` keeps attributes and posteriors in
step; `served.py` shows the result to queries.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from recall.config.index import IndexConfig
from recall.core.arrays import Float32s, Int64s
from recall.core.errors import ArtifactError, DataError, shown
from recall.data.prepared import PreparedData
from recall.index import Index, LivingIndex
from recall.index.items import listed
from recall.serving.items.audience import COLUMN as AUDIENCE
from recall.serving.items.audience import Given, given_audiences
from recall.serving.items.changed import NO_COUNTS, ChangedGroup, ChangedItems, ItemColumns, posterior_of_raw, rows_of
from recall.serving.items.encode import EncodedItems, ItemEncoder
from recall.serving.items.facts import FactUpdate, ItemFacts
from recall.serving.items.posterior import checked_counts, latest_moment
from recall.serving.items.raw import RawRows, item_ids_of, records_of

_ATTEMPTS = 10


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
    settings, columns = settings_of(run / "config.yaml")

    def encode(sources: Sequence[Any], report: Mapping[str, Any]) -> Float32s:
        if any("row" not in source for source in sources):
            raise DataError("an item of the catalogue before: its features are not in the journal")
        rows = [source["row"] for source in sources]
        counts = np.asarray([source.get("counts") or NO_COUNTS for source in sources], np.int64)
        audiences = [source.get(AUDIENCE) for source in sources]
        posterior = posterior_of_raw(rows, counts, audiences, encoder=encoder, prepared=prepared)
        return encoder.of_raw(rows, posterior, cold_bias=report.get("cold_bias", 0.0)).vectors

    index = LivingIndex.open(
        run / "index",
        fingerprint=fingerprint,
        read_only=read_only,
        config=settings,
        encode=encode,
    )
    return LivingItems(index, encoder=encoder, prepared=prepared, columns=columns, facts=facts)


def settings_of(path: Path) -> tuple[IndexConfig, ItemColumns]:
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


class CaughtUp(NamedTuple):
    """Hold changes of items, read whole, at one moment.

    Attributes:
      snapshot: the index after them.
      sequence: number of the last change.
      sources: sources of the changed items by id.
      rows: raw rows of the added items among them.
      updates: their facts.
    """

    snapshot: Index
    sequence: int
    sources: Mapping[str, Any]
    rows: Mapping[str, dict[str, Any]]
    updates: Sequence[FactUpdate]


class LivingItems:
    """Change the items of a served run. Threads may share it; changes happen one after another.

    Args:
      index: living index of the run.
      encoder: item encoder of the run.
      prepared: data of the run.
      columns: columns of the items file.
      facts: facts of the items, which change in step with the index (see `LivingIndex`).

    Attributes:
      index: as the argument.
      columns: as the argument.
      changed: the items that were added or refreshed.
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
        self.changed = ChangedItems(index, encoder=encoder, prepared=prepared, columns=columns, facts=facts)
        self._encoder, self._prepared, self._facts = encoder, prepared, facts
        self._writing = threading.Lock()  # a change replaces the state that it has read
        self._taken = -1  # number of the last change that is taken over

    def catch_up(self) -> CaughtUp:
        """Read the changes that are not taken over yet: when it is opened all of them, later those of another process.

        Nothing of them is shown before `take_over`; until then they are read again.

        Raises:
          ArtifactError: as `LivingIndex.refresh`.
        """
        for _ in range(_ATTEMPTS):
            snapshot, sequence = self.index.snapshot(), self.index.sequence
            ids = self.index.with_sources_since(self._taken)
            sources = self.changed.sources(ids)
            if len(sources) == len(ids):
                return CaughtUp(snapshot, sequence, sources, rows_of(sources), self.changed.updates(sources))
            # Another process has changed these items since, and compacted their sources away.
            self.index.refresh()
            if self.index.sequence == sequence:
                break
        raise ArtifactError(
            f"{len(ids) - len(sources):,} items changed faster than their sources could be read: "
            f"{listed([name for name in ids if name not in sources])}; try again"
        )

    def take_over(self, news: CaughtUp) -> None:
        """Take over the facts of changes; call it in step with the index."""
        self.changed.forget(list(news.sources))
        self.apply(news.updates)
        self._taken = news.sequence

    def apply(self, updates: Sequence[FactUpdate]) -> None:
        """Apply updates to the facts."""
        if self._facts is not None:
            self._facts.apply(updates)

    def add(self, rows: RawRows, *, show: Callable[[Mapping[str, dict[str, Any]]], None] | None = None) -> list[str]:
        """Encode items by their content and make them searchable.

        Args:
          rows: raw values under the column names of the items file, with an id each. An item that was added before
            gets the new content and starts without exposures.
          show: quick; called with the added rows by id at the moment when they can be searched.

        Returns:
          The ids, in the order of the rows.

        Raises:
          DataError: an id is missing, repeats, or is in the index as an item of the catalogue; a column is unknown, a
            vector is left out, or a value is not of its column's type. Nothing was changed.
        """
        records = records_of(rows)
        ids = item_ids_of((record.get(self.columns.id) for record in records), column=self.columns.id)
        if not ids:
            return []
        plain = self._encoder.rows.typed(records, ids)
        self._encoder.rows.require_columns(rows)
        with self._writing:
            self._require_new(ids)
            encoded = self._encoder.of_new(plain, cold_bias=self.changed.cold_bias)
            added = ChangedGroup(ids, np.zeros((len(ids), 3), np.int64), plain)
            posterior = self.changed.posterior(added)
            updates = [self._facts.checked(ids, rows=plain, posterior=posterior)] if self._facts else []
            shown = dict(zip(ids, plain, strict=True))

            def in_step() -> None:
                self.apply(updates)
                if show is not None:
                    show(shown)

            self._upsert([(added, encoded)], [{"row": row} for row in plain], in_step=in_step)
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
            added. A run that reads audiences takes a column audience, too: per item a list of the items that the last
            users who clicked it had clicked just before, the latest first; without one the audience stays.
          now_ms: the moment that ages are counted to; default: the end of the log, or the latest first exposure.

        Returns:
          Number of refreshed items.

        Raises:
          DataError: a column is missing, an id is not in the index, or counts make no sense; nothing was changed.
        """
        ids, known = checked_counts(counts, id_column=self.columns.id, prepared=self._prepared)
        if not ids:
            return 0
        audiences = given_audiences(counts, ids, prepared=self._prepared)
        with self._writing:
            now_ms = latest_moment(known, prepared=self._prepared) if now_ms is None else now_ms
            return self._refresh(ids, known, audiences, now_ms=now_ms)

    def _refresh(self, ids: Sequence[str], counts: Int64s, audiences: Given, *, now_ms: int) -> int:
        """Encode items with checked counts, int64 [items, 3], and audiences, and upsert them."""
        self.index.snapshot().rows(ids)  # refuses ids that it lacks
        before = self.index.sources(ids)
        sources = [
            {**(source or {}), "counts": own, **({} if audience is None else {AUDIENCE: audience})}
            for source, own, audience in zip(before, counts.tolist(), audiences, strict=True)
        ]
        groups = self.changed.groups(ids, sources)
        if unknown := set(ids).difference(*(group.ids for group in groups)):
            raise DataError(
                f"{len(unknown):,} of {len(ids):,} items have no features to encode, as they were upserted as vectors: "
                f"{listed([name for name in ids if name in unknown])}; upsert their vectors again"
            )
        refreshed, updates = list[tuple[ChangedGroup, EncodedItems]](), list[FactUpdate]()
        for group in groups:
            posterior = self.changed.posterior(group, now_ms=now_ms)
            refreshed.append((group, self.changed.encoded(group, posterior)))
            if self._facts is not None:
                updates.append(self._facts.checked(group.ids, posterior=posterior, at_ms=now_ms))
        source_of = dict(zip(ids, sources, strict=True))
        self._upsert(
            refreshed,
            [source_of[name] for group in groups for name in group.ids],
            in_step=lambda: self.apply(updates),
        )
        return len(ids)

    def _upsert(
        self,
        groups: Sequence[tuple[ChangedGroup, EncodedItems]],
        sources: Sequence[Any],
        *,
        in_step: Callable[[], None],
    ) -> None:
        """Make groups of items searchable; sources are in the same order, and `in_step` as of `LivingIndex.upsert`."""
        self.index.upsert(
            [name for items, _ in groups for name in items.ids],
            np.concatenate([encoded.vectors for _, encoded in groups]),
            sources=sources,
            in_step=in_step,
        )
        for items, encoded in groups:
            self.changed.note(items, encoded)

    def _require_new(self, ids: Sequence[str]) -> None:
        """Refuse ids of catalogue items that the index holds; DataError lists them."""
        snapshot = self.index.snapshot()
        held = [name for name in ids if snapshot.row(name) >= 0]
        added = self.changed.added(held)
        known = [name for name in held if name not in added]
        if known:
            raise DataError(
                f"{len(known):,} of {len(ids):,} items are in the catalogue already, with what is known of their "
                f"behaviour: {listed(known)}; use refresh_posterior, or delete_items first to start anew"
            )
