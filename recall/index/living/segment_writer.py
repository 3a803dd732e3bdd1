"""Appends records to the last segment of a journal, each on the disk before it is acknowledged."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from recall.core.errors import ArtifactError
from recall.index.living.journal_files import JournalFiles
from recall.index.living.journal_format import FORMAT

_SEGMENT_BYTES = 1 << 26


class SegmentWriter:
    """Append to one segment until it is long enough, then begin the next.

    Not thread-safe: the journal calls it under its lock.

    Args:
      files: the files of the journal.

    Attributes:
      is_broken: whether a failed write left bytes that could not be removed; nothing may be appended then.
    """

    def __init__(self, files: JournalFiles) -> None:
        self._files = files
        self._descriptor: int | None = None
        self._path = files.directory
        self._end = 0  # bytes of the segment
        self.is_broken = False

    def append(self, sequence: int, frame: bytes) -> tuple[Path, int]:
        """Write a framed record through to the disk. Return its file and the byte where it begins.

        Args:
          sequence: number of the record; it names the segment if a new one begins.
          frame: the record as it stands in the file.

        Raises:
          ArtifactError: the disk is full or cannot be written; the segment is as it was.
        """
        path = self._segment_for(sequence)
        try:
            assert self._descriptor is not None
            _write_all(self._descriptor, frame)
            os.fsync(self._descriptor)
        except OSError as error:
            self._take_back()
            raise not_written(path, error) from error
        start = self._end
        self._end += len(frame)
        return path, start

    def resume(self, path: Path, *, end: int, size: int) -> None:
        """Continue an existing segment after its last whole record.

        Args:
          path: of the segment.
          end: byte where its last whole record ends, 0 without one.
          size: bytes of the file; those after `end` are removed.
        """
        if end == 0:  # not even a first record: the crash came right after the file's creation
            self._files.write_list(without=path)
            path.unlink()
            return
        self._descriptor, self._end = os.open(path, os.O_RDWR), end
        if end < size:
            os.ftruncate(self._descriptor, end)
            os.fsync(self._descriptor)
        os.lseek(self._descriptor, end, os.SEEK_SET)
        self._path = path

    def close(self) -> None:
        """Close the segment; the next record begins a new one. May be called again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _segment_for(self, sequence: int) -> Path:
        """Return the segment that takes the next record, a new one where the last is long enough."""
        if self._descriptor is not None and self._end < _SEGMENT_BYTES:
            return self._path
        self.close()
        path = self._files.segment_path(sequence)
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            self._path, self._end = path, 0
            _write_all(self._descriptor, FORMAT)
            os.fsync(self._descriptor)
            self._files.sync()
            self._files.write_list()
        except OSError as error:
            self.close()
            with contextlib.suppress(OSError, ArtifactError):
                if path not in (self._files.listed() or ()):
                    path.unlink(missing_ok=True)
            raise not_written(path, error) from error
        self._end = len(FORMAT)
        return path

    def _take_back(self) -> None:
        """Remove the bytes of a record that could not be written whole."""
        assert self._descriptor is not None
        try:
            os.ftruncate(self._descriptor, self._end)
            os.lseek(self._descriptor, self._end, os.SEEK_SET)
            os.fsync(self._descriptor)
        except OSError:
            # What is there now is unknown, and what came after it would be lost with it: nothing more is acknowledged
            # until the journal is opened again, which finds out.
            self.is_broken = True


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes, in several writes if need be."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def not_written(path: Path, error: OSError) -> ArtifactError:
    """Make the error of a record that could not be written; nothing was changed."""
    return ArtifactError(
        f"{path}: could not be written ({error}); nothing was changed. Free some space, then try again"
    )
