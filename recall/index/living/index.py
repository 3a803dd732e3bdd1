"""Searches items that come, change and go meanwhile; a crash loses no acknowledged change.

Start at `LivingIndex`. `snapshot.py` answers searches, `storage.py` keeps the files, `drift.py` measures the distance
from the built index.

Why not ScaNN's own upserts: it puts a new item into partitions that were learned without it, and finds .47 to .73 of
the items from new clusters until it is rebalanced. Here later items are a small part of its own that is compared
exactly: all of them are found, for as many multiplications per query as their vectors have numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recall.config.index import IndexConfig
from recall.core.arrays import Float32s
from recall.core.errors import ArtifactError, DataError
from recall.index.base import Index
from recall.index.items import Ids, Items, listed
from recall.index.living.drift import Drift, measure_drift
from recall.index.living.journal import Journal
from recall.index.living.journal_format import Operation, Record
from recall.index.living.rebuild import config_like, rebuilt
from recall.index.living.replay import Encode, LastChanges, changed, replayed
from recall.index.living.snapshot import LivingSnapshot
from recall.index.living.storage import LivingStorage
from recall.index.results import SearchResult
from recall.index.saved.store import SavedVersion


class LivingIndex:
    """Search, upsert and delete from any number of threads.

    A search reads one attribute, the newest snapshot, and never waits; changes are made one after another. A change is
    on disk when `upsert` or `delete` returns. Answers are `Index.search` over the items of one moment between the
    beginning and the end of the search.

    It is no `Index` itself: `snapshot()` is one, of the items at a moment. Rows belong to a snapshot: ask the same
    snapshot for rows or masks and for the search that uses them. Facts of items that are kept elsewhere stay in step
    with it: a change of both is made while `in_step` is held, and a reader who holds it while taking a snapshot and
    reading the facts finds both before the change, or both after it.

    `LivingIndex.open` opens a saved index; the constructor makes one in memory alone.

    Args:
      base: a built index.
      config: how `rebalance` builds; default: as the base is built.

    Attributes:
      in_step: lock that is held while a change is shown.
    """

    def __init__(self, base: Index, *, config: IndexConfig | None = None) -> None:
        self._config = config or config_like(base)
        self._now: LivingSnapshot | None = LivingSnapshot.over(base)
        self.in_step = threading.RLock()
        self._writing = threading.Lock()
        self._maintaining = threading.Lock()  # one rebalance or refresh at a time
        self._since: list[Record] | None = None  # changes while a base is being built
        self._storage: LivingStorage | None = None
        self._sequence = 0
        self._given_queries: Any | None = None
        self._changes = LastChanges()

    @classmethod
    def open(
        cls,
        directory: str | Path,
        *,
        fingerprint: str | None = None,
        read_only: bool = False,
        config: IndexConfig | None = None,
        encode: Encode | None = None,
        sample_queries: Any | None = None,
    ) -> LivingIndex:
        """Open the current version of a saved index and apply its journal.

        Changes that were made under another model's version: deletes are applied; items that the version holds keep
        its vectors; other items are encoded again, or set aside (see `set_aside`).

        Args:
          directory: where `save_index` put it; the journal is in journal/ there.
          fingerprint: of the model whose queries will be asked; None takes the version's.
          read_only: do not take the lock. `refresh` shows the later changes of the writer.
          config: how `rebalance` builds; default: as the base is built.
          encode: makes vectors of the model from sources (see `upsert`) and the report of the base.
          sample_queries: float [queries, dim] to tune a new base with. Without: the queries that the version keeps, or
            else perturbed item vectors.

        Raises:
          ArtifactError: no index, damage to it or to the journal, another model's, or another writer has it open.
        """
        storage = LivingStorage(directory, fingerprint=fingerprint, read_only=read_only, encode=encode)
        try:
            version = storage.load()
            index = cls(version.index, config=config)
            index._storage, index._given_queries = storage, sample_queries
            index._stand_on(version, storage)
        except BaseException:
            storage.close()
            raise
        return index

    # Content

    def snapshot(self) -> LivingSnapshot:
        """Return the items of this moment as an index that stays as it is, whatever changes later.

        Raises:
          ArtifactError: the index is closed.
        """
        now = self._now
        if now is None:
            raise ArtifactError("the index is closed; open it again with LivingIndex.open")
        return now

    def __len__(self) -> int:
        return len(self.snapshot())

    @property
    def ids(self) -> Ids:
        """Copy the ids of the newest snapshot by row, object [row_count]; None where the item was deleted."""
        return self.snapshot().ids

    @property
    def report(self) -> Mapping[str, Any]:
        """Return the report of the base."""
        return self.snapshot().report

    def search(
        self, queries: Any, k: int, *, allowed: Any | None = None, excluded: Sequence[Any] | None = None
    ) -> SearchResult:
        """Search the newest snapshot; see `Index.search`. Rows in `allowed` and `excluded` need a snapshot instead."""
        return self.snapshot().search(queries, k, allowed=allowed, excluded=excluded)

    def vectors(self, items: Any) -> Float32s:
        """Return vectors of the newest snapshot; see `Index.vectors`. Rows need a snapshot instead."""
        return self.snapshot().vectors(items)

    @property
    def set_aside(self) -> tuple[str, ...]:
        """Return the ids of items of another model's journal that were not encoded again; searches do not find them."""
        return tuple(self._changes.set_aside)

    @property
    def deleted(self) -> frozenset[str]:
        """Return the ids that were deleted and not upserted since, under any version of the index."""
        return frozenset(list(self._changes.deleted))

    @property
    def with_sources(self) -> list[str]:
        """Return the ids of the present items that can be encoded again."""
        return self.with_sources_since(-1)

    def with_sources_since(self, sequence: int) -> list[str]:
        """Return the ids of `with_sources` whose last change has a larger number."""
        now = self.snapshot()
        later = [name for name, number in list(self._changes.source_of.items()) if number > sequence]
        return [name for name in later if now.row(name) >= 0]

    @property
    def sequence(self) -> int:
        """Return the number of the last change."""
        return self._sequence

    @property
    def is_read_only(self) -> bool:
        """Tell whether another process makes the changes."""
        return self._storage is not None and self._storage.is_read_only

    def sources(self, ids: Sequence[str]) -> list[Any]:
        """Return the sources that items were upserted with, None without one.

        Also None: a change that `refresh` has not read yet has taken the source's place.

        Raises:
          ArtifactError: the journal is damaged; names the file.
        """
        if self._storage is None:
            return [None] * len(ids)
        return self._storage.sources(ids, [self._changes.source_of.get(name) for name in ids])

    # Changes

    def upsert(
        self,
        ids: Any,
        vectors: Any,
        *,
        sources: Sequence[Any] | None = None,
        in_step: Callable[[], None] | None = None,
    ) -> None:
        """Add items, or replace the vectors of items that are present; searchable at once.

        Args:
          ids: strings [items], unique.
          vectors: float [items, dim], or [items, entries of each, dim], as the index has them.
          sources: per item a JSON value that another model can encode it from (see `encode` of `open`), or None.
          in_step: quick; called when the change is on disk, at the moment when it can be searched.

        Raises:
          DataError: ids repeat, vectors are not finite or of another shape than the index's; nothing was changed.
          ArtifactError: the journal cannot be written, or the index is closed or read only; nothing was changed.
        """
        if not len(ids):
            return
        items = Items.checked(ids, vectors)
        self.snapshot().require_like(items)
        if sources is not None and len(sources) != len(items.ids):
            raise DataError(f"sources: expected one for each of {len(items.ids):,} items, found {len(sources):,}")
        names = tuple(items.ids.to_pylist())
        self._change("upsert", names, vectors=items.by_item, sources=sources, in_step=in_step)

    def delete(self, ids: Iterable[str], *, missing_ok: bool = False) -> int:
        """Remove items; they never return unless they are upserted again.

        Args:
          ids: strings; repeats count once.
          missing_ok: pass over ids that the index lacks.

        Returns:
          The number of removed items.

        Raises:
          DataError: an id is not in the index; names the first ones, and nothing was changed.
          ArtifactError: the journal cannot be written, or the index is closed or read only; nothing was changed.
        """
        if isinstance(ids, str):
            raise DataError(f"ids: expected a list of ids, found the text {ids!r}")
        return self._change("delete", tuple(dict.fromkeys(ids)), missing_ok=missing_ok)

    def _change(
        self,
        operation: Operation,
        names: tuple[str, ...],
        *,
        vectors: Float32s | None = None,
        sources: Sequence[Any] | None = None,
        missing_ok: bool = True,
        in_step: Callable[[], None] | None = None,
    ) -> int:
        """Write a change to the journal, then show it. Return the number of changed items."""
        with self._writing:
            now = self.snapshot()
            if self.is_read_only:
                raise ArtifactError("the index is open for reading alone; open it without read_only to change it")
            if operation == "delete":
                unknown = [name for name in names if now.row(name) < 0]
                if unknown and not missing_ok:
                    raise DataError(f"{len(unknown):,} of {len(names):,} ids are not in the index: {listed(unknown)}")
                names = tuple(name for name in names if now.row(name) >= 0)
                if not names:
                    return 0
            model = ""
            if self._storage:
                model = self._storage.fingerprint
                self._sequence = self._storage.append(operation, names, vectors=vectors, sources=sources)
            kept = None if sources is None else tuple(sources)
            self._apply(Record(self._sequence, model, operation, names, vectors, kept), in_step=in_step)
            return len(names)

    def _apply(self, record: Record, *, in_step: Callable[[], None] | None = None) -> None:
        """Make a change of the snapshot and show it; under the lock of the writers."""
        after = changed(self.snapshot(), record)
        if self._since is not None:
            self._since.append(record)
        self._changes.note(record)
        with self.in_step:
            if in_step:
                in_step()
            self._now = after

    # Maintenance

    def drift(self, *, k: int = 100, sample: int = 64) -> Drift:
        """Measure how far the items have moved from the built index; see `Drift` and `measure_drift`."""
        return measure_drift(self.snapshot(), k=k, sample=sample)

    def rebalance(self, *, progress: Callable[[str], None] | None = None) -> Drift:
        """Build a new base from all items, publish it as a version and compact the journal.

        Search and changes go on meanwhile. A crash leaves the version before or the new one, and the journal fits
        both. Needs memory for a second copy of the vectors.

        Returns:
          The rest of the drift: the changes during the build.

        Raises:
          ArtifactError: it cannot be written, another process published a version meanwhile (`refresh` takes it
            over), or the index is closed or read only.
          ConfigError: there are too few items for the shards.
          DataError: there is no item left to build from.
        """
        with self._maintaining:
            with self._writing:
                now, through = self.snapshot(), self._sequence
                source_of = {name: number for name, number in self._changes.source_of.items() if now.row(name) >= 0}
                if self.is_read_only:
                    raise ArtifactError("the index is open for reading alone; the process that writes it rebalances")
                self._since = []
            try:
                base = rebuilt(now, config=self._config, sample_queries=self._sample_queries, progress=progress)
                version = fingerprint = ""
                if self._storage:
                    queries = self._sample_queries
                    version = self._storage.publish(base, through=through, sample_queries=queries, source_of=source_of)
                    fingerprint = self._storage.fingerprint
                with self._writing:
                    self.snapshot()  # closed meanwhile?
                    self._now = replayed(base, self._since, fingerprint=fingerprint).snapshot
                    if self._storage:
                        self._storage.version = version
            finally:
                self._since = None
            if self._storage:
                self._storage.compact()
        return self.drift(sample=0)

    def refresh(self) -> bool:
        """Catch up with other processes: take a new current version as the base, with the journal on top.

        Returns:
          Whether there was a new version. A read-only index shows later upserts and deletes even if not.

        Raises:
          ArtifactError: the version or the journal is damaged or another model's; the index stays as it was.
        """
        if self._storage is None:
            return False
        with self._maintaining:
            self.snapshot()
            if not self._storage.has_new_version and (not self.is_read_only or self._catch_up(self._storage)):
                return False
            self._stand_on(self._storage.load(), self._storage)
            self._storage.compact_if_long()
            return True

    def tidy(self) -> bool:
        """Remove from a long journal the records that later changes of the same items made void.

        Items that change again and again never move the index far enough for `rebalance`, which compacts it too.

        Returns:
          Whether the journal was long.
        """
        with self._maintaining:
            self.snapshot()
            return self._storage is not None and self._storage.compact_if_long()

    def close(self) -> None:
        """Release the journal, after a rebalance under way. Snapshots stay; other calls say that it is closed."""
        with self._maintaining, self._writing:
            self._now = None
            if self._storage:
                self._storage.close()

    def __enter__(self) -> LivingIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _sample_queries(self) -> Any | None:
        """Return the queries to tune a new base with."""
        kept = self._storage.sample_queries if self._storage else None
        return kept if self._given_queries is None else self._given_queries

    def _stand_on(self, version: SavedVersion, storage: LivingStorage) -> None:
        """Show a version with the journal on top."""
        with self._writing:
            done = storage.stand_on(version)
            self._now, self._changes = done.snapshot, done.changes
            self._sequence = storage.journal.last_sequence

    @property
    def _journal(self) -> Journal | None:
        """Return the journal; None of an index in memory alone."""
        return self._storage.journal if self._storage else None

    def _catch_up(self, storage: LivingStorage) -> bool:
        """Show the changes that the writer has made since the last look: all of them, or after an error none.

        Returns:
          Whether they could be applied to this version. Vectors of another model, whose version comes next, cannot.
        """
        with self._writing:
            news, after = storage.news(after=self._sequence), self.snapshot()
            if any(record.model != storage.fingerprint for record in news):
                return False
            for record in news:
                after = changed(after, record)
            for record in news:
                self._changes.note(record)
            self._now = after
            self._sequence = news[-1].sequence if news else self._sequence
        return True
