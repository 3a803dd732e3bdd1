"""Keeps a living index on disk: the saved version that it is based on, and the journal of the changes since."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recall.core.arrays import Float32s
from recall.core.errors import ArtifactError
from recall.index.base import Index
from recall.index.living.journal import Extent, Journal
from recall.index.living.journal_format import Operation, Record
from recall.index.living.promise import OtherJournalError
from recall.index.living.replay import Encode, Replayed, replayed
from recall.index.saved.store import SavedVersion, load_current, save_index
from recall.index.saved.versions import current_version

_LOGGER = logging.getLogger(__name__)
JOURNAL, PROMISE = "journal", "ACKNOWLEDGED"


class LivingStorage:
    """Read and write the files of one living index.

    Args:
      directory: where `save_index` put the index; the journal is in journal/ there, its promise in ACKNOWLEDGED.
      fingerprint: of the model whose queries will be asked; None takes the first loaded version's.
      read_only: do not take the lock of the journal.
      encode: see `replayed`.

    Attributes:
      journal: the journal.
      version: number of the version that the index is based on.
      sample_queries: queries that this version keeps, see `SavedVersion`.

    Raises:
      ArtifactError: the journal is damaged, or another writer has it open.
    """

    def __init__(
        self, directory: str | Path, *, fingerprint: str | None, read_only: bool, encode: Encode | None
    ) -> None:
        self._directory, self._fingerprint, self._encode = Path(directory), fingerprint, encode
        self.journal = Journal(self._directory / JOURNAL, writable=not read_only, promise=self._directory / PROMISE)
        self.is_read_only = read_only
        self.version = ""
        self.sample_queries: Float32s | None = None
        self._sources: Mapping[str, Any] = {}  # that the version keeps and the journal does not
        self._read: tuple[Extent, int] | None = None  # extent and last number of the journal when it was read last

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the model that made the vectors; empty before a version was loaded."""
        return self._fingerprint or ""

    @property
    def has_new_version(self) -> bool:
        """Tell whether another version is current by now."""
        return current_version(self._directory).name != self.version

    def load(self) -> SavedVersion:
        """Read the current version.

        Raises:
          ArtifactError: there is none, it is damaged or another model's.
        """
        return load_current(self._directory, fingerprint=self._fingerprint)

    def stand_on(self, version: SavedVersion) -> Replayed:
        """Apply the journal to a version, and base the index on it from now on.

        Raises:
          ArtifactError: the journal is damaged or belongs to another index.
        """
        done = replayed(
            version.index,
            self.journal.records(),
            contained=version.journal_through,
            kept=version.sources,
            fingerprint=version.fingerprint,
            encode=self._encode,
        )
        self.journal.begin_after(version.journal_through)
        self.version, self.sample_queries = version.name, version.sample_queries
        self._sources = {name: (version.sources or {})[name] for name in done.changes.kept}
        self._fingerprint = version.fingerprint
        return done

    def publish(self, base: Index, *, through: int, sample_queries: Any | None, source_of: Mapping[str, int]) -> str:
        """Save a new base as the current version and return its number, which `version` is to become.

        Args:
          base: built from the index's items.
          through: sequence number of the last change that it contains.
          sample_queries: float [queries, dim], kept beside it.
          source_of: numbers of the records with the sources of its items, by id; the sources are kept beside it.

        Raises:
          ArtifactError: it cannot be written, or another process published a version meanwhile.
        """
        found = self.sources(list(source_of), list(source_of.values()))
        return save_index(
            base,
            self._directory,
            fingerprint=self.fingerprint,
            journal_through=through,
            replaces=self.version,
            sample_queries=sample_queries,
            sources={name: own for name, own in zip(source_of, found, strict=True) if own is not None},
        ).name

    def append(
        self, operation: Operation, ids: Sequence[str], *, vectors: Float32s | None, sources: Sequence[Any] | None
    ) -> int:
        """Write a change to the journal and return its sequence number; see `Journal.append`."""
        return self.journal.append(operation, ids, model=self.fingerprint, vectors=vectors, sources=sources)

    def sources(self, ids: Sequence[str], numbers: Sequence[int | None]) -> list[Any]:
        """Read the sources of items from the records of some numbers; see `LastChanges.source_of`."""
        found: dict[str, Any] = {}
        for number in sorted({number for number in numbers if number}):  # an id's own record is its last
            record = self.journal.record(number)
            if record and record.sources:
                found.update(zip(record.ids, record.sources, strict=True))
        return [
            None if number is None else found.get(name) if number else self._sources.get(name)
            for name, number in zip(ids, numbers, strict=True)
        ]

    def news(self, *, after: int) -> list[Record]:
        """Read the records that another process has appended after a number, if the files changed since last time.

        Raises:
          ArtifactError: the journal is damaged, or another one has taken its place.
        """
        extent = self.journal.extent
        if self._read == (extent, after):
            return []
        records = list(self.journal.records(after=after))
        if self.journal.last_sequence < after:
            raise OtherJournalError(
                f"{self.journal.directory}: ends at record {self.journal.last_sequence:,} by now, and at {after:,} "
                "before: another journal has taken its place; open the index again"
            )
        # The extent is as it was before it was read: what came during that is read next time, and so are these records
        # if the caller does not go on from the last of them.
        self._read = (extent, self.journal.last_sequence)
        return records

    def compact(self) -> None:
        """Compact the journal; see `Journal.compact`."""
        self.journal.compact()

    def compact_if_long(self) -> bool:
        """Compact a long journal that this process writes; log a failure. Return whether the journal was long."""
        if self.is_read_only or not self.journal.is_long:
            return False
        try:
            self.journal.compact()
        except ArtifactError as error:  # it is as it was, and nothing but space and time depends on it
            _LOGGER.warning("the journal was not compacted: %s", error)
        return True

    def close(self) -> None:
        """Release the journal; may be called again."""
        self.journal.close()
