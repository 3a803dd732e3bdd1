"""Keeps every upsert and delete on disk before it is acknowledged, in a directory of checksummed records.

DIR/lock         held by the one process that writes
DIR/*            the other files: see `journal_files.py`

A record that the end of the last segment cuts off was never acknowledged (a crash came first), and opening for writing
removes it. Any other record that does not match its checksums, or does not follow its predecessor, is damage, and so is
an end before the last acknowledged record (see `promise.py`): the journal is refused rather than shortened, since an
acknowledged change may have stood there.

`journal_format.py` defines a record, `segment_writer.py` appends it, `compaction.py` removes what later records made
void, `replay.py` applies records when an index is opened.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recall.core.arrays import Float32s
from recall.core.errors import ArtifactError, DataError
from recall.index.living.compaction import write_compacted
from recall.index.living.journal_files import COMPACTED, SEGMENT, JournalFiles
from recall.index.living.journal_format import REMEDY, Operation, Record, framed, record_at
from recall.index.living.journal_scan import JournalScan, Places, Tail
from recall.index.living.promise import OtherJournalError, PromiseFile
from recall.index.living.segment_writer import SegmentWriter, not_written
from recall.index.living.writer_lock import WriterLock

LOCK, SCRATCH = "lock", ".compacting"
_MOST_BYTES = 1 << 30  # of a record, which is held in memory
_LONG_BYTES = 1 << 20
_ATTEMPTS = 10


Extent = tuple[tuple[str, int, int], ...]
"""Names, sizes and times (ns) of a journal's files."""


