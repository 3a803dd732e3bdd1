"""A living index: items come, change and go while it is searched, and a crash loses nothing that was acknowledged.

Why not ScaNN's own upserts: it puts a new item into partitions that were learned without it, and finds .47 to .73 of
what came from new clusters until it is rebalanced. Here what came later is a small part of its own that is compared
exactly: all of it is found, for as many multiplications per query as it has numbers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recall.config.index import IndexConfig
from recall.core.arrays import Float32s
from recall.core.errors import ArtifactError, DataError
from recall.index.base import Index
from recall.index.build.build import build_index
from recall.index.items import Items, listed
from recall.index.living.drift import Drift, measure_drift
from recall.index.living.journal import Journal
from recall.index.living.journal_format import Record
from recall.index.living.replay import Encode, Replayed, replayed
from recall.index.living.snapshot import LivingSnapshot
from recall.index.living.view import View
from recall.index.saved.store import SavedVersion, load_current, save_index
from recall.index.saved.versions import current_version
from recall.index.shards import ShardedIndex

_LOGGER = logging.getLogger(__name__)
_JOURNAL = "journal"
_OF_A_BUILD = ("reason", "measured", "tuning", "shards")  # what a report says of how the index was built


class LivingIndex(View):
    """An index with `upsert` and `delete`, searched by any number of threads meanwhile.

    A search reads one attribute, the newest snapshot, and never waits; changes are made one after another. What
    `upsert` and `delete` return from is on disk. Answers are those of `Index.search` over what was there at one moment
    between its beginning and its end.

    Rows belong to a moment: who asks for rows, or makes a mask of them, takes a `snapshot()` and searches that. What is
    known of items beside their vectors keeps step with them: a change shows both while it holds `in_step`, and who
    takes a snapshot and reads the rest while holding it finds both as they were, or both as they are.

    `LivingIndex.open` is the way to a saved one; the constructor makes one that lives in memory alone.

    Args:
      base: a built index.
      config: how `rebalance` builds; default: as the base is built.
    """

    def __init__(self, base: Index, *, config: IndexConfig | None = None) -> None:
        self._config = config or _config_like(base)
        self._now: LivingSnapshot | None = LivingSnapshot.over(base)
        self.in_step = threading.RLock()
        self._writing = threading.Lock()
        self._maintaining = threading.Lock()  # one rebalance or refresh at a time
        self._since: list[Record] | None = None  # what happened while a base is being built
        self._journal: Journal | None = None
        self._directory: Path | None = None
        self._version, self._fingerprint, self._sequence = "", "", 0
        self._encode: Encode | None = None
        self._given_queries: Any | None = None
        self._version_queries: Any | None = None
        self._replayed = Replayed()
        self._is_read_only = False
        self._extent: tuple[tuple[str, int], ...] | None = None  # of a journal that was read

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
        """The current version of a saved index, and on top of it what its journal holds.

        Changes that were made under another model's version: deletes are applied; items that the version holds are as
        it has them; others are encoded again, or set aside (see `set_aside`).

        Args:
          directory: where `save_index` put it; the journal is in journal/ there.
          fingerprint: of the model whose queries will be asked; None takes the version's.
          read_only: do not take the lock. `refresh` shows what the writer did since.
          config: how `rebalance` builds; default: as the base is built.
          encode: makes vectors of the model from sources (see `upsert`) and the report of the base.
          sample_queries: float [queries, dim] to tune a new base with. Without: those that the version keeps, or else
            perturbed item vectors.

        Raises:
          ArtifactError: no index, damage to it or to the journal, another model's, or another writer has it open.
        """
        journal = Journal(Path(directory) / _JOURNAL, writable=not read_only)
        try:
            version = load_current(directory, fingerprint=fingerprint)
            index = cls(version.index, config=config)
            index._directory, index._journal, index._is_read_only = Path(directory), journal, read_only
            index._encode = encode
            index._given_queries = sample_queries
            index._fingerprint = version.fingerprint
            index._stand_on(version)
        except BaseException:
            journal.close()
            raise
        return index

    # What it holds

    def snapshot(self) -> LivingSnapshot:
        """What it holds now; stays as it is and may be searched for ever, whatever happens to the index."""
        now = self._now
        if now is None:
            raise ArtifactError("the index is closed; open it again with LivingIndex.open")
        return now

    @property
    def set_aside(self) -> tuple[str, ...]:
        """Items that another model's journal holds and nothing could be encoded from; they are not searched."""
        return tuple(self._replayed.set_aside)

    @property
    def deleted(self) -> frozenset[str]:
        """Ids that were deleted and not upserted since, whatever version the index stands on."""
        return frozenset(list(self._replayed.deleted))

    @property
    def with_sources(self) -> list[str]:
        """Ids of the items that it holds and that can be encoded again."""
        now = self.snapshot()
        return [name for name in list(self._replayed.source_of) if now.row(name) >= 0]

    def with_sources_since(self, sequence: int) -> list[str]:
        """Those of `with_sources` that a change after some number came with."""
        return [name for name in self.with_sources if (self._replayed.source_of.get(name) or 0) > sequence]

    @property
    def sequence(self) -> int:
        """Number of the last change."""
        return self._sequence

    @property
    def is_read_only(self) -> bool:
        """Whether another process makes the changes."""
        return self._is_read_only

    def sources(self, ids: Sequence[str]) -> list[Any]:
        """What items were upserted with to be encoded again, None for those without."""
        numbers = [self._replayed.source_of.get(name) for name in ids]
        found: dict[str, Any] = {}
        for number in sorted({number for number in numbers if number is not None}):  # an id's own record is its last
            record = self._journal.record(number) if self._journal else None
            if record and record.sources:
                found.update(zip(record.ids, record.sources, strict=True))
        return [found.get(name) if number else None for name, number in zip(ids, numbers, strict=True)]

    # Changes

    def upsert(
        self,
        ids: Any,
        vectors: Any,
        *,
        sources: Sequence[Any] | None = None,
        in_step: Callable[[], None] | None = None,
    ) -> None:
        """Adds items, or replaces the vectors of those that it holds; searchable at once.

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
        now = self.snapshot()
        if (items.entries_per_item, items.vectors.shape[1]) != (now.entries_per_item, now.dim):
            raise DataError(
                f"vectors: expected {now.entries_per_item} of {now.dim} dimensions per item, found "
                f"{items.entries_per_item} of {items.vectors.shape[1]}; they must come from the model of the index"
            )
        if sources is not None and len(sources) != len(items.ids):
            raise DataError(f"sources: expected one for each of {len(items.ids):,} items, found {len(sources):,}")
        names = tuple(items.ids.to_pylist())
        self._change("upsert", names, vectors=items.by_item, sources=sources, in_step=in_step)

    def delete(self, ids: Iterable[str], *, missing_ok: bool = False) -> int:
        """Removes items; they never return unless they are upserted again.

        Args:
          ids: strings; repeats count once.
          missing_ok: pass over ids that the index lacks.

        Returns:
          How many were removed.

        Raises:
          DataError: an id is not in the index; names the first ones, and nothing was changed.
          ArtifactError: the journal cannot be written, or the index is closed or read only; nothing was changed.
        """
        if isinstance(ids, str):
            raise DataError(f"ids: expected a list of ids, found the text {ids!r}")
        return self._change("delete", tuple(dict.fromkeys(ids)), missing_ok=missing_ok)

    def _change(
        self,
        operation: Any,
        names: tuple[str, ...],
        *,
        vectors: Float32s | None = None,
        sources: Sequence[Any] | None = None,
        missing_ok: bool = True,
        in_step: Callable[[], None] | None = None,
    ) -> int:
        with self._writing:
            now = self.snapshot()
            if self._is_read_only:
                raise ArtifactError("the index is open for reading alone; open it without read_only to change it")
            if operation == "delete":
                unknown = [name for name in names if now.row(name) < 0]
                if unknown and not missing_ok:
                    raise DataError(f"{len(unknown):,} of {len(names):,} ids are not in the index: {listed(unknown)}")
                names = tuple(name for name in names if now.row(name) >= 0)
                if not names:
                    return 0
            if self._journal:
                self._sequence = self._journal.append(
                    operation, names, model=self._fingerprint, vectors=vectors, sources=sources
                )
            kept = None if sources is None else tuple(sources)
            record = Record(self._sequence, self._fingerprint, operation, names, vectors, kept)
            self._apply(record, in_step=in_step)
            return len(names)

    def _apply(self, record: Record, *, in_step: Callable[[], None] | None = None) -> None:
        now = self.snapshot()
        if self._since is not None:
            self._since.append(record)
        self._replayed.note(record)
        if record.vectors is None:
            rows = [now.row(name) for name in record.ids]  # a reader may have missed what was compacted away
            after = now.deleted(np.asarray([row for row in rows if row >= 0], np.int32))
        else:
            after = now.upserted(record.ids, record.vectors.reshape(len(record.ids), -1, now.dim))
        with self.in_step:
            if in_step:
                in_step()
            self._now = after

    # Maintenance

    def drift(self, *, k: int = 100, sample: int = 64) -> Drift:
        """How far it has moved from what was built; see `Drift` and `measure_drift`."""
        return measure_drift(self.snapshot(), k=k, sample=sample)

    def rebalance(self, *, progress: Callable[[str], None] | None = None) -> Drift:
        """Builds a new base from all items, publishes it as a version and compacts the journal.

        Search and changes go on meanwhile. A crash leaves the version before or the new one, and the journal fits
        both. Needs memory for a second copy of the vectors.

        Returns:
          What is left of the drift: what came during the build.

        Raises:
          ArtifactError: it cannot be written, another process published a version meanwhile (after which the index
            stands on that one), or the index is closed or read only.
          ConfigError: there are too few items for the shards.
          DataError: there is no item left to build from.
        """
        with self._maintaining:
            with self._writing:
                now, through = self.snapshot(), self._sequence
                if self._is_read_only:
                    raise ArtifactError("the index is open for reading alone; the process that writes it rebalances")
                self._since = []
            try:
                base = self._built(now, progress=progress)
                if self._directory is not None:
                    version = save_index(
                        base,
                        self._directory,
                        fingerprint=self._fingerprint,
                        journal_through=through,
                        replaces=self._version,
                        sample_queries=self._sample_queries,
                    ).name
                with self._writing:
                    self.snapshot()  # closed meanwhile?
                    done = replayed(base, self._since, fingerprint=self._fingerprint)
                    self._now = done.snapshot
                    if self._directory is not None:
                        self._version = version
            finally:
                self._since = None
            if self._journal:
                self._journal.compact()
        return self.drift(sample=0)

    def refresh(self) -> bool:
        """Catches up with other processes: a new current version becomes the base, with the journal on top.

        Returns:
          Whether there was a new version. A read-only index sees what was upserted and deleted even if not.

        Raises:
          ArtifactError: the version is damaged or another model's; the index stays as it was.
        """
        if self._directory is None:
            return False
        with self._maintaining:
            self.snapshot()
            if current_version(self._directory).name == self._version:
                if self._is_read_only:
                    self._catch_up()
                return False
            self._stand_on(load_current(self._directory, fingerprint=self._fingerprint))
            self._compact_if_long()
            return True

    def tidy(self) -> bool:
        """Drops from a long journal what later changes of the same items made void.

        Items that change again and again never move the index far enough for `rebalance`, which compacts it too.

        Returns:
          Whether the journal was long.
        """
        with self._maintaining:
            self.snapshot()
            return self._compact_if_long()

    def close(self) -> None:
        """Lets go of the journal, after a rebalance under way. Snapshots stay; all else says that it is closed."""
        with self._maintaining, self._writing:
            self._now = None
            if self._journal:
                self._journal.close()

    def __enter__(self) -> LivingIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _sample_queries(self) -> Any | None:
        return self._version_queries if self._given_queries is None else self._given_queries

    def _stand_on(self, version: SavedVersion) -> None:
        assert self._journal is not None
        with self._writing:
            done = replayed(
                version.index,
                self._journal.records(),
                contained=version.journal_through,
                fingerprint=version.fingerprint,
                encode=self._encode,
            )
            self._journal.begin_after(version.journal_through)
            self._now, self._replayed, self._version = done.snapshot, done, version.name
            self._version_queries = version.sample_queries
            self._sequence = self._journal.last_sequence

    def _compact_if_long(self) -> bool:
        if self._journal is None or self._is_read_only or not self._journal.is_long:
            return False
        try:
            self._journal.compact()
        except ArtifactError as error:  # it is as it was, and nothing but space and time depends on it
            _LOGGER.warning("the journal was not compacted: %s", error)
        return True

    def _catch_up(self) -> None:
        assert self._journal is not None
        with self._writing:
            if (extent := self._journal.extent) == self._extent:
                return
            for record in self._journal.records(after=self._sequence):
                self._apply(record)
                self._sequence = record.sequence
            self._extent = extent  # as it was before it was read: what came during that is read next time

    def _built(self, now: LivingSnapshot, *, progress: Callable[[str], None] | None) -> Index:
        rows = np.flatnonzero(now.is_alive)
        if not rows.size:
            raise DataError("rebalance: every item was deleted; an index needs one at least")
        base = build_index(
            now.names[rows].tolist(),
            now.vectors(rows),
            config=self._config,
            sample_queries=self._sample_queries,
            progress=progress,
        )
        kept = {name: fact for name, fact in now.report.items() if name not in _OF_A_BUILD}  # e.g. the cold bias
        base.report = {**kept, **base.report}
        return base


def _config_like(base: Index) -> IndexConfig:
    """The `index` section that builds an index of the same kind."""
    if isinstance(base, ShardedIndex):
        kinds = {shard.index.kind for shard in base.shards}
        return IndexConfig(kind="auto" if len(kinds) > 1 else _kind(kinds.pop()), shards=base.count)
    return IndexConfig(kind=_kind(base.kind))


def _kind(kind: str) -> Any:
    return "scann" if kind == "scann" else "exact"
