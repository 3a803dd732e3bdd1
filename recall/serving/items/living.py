"""Items that come, gather counts and go while a run is served: from raw features and counts to the living index."""

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
from recall.serving.items.encode import EncodedItems, ItemVectors, RawRows
from recall.serving.items.facts import ItemFacts, News
from recall.serving.items.known_counts import checked_counts, latest_moment, posterior_of
from recall.serving.items.raw import as_json, item_ids_of, records_of

_NO_COUNTS = (0, 0, 0)


def open_living_items(
    run: Path,
    *,
    fingerprint: str,
    vectors: ItemVectors,
    prepared: PreparedData,
    facts: ItemFacts | None = None,
    read_only: bool = False,
) -> LivingItems:
    """The index of a run with what was added, refreshed and deleted since; see `LivingIndex.open`.

    Items that were added under another model are encoded again from their raw rows, with the counts that were known.
    """
    settings, columns = _served_as(run / "config.yaml")

    def encode(sources: Sequence[Any], report: Mapping[str, Any]) -> Float32s:
        if any("row" not in source for source in sources):
            raise DataError("an item of the catalogue before: its features are not in the journal")
        rows = [source["row"] for source in sources]
        counts = np.asarray([source.get("counts") or _NO_COUNTS for source in sources], np.int64)
        posterior = posterior_of(rows, counts, vectors=vectors, prepared=prepared)
        return vectors.of_raw(rows, posterior, cold_bias=report.get("cold_bias", 0.0)).vectors

    index = LivingIndex.open(
        run / "index",
        fingerprint=fingerprint,
        read_only=read_only,
        config=settings,
        encode=encode,
    )
    return LivingItems(index, vectors=vectors, prepared=prepared, columns=columns, facts=facts)


def _served_as(path: Path) -> tuple[IndexConfig, ItemColumns]:
    """What a run's config.yaml says of its index and items; its other sections may name files that are not here."""
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


@dataclasses.dataclass(frozen=True)
class ItemColumns:
    """Columns of the items file: the id's, and the title's if there is one."""

    id: str
    title: str | None = None


class _Changed(NamedTuple):
    """Items that the journal knows.

    Attributes:
      ids: of the items.
      counts: int64 [items, 3]: exposures, clicks, Unix milliseconds of the first exposure.
      rows: raw rows of items that were added; None: they are of the catalogue.
    """

    ids: Sequence[str]
    counts: Int64s
    rows: Sequence[dict[str, Any]] | None


class Behaviour(TypedDict):
    """What the vector of an item was made with: `gate_share` is absent without a gate."""

    exposures: int
    gate_share: NotRequired[float]