class Journal:
    """Append and read records, for one writer and any number of readers.

    Threads of the writer may share it.

    Args:
      directory: created by a writer.
      writable: take the lock, and remove what a crash left of a record.
      promise: file that says how many records have to be there; None keeps none.

    Attributes:
      directory: as the argument.
      last_sequence: number of the last record.

    Raises:
      ArtifactError: another process writes it, or it is damaged; names the file.
    """

    def __init__(self, directory: str | Path, *, writable: bool, promise: Path | None = None) -> None:
        self.directory = Path(directory)
        self._files = JournalFiles(self.directory)
        self._writer = SegmentWriter(self._files)
        self._promise = PromiseFile(promise)
        self._identity: str | None = None  # of the journal that was read first
        self._changing = threading.RLock()
        self._compacting = threading.Lock()
        self._places: Places = {}  # of records with sources
        self._tail: Tail | None = None
        self.last_sequence = 0
        self._lock = WriterLock(self.directory / LOCK) if writable else None
        try:
            for _ in self._scan(after=0):
                pass
            if writable:
                self._resume()
        except OSError as error:
            self.close()
            raise not_written(self.directory, error) from error
        except BaseException:
            self.close()
            raise

    @property
    def is_writable(self) -> bool:
        """Tell whether it was opened for writing."""
        return self._lock is not None

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """Yield the records with larger sequence numbers, in order, with those that another process has appended.

        Raises:
          ArtifactError: the journal is damaged; names the file. Records that were yielded before it count for nothing.
        """
        with self._changing:
            yield from self._scan(after=after)

    @property
    def extent(self) -> Extent:
        """Return names, sizes and times of the files; they differ once another process has appended or compacted."""
        return tuple((path.name, size, changed_ns) for path, size, changed_ns in self._files.states())

    def record(self, sequence: int) -> Record | None:
        """Read the record of a number; it holds the items alone that no later record names.

        Returns:
          The record; None if it has no sources, or later records, which `records` gives, have taken its place.

        Raises:
          ArtifactError: it is damaged, or another process changes the files too fast.
        """
        with self._changing:
            for _ in range(_ATTEMPTS):
                if (place := self._places.get(sequence)) is None:
                    return None
                try:
                    return record_at(*place)
                except FileNotFoundError as error:
                    if self.is_writable:
                        raise ArtifactError(f"{place[0]}: is missing; {REMEDY}") from error
                for _ in self._scan(after=self.last_sequence):  # another process compacted it away: where is it now?
                    pass
        raise ArtifactError(f"{self.directory}: its files change faster than they can be read; try again")

    def append(
        self,
        operation: Operation,
        ids: Sequence[str],
        *,
        model: str,
        vectors: Float32s | None = None,
        sources: Sequence[Any] | None = None,
    ) -> int:
        """Write a record through to the disk and return its sequence number.

        Args:
          operation: `upsert` or `delete`.
          ids: of the items.
          model: fingerprint of the model that made the vectors.
          vectors: float32 [items, dim] or [items, entries of each, dim] of an upsert.
          sources: see `Record`.

        Raises:
          ArtifactError: the disk is full or cannot be written, or the journal is closed or read only; the journal is
            as it was.
          DataError: the record is too long for one.
        """
        with self._changing:
            self._require_writable()
            kept = None if sources is None else tuple(sources)
            record = Record(self.last_sequence + 1, model, operation, tuple(ids), vectors, kept)
            frame = framed(record.payload())
            if len(frame) > _MOST_BYTES:
                raise DataError(f"{len(ids):,} items take {len(frame):,} bytes; give fewer at a time")
            try:
                self._begin_promise()
            except OSError as error:
                raise not_written(self.directory, error) from error
            place = self._writer.append(record.sequence, frame)
            self._promise.note(record.sequence)
            if record.sources is not None:
                self._places[record.sequence] = place
            self.last_sequence = record.sequence
            return record.sequence

    def begin_after(self, sequence: int) -> None:
        """Require the records that a version of the index contains, or their absence on purpose (`new_journal`).

        Raises:
          ArtifactError: the journal ends before that number: it is gone, or belongs to another index.
        """
        if self.last_sequence >= sequence:
            return
        if not self._files.present():
            raise ArtifactError(
                f"{self.directory}: holds no records, but the version of the index contains the changes up to number "
                f"{sequence:,} of a journal, and later ones would be lost; {REMEDY}"
            )
        raise ArtifactError(
            f"{self.directory}: ends at record {self.last_sequence:,}, but the index already contains "
            f"{sequence:,} records; this is an older journal or that of another index: {REMEDY}"
        )

    @property
    def is_long(self) -> bool:
        """Tell whether compacting is worth while: more was appended since the last time than was left then.

        All in all, compacting then costs no more than the writing did.
        """
        with self._changing:
            sizes = self._files.sizes()
        compacted = sum(size for path, size in sizes if path.suffix == COMPACTED)
        return sum(size for _, size in sizes) - compacted > max(compacted, _LONG_BYTES)

    def compact(self) -> None:
        """Keep only the last record of every id. Appending goes on; a crash leaves the old files or the new ones.

        The last record of an id is kept even when some version of the index contains it: another version, made from
        the catalogue, does not.

        Raises:
          ArtifactError: the disk is full or cannot be written; the journal is as it was.
        """
        with self._compacting:
            with self._changing:
                self._require_writable()
                self._writer.close()
                through, old = self.last_sequence, self._files.present()
            if not old or (len(old) == 1 and old[0].suffix == COMPACTED):
                return
            path = self._files.compacted_path(through)
            scratch = self.directory / SCRATCH
            try:
                places = write_compacted(old, scratch, through=through)
                with self._changing:
                    self._require_writable()  # closed meanwhile, and perhaps opened by another process?
                    os.replace(scratch, path)
                    self._files.sync()
                    self._files.write_list()  # before any file goes: a listed file has to be present or compacted
                    later = {sequence: place for sequence, place in self._places.items() if sequence > through}
                    self._places = {**{sequence: (path, start) for sequence, start in places.items()}, **later}
                    self._files.remove_replaced()
            except OSError as error:
                raise ArtifactError(
                    f"{path}: could not be written ({error}); the journal is as it was. Free some space, then try again"
                ) from error
            finally:
                scratch.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files and release the lock; may be called again."""
        with self._changing:
            self._writer.close()
            self._promise.close()
            if self._lock is not None:
                self._lock.release()

    def _scan(self, *, after: int) -> Iterator[Record]:
        """Yield all records after a number; at the end note the last number and the places of records with sources."""
        promise = self._promise.read()  # before the files, which hold by then what it promises
        if promise is not None:
            if self._identity is not None and promise.journal != self._identity:
                raise OtherJournalError(f"{self.directory}: another journal has taken its place; open the index again")
            self._identity = promise.journal
        scan = JournalScan(self._files, promise)
        for record in scan:
            if record.sequence > after:
                yield record
        self._places, self._tail, self.last_sequence = scan.places, scan.tail, scan.last

    def _resume(self) -> None:
        """Continue the last segment, remove what a crash left, and vouch for files of an earlier release.

        Raises:
          OSError: what a crash left cannot be removed.
        """
        if self._tail is not None:
            self._writer.resume(self._tail.path, end=self._tail.end, size=self._tail.size)
        self._files.remove_replaced()
        (self.directory / SCRATCH).unlink(missing_ok=True)
        present = self._files.present()
        with contextlib.suppress(OSError):  # a full disk; the first append needs it, and says so
            if present and self._files.listed() is None:
                self._files.write_list()
            if present:
                self._begin_promise()

    def _begin_promise(self) -> None:
        """Promise the records that are there, before a further one is written.

        Raises:
          OSError: the promise cannot be written.
        """
        if self._promise.is_open:
            return
        present = self._files.present()
        # Of a journal whose first segments were compacted before anybody promised, the beginning is not asked for.
        starts_at = int(present[0].stem) if present and present[0].suffix == SEGMENT else self.last_sequence + 1
        first = 0 if present and present[0].suffix == COMPACTED else starts_at - 1
        self._promise.begin(begins_after=first, acknowledged=self.last_sequence)

    def _require_writable(self) -> None:
        """Raise an error if nothing can be appended."""
        if self._lock is None or not self._lock.is_held or self._writer.is_broken:
            state = "closed" if self.is_writable else "open for reading alone"
            state = "in doubt after a write that failed" if self._writer.is_broken else state
            raise ArtifactError(f"{self.directory}: the journal is {state}; open the index again, writable")
        if not self._lock.is_in_place:
            raise ArtifactError(
                f"{self.directory / LOCK}: was removed or replaced while this process held it, so that another may "
                "write by now; open the index again"
            )
