"""Keeps every upsert and delete on disk before it is acknowledged, in a directory of checksummed records.

DIR/lock         held by the one process that writes
DIR/*            the other files: see `journal_files.py`

A record that the end of the last segment cuts off was never acknowledged (a crash came first), and opening for writing
removes it. Any other record that does not match its checksums, or does not follow its predecessor, is damage: the
journal is refused rather than shortened, since an acknowledged change may stand there. (A last segment that somebody
cuts short looks as after a crash: it opens with the records before the cut.)

`journal_format.py` defines a record, `segment_writer.py` appends it, `replay.py` applies it when an index is opened.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recall.core.arrays import Float32s
from recall.core.errors import ArtifactError, DataError
from recall.index.living.journal_files import COMPACTED, SEGMENT, JournalFiles
from recall.index.living.journal_format import (
    REMEDY,
    Operation,
    Record,
    compacted_records,
    compaction_head,
    framed,
    record_at,
    segment_records,
)
from recall.index.living.segment_writer import SegmentWriter

_LOCK = "lock"
_MOST_BYTES = 1 << 30  # of a record, which is held in memory
_LONG_BYTES = 1 << 20

Places = dict[int, tuple[Path, int]]
"""File and first byte of records, by sequence number."""


class Journal:
    """Append and read records, for one writer and any number of readers.

    Threads of the writer may share it.

    Args:
      directory: created by a writer.
      writable: take the lock, and remove what a crash left of a record.

    Raises:
      ArtifactError: another process writes it, or it is damaged; names the file.
    """

    def __init__(self, directory: str | Path, *, writable: bool) -> None:
        self.directory, self.is_writable = Path(directory), writable
        self._files = JournalFiles(self.directory)
        self._writer = SegmentWriter(self._files)
        self._changing = threading.RLock()
        self._compacting = threading.Lock()
        self._places: Places = {}  # of records with sources
        self._lock_file: int | None = None
        self.last_sequence = 0
        if writable:
            self._take_lock()
        try:
            for _ in self._scan(after=0, resume=writable):
                pass
        except BaseException:
            self.close()
            raise

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """Yield the records with larger sequence numbers, in order, with those that another process has appended.

        Raises:
          ArtifactError: the journal is damaged; names the file.
        """
        with self._changing:
            yield from self._scan(after=after, resume=False)

    @property
    def extent(self) -> tuple[tuple[str, int], ...]:
        """Return names and sizes of the files; they differ once another process has appended or compacted."""
        return tuple((path.name, size) for path, size in self._files.sizes())

    def record(self, sequence: int) -> Record | None:
        """Read the record of a number, None if it has no sources."""
        with self._changing:
            if sequence not in self._places:
                return None
            path, offset = self._places[sequence]
            return record_at(path, offset)

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
            place = self._writer.append(record.sequence, frame)
            if record.sources is not None:
                self._places[record.sequence] = place
            self.last_sequence = record.sequence
            return record.sequence

    def begin_after(self, sequence: int) -> None:
        """Let the numbers of an empty journal begin after the last record that a version of the index contains.

        Raises:
          ArtifactError: the journal has records and ends before that number: it belongs to another index.
        """
        if self.last_sequence < sequence and self.last_sequence > 0:
            raise ArtifactError(
                f"{self.directory}: ends at record {self.last_sequence:,}, but the index already contains "
                f"{sequence:,} records; this is an older journal or that of another index: {REMEDY}"
            )
        self.last_sequence = max(self.last_sequence, sequence)

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
            scratch = self.directory / ".compacting"
            last_of = _last_of(old)
            try:
                places = _write_compacted(old, scratch, last_of=last_of, through=through)
                with self._changing:
                    os.replace(scratch, path)
                    self._files.sync()
                    self._files.write_list()  # before any file goes: a listed file has to be present or compacted
                    later = {sequence: place for sequence, place in self._places.items() if sequence > through}
                    self._places = {**{sequence: (path, start) for sequence, start in places.items()}, **later}
                    for file in old:
                        if file != path:
                            file.unlink()
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
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None

    def _scan(self, *, after: int, resume: bool) -> Iterator[Record]:
        """Yield all records after a number; note the last number and the places of records with sources.

        Args:
          after: sequence number.
          resume: let the writer continue the last segment.
        """
        with self._files.opened() as files:
            expected: int | None = None
            for path, stream in files:
                is_last = path == files[-1][0]
                if path.suffix == COMPACTED:
                    parts = compacted_records(path, stream.read())
                    expected = int(path.stem) + 1
                else:
                    first = int(path.stem)
                    if expected is not None and first != expected:
                        raise ArtifactError(
                            f"{path}: begins at record {first:,}, expected {expected:,}: a file of the journal is "
                            f"missing or cut off; {REMEDY}"
                        )
                    expected, parts = first, self._segment(path, stream.read(), is_last=is_last, resume=resume)
                for offset, record in parts:
                    if path.suffix == SEGMENT:
                        expected = record.sequence + 1
                    if record.sources is not None:
                        self._places[record.sequence] = (path, offset)
                    self.last_sequence = max(self.last_sequence, record.sequence)
                    if record.sequence > after:
                        yield record
            if expected is not None:
                self.last_sequence = max(self.last_sequence, expected - 1)

    def _segment(self, path: Path, data: bytes, *, is_last: bool, resume: bool) -> Iterator[tuple[int, Record]]:
        """Yield the records of a segment with the byte where each begins."""
        end = 0  # of the last whole record
        for start, end, record in segment_records(path, data, may_be_torn=is_last):  # noqa: B007
            yield start, record
        if resume and is_last:
            self._writer.resume(path, end=end, size=len(data))

    def _take_lock(self) -> None:
        """Take the lock of the one writer, without waiting."""
        path = self.directory / _LOCK
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock_file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ArtifactError(
                f"{path}: is held by another writer of this index; close that one first, or open this one read only"
            ) from None
        except OSError as error:
            self.close()
            raise ArtifactError(f"{path}: could not be written ({error}); open the index read only") from error

    def _require_writable(self) -> None:
        """Raise an error if nothing can be appended."""
        if self._lock_file is None or self._writer.is_broken:
            state = "closed" if self.is_writable else "open for reading alone"
            state = "in doubt after a write that failed" if self._writer.is_broken else state
            raise ArtifactError(f"{self.directory}: the journal is {state}; open the index again, writable")


def _last_of(files: Sequence[Path]) -> dict[str, int]:
    """Return the sequence number of the last record of every id in some files, which are in order."""
    last_of: dict[str, int] = {}
    for record in _records_of(files):
        last_of.update(dict.fromkeys(record.ids, record.sequence))
    return last_of


def _write_compacted(
    files: Sequence[Path], target: Path, *, last_of: Mapping[str, int], through: int
) -> dict[int, int]:
    """Write the last record of every id in some files to another file, and through to the disk.

    Args:
      files: complete files of the journal, in order.
      target: file to write.
      last_of: see `_last_of`.
      through: last sequence number in `files`.

    Returns:
      The byte where each record with sources begins, by sequence number.
    """
    places: dict[int, int] = {}
    with target.open("wb") as stream:
        stream.write(compaction_head(through=through, records=len(set(last_of.values()))))
        for record in _records_of(files):
            own = [place for place, name in enumerate(record.ids) if last_of[name] == record.sequence]
            if not own:
                continue
            if record.sources is not None:
                places[record.sequence] = stream.tell()
            stream.write(framed(record.take(own).payload()))
        stream.flush()
        os.fsync(stream.fileno())
    return places


def _records_of(files: Sequence[Path]) -> Iterator[Record]:
    """Yield the records of files that do not change any more."""
    for path in files:
        data = path.read_bytes()
        if path.suffix == COMPACTED:
            yield from (record for _, record in compacted_records(path, data))
        else:
            yield from (record for _, _, record in segment_records(path, data, may_be_torn=False))