class LivingItems:
    """Changes the items of a served run, one change after another, whatever thread it comes from.

    Args:
      index: of the run.
      vectors: its item side.
      prepared: its data.
      columns: of the items file.
      facts: of the items; keep step with the index (see `LivingIndex`).
    """

    def __init__(
        self,
        index: LivingIndex,
        *,
        vectors: ItemVectors,
        prepared: PreparedData,
        columns: ItemColumns,
        facts: ItemFacts | None = None,
    ) -> None:
        self.index, self.columns = index, columns
        self._vectors, self._prepared, self._facts = vectors, prepared, facts
        self._behaviour: dict[str, Behaviour] = {}
        self._changing = threading.Lock()  # what a change reads of an item is what it replaces
        self.learn(self._news(index.with_sources))

    def added(self, ids: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """Raw rows of items that were added, by id: of some, or of all that the index holds."""
        chosen = self.index.with_sources if ids is None else ids
        sources = zip(chosen, self.index.sources(chosen), strict=True)
        return {name: source["row"] for name, source in sources if source and "row" in source}

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """Exposures, clicks and Unix milliseconds of the first exposure by id, of items added or refreshed since."""
        chosen = self.index.with_sources
        sources = zip(chosen, self.index.sources(chosen), strict=True)
        return {name: tuple(source.get("counts") or _NO_COUNTS) for name, source in sources if source}

    def titles(self, ids: Sequence[str] | None = None) -> dict[str, str]:
        """Titles of `added` items that have one."""
        column = self.columns.title
        if column is None:
            return {}
        return {name: str(row[column]) for name, row in self.added(ids).items() if row.get(column) is not None}

    def behaviour(self, ids: Sequence[str]) -> dict[str, Behaviour]:
        """What the vectors of items were made with, by id; only of those that were added or refreshed since."""
        asked = [name for name in ids if name not in self._behaviour]
        for changed in self._encodable(asked, self.index.sources(asked)):
            self._note(changed, self._encoded(changed, self._posterior_of(changed)))
        return {name: self._behaviour[name] for name in ids if name in self._behaviour}

    def catch_up(self) -> tuple[list[str], list[News]]:
        """Finds out what another process has published and changed.

        Returns:
          ids of the items that it added or refreshed meanwhile, and news of them that are to be learned in step with
          the snapshot that is searched. None where this process makes the changes: it knows of them.

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
        return changed, self._news(changed)

    def learn(self, news: Sequence[News]) -> None:
        """Tells the facts."""
        if self._facts is not None:
            self._facts.learn(news)

    def add(self, rows: RawRows) -> list[str]:
        """Encodes items by their content and makes them searchable.

        Args:
          rows: raw values under the column names of the items file, with an id each. Of an item that was added before
            it is the new content, without exposures.

        Returns:
          The ids, in the order of the rows.

        Raises:
          DataError: ids are missing, repeat, or are in the index as items of the catalogue; a value is not of its
            feature's type. Nothing was changed.
        """
        records = records_of(rows)
        ids = item_ids_of((record.get(self.columns.id) for record in records), column=self.columns.id)
        if not ids:
            return []
        with self._changing:
            self._require_new(ids)
            encoded = self._vectors.of_new(rows, cold_bias=self._cold_bias)
            plain = [as_json(record, where=f"item {name}") for name, record in zip(ids, records, strict=True)]
            changed = _Changed(ids, np.zeros((len(ids), 3), np.int64), plain)
            posterior = self._posterior_of(changed)
            news = [self._facts.read(ids, rows=plain, posterior=posterior)] if self._facts else []
            self._upsert([(changed, encoded)], [{"row": row} for row in plain], news=news)
        return ids

    def delete(self, ids: Iterable[str | int], *, missing_ok: bool = False) -> int:
        """See `LivingIndex.delete`."""
        if isinstance(ids, str | bytes):
            raise DataError(f"items: expected a list of ids, found the text {shown(repr(ids))}; write [...]")
        names = dict.fromkeys(item_ids_of(dict.fromkeys(ids), column="items"))
        with self._changing:
            return self.index.delete(names, missing_ok=missing_ok)

    def refresh(self, counts: pd.DataFrame, *, now_ms: int | None = None) -> int:
        """Encodes items again with what is known of them by now: the gate moves, the vector is replaced in place.

        Args:
          counts: columns with the item's id (named as in the items file), exposures, clicks, and for a log with a
            clock first_time_ms, the Unix milliseconds of the first exposure; totals up to now, not what was added.
          now_ms: the moment that ages are counted to; default: the end of the log, or the latest first exposure.

        Returns:
          How many items were refreshed.

        Raises:
          DataError: a column is missing, an id is not in the index, or counts make no sense; nothing was changed.
        """
        ids, known = checked_counts(counts, id_column=self.columns.id, prepared=self._prepared)
        if not ids:
            return 0
        with self._changing:
            return self._refresh(ids, known, now_ms=self._now(known) if now_ms is None else now_ms)

    def _refresh(self, ids: Sequence[str], known: Int64s, *, now_ms: int) -> int:
        self.index.snapshot().rows(ids)  # refuses those that it lacks
        before = self.index.sources(ids)
        sources = [{**(source or {}), "counts": own} for source, own in zip(before, known.tolist(), strict=True)]
        groups = self._encodable(ids, sources)
        if unknown := set(ids).difference(*(changed.ids for changed in groups)):
            raise DataError(
                f"{len(unknown):,} of {len(ids):,} items have no features to encode, as they were upserted as vectors: "
                f"{listed([name for name in ids if name in unknown])}; upsert their vectors again"
            )
        refreshed, news = list[tuple[_Changed, EncodedItems]](), list[News]()
        for changed in groups:
            posterior = self._posterior_of(changed, now_ms=now_ms)
            refreshed.append((changed, self._encoded(changed, posterior)))
            if self._facts is not None:
                news.append(self._facts.read(changed.ids, posterior=posterior, at_ms=now_ms))
        source_of = dict(zip(ids, sources, strict=True))
        self._upsert(refreshed, [source_of[name] for changed in groups for name in changed.ids], news=news)
        return len(ids)

    def _upsert(
        self, groups: Sequence[tuple[_Changed, EncodedItems]], sources: Sequence[Any], *, news: Sequence[News]
    ) -> None:
        """Lets groups of items be searched, and in step with that learns the news; sources are in the same order."""
        self.index.upsert(
            [name for changed, _ in groups for name in changed.ids],
            np.concatenate([encoded.vectors for _, encoded in groups]),
            sources=sources,
            in_step=lambda: self.learn(news),
        )
        for changed, encoded in groups:
            self._note(changed, encoded)

    def _news(self, ids: Sequence[str]) -> list[News]:
        """What the journal knows of items."""
        if self._facts is None:
            return []
        news = []
        for changed in self._encodable(ids, self.index.sources(ids)):
            now_ms = self._now(changed.counts)
            posterior = self._posterior_of(changed, now_ms=now_ms)
            news.append(self._facts.read(changed.ids, posterior=posterior, at_ms=now_ms))
            if changed.rows is None:
                continue
            try:
                news.append(self._facts.read(changed.ids, rows=changed.rows))
            except DataError:  # the run was prepared again since, with columns of other types
                for name, row in zip(changed.ids, changed.rows, strict=True):
                    with contextlib.suppress(DataError):
                        news.append(self._facts.read([name], rows=[row]))
        return news

    def _encodable(self, ids: Sequence[str], sources: Sequence[Any]) -> list[_Changed]:
        """Items that were added, and changed ones of the catalogue, in groups that are not empty; others are left out.

        Args:
          ids: of items.
          sources: of each, as the journal has them; None of an item that nobody changed.
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
                groups.append(_Changed(list(group), counts, rows))
        return groups

    def _posterior_of(self, changed: _Changed, *, now_ms: int | None = None) -> Posterior:
        items = self._prepared.rows(changed.ids) if changed.rows is None else changed.rows
        return posterior_of(items, changed.counts, vectors=self._vectors, prepared=self._prepared, now_ms=now_ms)

    def _encoded(self, changed: _Changed, posterior: Posterior) -> EncodedItems:
        if changed.rows is not None:
            return self._vectors.of_raw(changed.rows, posterior, cold_bias=self._cold_bias)
        encoded = self._prepared.items.take(pa.array(self._prepared.rows(changed.ids)))
        return self._vectors.of_encoded(encoded, posterior, cold_bias=self._cold_bias)

    def _note(self, changed: _Changed, encoded: EncodedItems) -> None:
        for name, counts, share in zip(changed.ids, changed.counts, encoded.behaviour_share.tolist(), strict=True):
            known: Behaviour = {"exposures": int(counts[0])}
            self._behaviour[name] = known if np.isnan(share) else {**known, "gate_share": share}

    def _now(self, counts: Int64s) -> int:
        return latest_moment(counts, prepared=self._prepared)

    @property
    def _cold_bias(self) -> float:
        return float(self.index.report.get("cold_bias", 0.0))

    def _require_new(self, ids: Sequence[str]) -> None:
        snapshot = self.index.snapshot()
        held = [name for name in ids if snapshot.row(name) >= 0]
        added = self.added(held)
        theirs = [name for name in held if name not in added]
        if theirs:
            raise DataError(
                f"{len(theirs):,} of {len(ids):,} items are in the catalogue already, with what is known of their "
                f"behaviour: {listed(theirs)}; use refresh_posterior, or delete_items first to start anew"
            )
