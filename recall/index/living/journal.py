"""What was upserted and deleted, on disk before it is acknowledged: a directory of checksummed records.

DIR/lock                           held by the one process that writes
DIR/00000000000000000001.segment   records from this sequence number on; the last segment grows
DIR/00000000000000000840.compacted in place of all segments up to this number: of every id its last record
DIR/files.json                     which of these there have to be: one that is missing is damage, too

A record that the end of the last segment cuts off was never acknowledged (a crash came first), and opening for writing
removes it. Any other record that does not match its checksums, or does not follow its predecessor, is damage: the
journal is refused rather than shortened, since an acknowledged change may stand there. (A last segment that somebody
cuts short looks like that of a crash: it opens with the records before the cut.)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recall.core.arrays import Float32s
from recall.core.artifacts import read_json, write_json
from recall.core.errors import ArtifactError, DataError
from recall.index.living.journal_format import (
    FORMAT,
    REMEDY,
    Operation,
    Record,
    compacted_records,
    compaction_head,
    framed,
    record_at,
    segment_records,
)

_SEGMENT, _COMPACTED, _LOCK, _LIST = ".segment", ".compacted", "lock", "files.json"
_SEGMENT_BYTES = 1 << 26
_MOST_BYTES = 1 << 30  # of a record, which is held in memory
_LONG_BYTES = 1 << 20


class Journal:
    """A directory of records, for one writer and any number of readers.

    Threads of the writer may share it.

    Args:
      directory: created by a writer.
      writable: take the lock, and remove what a crash left of a record.

    Raises:
      ArtifactError: another process writes it, or it is damaged; names the file.
    """

    def __init__(self, directory: str | Path, *, writable: bool) -> None:
        self.directory, self.is_writable = Path(directory), writable
        self._changing = threading.RLock()
        self._compacting = threading.Lock()
        self._active: int | None = None  # file descriptor of the segment that grows
        self._active_path = self.directory
        self._end = 0  # its bytes
        self._places: dict[int, tuple[Path, int]] = {}  # of records with sources, by sequence number
        self._lock_file: int | None = None
        self._is_broken = False
        self.last_sequence = 0
        if writable:
            self._take_lock()
        try:
            for _ in self._scan(after=0, cut=writable):
                pass
        except BaseException:
            self.close()
            raise

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """Records with larger sequence numbers, in their order; what another process has appended meanwhile too.

        Raises:
          ArtifactError: the journal is damaged; names the file.
        """
        with self._changing:
            yield from self._scan(after=after, cut=False)

    @property
    def extent(self) -> tuple[tuple[str, int], ...]:
        """Names and sizes of the files: what another process appends or compacts changes them."""
        found = []
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):  # compacted away meanwhile
                found.append((path.name, path.stat().st_size))
        return tuple(found)

    def record(self, sequence: int) -> Record | None:
        """The record of a number if it has sources."""
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
        """Writes a record through to the disk and returns its sequence number.

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
            path = self._segment_for(record.sequence)
            try:
                assert self._active is not None
                _write_all(self._active, frame)
                os.fsync(self._active)
            except OSError as error:
                self._take_back()
                raise ArtifactError(
                    f"{path}: could not be written ({error}); nothing was changed. Free some space, then try again"
                ) from error
            if record.sources is not None:
                self._places[record.sequence] = (path, self._end)
            self._end += len(frame)
            self.last_sequence = record.sequence
            return record.sequence

    def begin_after(self, sequence: int) -> None:
        """Lets the numbers of an empty journal begin after one that a version of the index already contains.

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
        """Whether more was appended since it was compacted than was left then: compacting only then costs no more,
        all in all, than the writing did."""
        with self._changing:
            sizes = [(path.suffix, path.stat().st_size) for path in self._files()]
        compacted = sum(size for suffix, size in sizes if suffix == _COMPACTED)
        return sum(size for _, size in sizes) - compacted > max(compacted, _LONG_BYTES)

    def compact(self) -> None:
        """Keeps of every id its last record alone. Appending goes on; a crash leaves the old files or the new.

        The last record of an id is kept even when some version of the index contains it: another version, made from
        the catalogue, does not.

        Raises:
          ArtifactError: the disk is full or cannot be written; the journal is as it was.
        """
        with self._compacting:
            with self._changing:
                self._require_writable()
                self._close_segment()
                through, old = self.last_sequence, self._files()
            if not old or (len(old) == 1 and old[0].suffix == _COMPACTED):
                return
            last_of: dict[str, int] = {}
            for record in self._read(old):
                last_of.update(dict.fromkeys(record.ids, record.sequence))
            kept = len(set(last_of.values()))
            path = self.directory / f"{through:020d}{_COMPACTED}"
            scratch = self.directory / ".compacting"
            places: dict[int, tuple[Path, int]] = {}
            try:
                with scratch.open("wb") as stream:
                    stream.write(compaction_head(through=through, records=kept))
                    for record in self._read(old):
                        own = [place for place, name in enumerate(record.ids) if last_of[name] == record.sequence]
                        if not own:
                            continue
                        if record.sources is not None:
                            places[record.sequence] = (path, stream.tell())
                        stream.write(framed(record.take(own).payload()))
                    stream.flush()
                    os.fsync(stream.fileno())
                with self._changing:
                    os.replace(scratch, path)
                    self._sync_directory()
                    self._note_files()  # before any goes: what is noted has to be there or in a later compacted file
                    later = {sequence: place for sequence, place in self._places.items() if sequence > through}
                    self._places = {**places, **later}
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
        """Lets go of the lock; may be called again."""
        with self._changing:
            self._close_segment()
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None

    # Reading

    def _files(self) -> list[Path]:
        """The compacted file, if there is one, and the segments that it does not stand for, in order."""
        if not self.directory.is_dir():
            return []
        entries = sorted(self.directory.iterdir())
        compacted = [path for path in entries if path.suffix == _COMPACTED and path.stem.isdigit()][-1:]
        # A crash during compaction may leave segments beside the file that took their place.
        through = int(compacted[0].stem) if compacted else 0
        return compacted + [p for p in entries if p.suffix == _SEGMENT and p.stem.isdigit() and int(p.stem) > through]

    def _scan(self, *, after: int, cut: bool) -> Iterator[Record]:
        """All records after a number; notes the last one and the places of those with sources."""
        for _ in range(10):  # another process may compact while this one lists files
            noted = self._noted_files()  # first: what is noted later need not be listed yet
            files = self._files()
            try:
                streams = [path.open("rb") for path in files]
                break
            except FileNotFoundError:
                continue
        else:
            raise ArtifactError(f"{self.directory}: its files change faster than they can be read; try again")
        with contextlib.ExitStack() as stack:
            for stream in streams:
                stack.enter_context(stream)
            self._require_files(noted, files)
            expected: int | None = None
            for path, stream in zip(files, streams, strict=True):
                is_last = path == files[-1]
                if path.suffix == _COMPACTED:
                    parts = compacted_records(path, stream.read())
                    expected = int(path.stem) + 1
                else:
                    first = int(path.stem)
                    if expected is not None and first != expected:
                        raise ArtifactError(
                            f"{path}: begins at record {first:,}, expected {expected:,}: a file of the journal is "
                            f"missing or cut off; {REMEDY}"
                        )
                    expected, parts = first, self._segment(path, stream.read(), is_last=is_last, cut=cut)
                for offset, record in parts:
                    if path.suffix == _SEGMENT:
                        expected = record.sequence + 1
                    if record.sources is not None:
                        self._places[record.sequence] = (path, offset)
                    self.last_sequence = max(self.last_sequence, record.sequence)
                    if record.sequence > after:
                        yield record
            if expected is not None:
                self.last_sequence = max(self.last_sequence, expected - 1)

    def _note_files(self, *, without: Path | None = None) -> None:
        names = [path.name for path in self._files() if path != without]
        write_json(self.directory / _LIST, {"files": names}, checksummed=True)

    def _noted_files(self) -> list[Path]:
        path = self.directory / _LIST
        try:
            return [self.directory / name for name in read_json(path)["files"]]
        except FileNotFoundError:
            return []  # nothing was written yet, or by a release that kept no list
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"{path}: cannot be read ({error}); {REMEDY}") from error

    def _require_files(self, noted: Sequence[Path], found: Sequence[Path]) -> None:
        through = max((int(path.stem) for path in found if path.suffix == _COMPACTED), default=0)
        for path in noted:
            if path not in found and int(path.stem) > through:
                raise ArtifactError(f"{path}: is missing, {_LIST} beside it says that it was there; {REMEDY}")

    def _read(self, files: Sequence[Path]) -> Iterator[Record]:
        """The records of files that do not change any more."""
        for path in files:
            data = path.read_bytes()
            is_compacted = path.suffix == _COMPACTED
            parts = compacted_records(path, data) if is_compacted else self._segment(path, data)
            yield from (record for _, record in parts)

    def _segment(
        self, path: Path, data: bytes, *, is_last: bool = False, cut: bool = False
    ) -> Iterator[tuple[int, Record]]:
        end = 0  # of the last whole record
        for start, end, record in segment_records(path, data, may_be_torn=is_last):  # noqa: B007
            yield start, record
        if cut and is_last:
            self._continue(path, end, len(data))

    # Writing

    def _continue(self, path: Path, end: int, size: int) -> None:
        """Takes up the last segment where its last whole record ends."""
        if end == 0:  # not even a first record: the crash came right after the file's creation
            self._note_files(without=path)
            path.unlink()
            return
        self._active, self._end = os.open(path, os.O_RDWR), end
        if end < size:
            os.ftruncate(self._active, end)
            os.fsync(self._active)
        os.lseek(self._active, end, os.SEEK_SET)
        self._active_path = path

    def _segment_for(self, sequence: int) -> Path:
        """The segment that takes the next record, a new one where the last is long enough."""
        if self._active is not None and self._end < _SEGMENT_BYTES:
            return self._active_path
        self._close_segment()
        path = self.directory / f"{sequence:020d}{_SEGMENT}"
        try:
            self._active = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            self._active_path, self._end = path, 0
            _write_all(self._active, FORMAT)
            os.fsync(self._active)
            self._sync_directory()
            self._note_files()
        except OSError as error:
            self._close_segment()
            with contextlib.suppress(OSError, ArtifactError):
                if path not in self._noted_files():
                    path.unlink(missing_ok=True)
            raise ArtifactError(
                f"{path}: could not be written ({error}); nothing was changed. Free some space, then try again"
            ) from error
        self._end = len(FORMAT)
        return path

    def _take_back(self) -> None:
        """Removes what was written of a record that could not be written whole."""
        assert self._active is not None
        try:
            os.ftruncate(self._active, self._end)
            os.lseek(self._active, self._end, os.SEEK_SET)
            os.fsync(self._active)
        except OSError:
            # What is there now is unknown, and what came after it would be lost with it: nothing more is acknowledged
            # until the journal is opened again, which finds out.
            self._is_broken = True

    def _close_segment(self) -> None:
        if self._active is not None:
            os.close(self._active)
            self._active = None

    def _sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _take_lock(self) -> None:
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
        if self._lock_file is None or self._is_broken:
            state = "closed" if self.is_writable else "open for reading alone"
            state = "in doubt after a write that failed" if self._is_broken else state
            raise ArtifactError(f"{self.directory}: the journal is {state}; open the index again, writable")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
