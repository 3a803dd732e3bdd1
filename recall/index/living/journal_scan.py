"""Reads all records of a journal, in order, and checks that none is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from recall.core.errors import ArtifactError
from recall.index.living.journal_files import COMPACTED, JournalFiles
from recall.index.living.journal_format import REMEDY, Record, compacted_records, segment_records
from recall.index.living.promise import Promise

Places = dict[int, tuple[Path, int]]
"""File and first byte of records, by sequence number."""


class Tail(NamedTuple):
    """Describe the last segment: its path, the byte where its last whole record ends, and its bytes."""

    path: Path
    end: int
    size: int


class JournalScan:
    """Read a journal once, as it is at one moment.

    Args:
      files: its files.
      promise: its promise, read before; None without one.

    Attributes:
      last: number of the last record. It is complete, as are the others, when the iteration has ended.
      places: places of the records with sources.
      tail: the last segment; None if the journal has none, or ends with a compacted file.
    """

    def __init__(self, files: JournalFiles, promise: Promise | None) -> None:
        self._files, self._promise = files, promise
        self.last = 0 if promise is None else promise.begins_after
        self.places: Places = {}
        self.tail: Tail | None = None

    def __iter__(self) -> Iterator[Record]:
        """Yield the records.

        Raises:
          ArtifactError: the journal is damaged, or ends too early; names the file. No record counts then.
        """
        path = self._files.directory
        with self._files.opened(needs_list=self._promise is None) as files:
            for number, (path, stream) in enumerate(files):
                is_last = number == len(files) - 1
                if path.suffix == COMPACTED:
                    parts = compacted_records(path, stream.read())
                else:
                    self._require_next(path, is_first=number == 0)
                    parts = self._segment(path, stream.read(), is_last=is_last)
                for offset, record in parts:
                    if record.sources is not None:
                        self.places[record.sequence] = (path, offset)
                    self.last = record.sequence
                    yield record
                if path.suffix == COMPACTED:
                    self.last = int(path.stem)
        if self._promise is not None and self.last < self._promise.acknowledged:
            raise ArtifactError(
                f"{path}: ends at record {self.last:,}, but {self._promise.acknowledged:,} were acknowledged: a file "
                f"of the journal was cut off, removed or replaced by an older one; {REMEDY}"
            )

    def _require_next(self, path: Path, *, is_first: bool) -> None:
        """Check that a segment begins after the file before it."""
        if int(path.stem) != self.last + 1:
            if not is_first or self._promise is not None:
                raise ArtifactError(
                    f"{path}: begins at record {int(path.stem):,}, expected {self.last + 1:,}: a file of the journal "
                    f"is missing or cut off; {REMEDY}"
                )
            self.last = int(path.stem) - 1

    def _segment(self, path: Path, data: bytes, *, is_last: bool) -> Iterator[tuple[int, Record]]:
        """Yield the records of a segment with the byte where each begins."""
        end = 0
        for start, end, record in segment_records(path, data, may_be_torn=is_last):  # noqa: B007
            yield start, record
        if is_last:
            self.tail = Tail(path, end, len(data))
