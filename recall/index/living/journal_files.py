"""Finds the files of a journal in its directory, and keeps the list of the files that have to be there.

DIR/00000000000000000001.segment   records from this sequence number on; the last segment grows
DIR/00000000000000000840.compacted in place of all segments up to this number: of every id its last record
DIR/files.json                     names of the files that have to be there: a missing one is damage, too

`journal_format.py` defines what is inside the first two.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from recall.core.artifacts import read_json, write_json
from recall.core.errors import ArtifactError
from recall.index.living.journal_format import REMEDY

SEGMENT, COMPACTED = ".segment", ".compacted"
_LIST = "files.json"


class JournalFiles:
    """Find, list and name the files of one journal.

    Args:
      directory: of the journal; may be missing until a writer creates it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def segment_path(self, sequence: int) -> Path:
        """Return the path of the segment whose first record has this number."""
        return self.directory / f"{sequence:020d}{SEGMENT}"

    def compacted_path(self, through: int) -> Path:
        """Return the path of the compacted file that replaces all records up to this number."""
        return self.directory / f"{through:020d}{COMPACTED}"

    def present(self) -> list[Path]:
        """Return the compacted file, if there is one, and the segments after it, in order."""
        if not self.directory.is_dir():
            return []
        entries = sorted(self.directory.iterdir())
        compacted = [path for path in entries if path.suffix == COMPACTED and path.stem.isdigit()][-1:]
        # A crash during compaction may leave segments beside the file that took their place.
        through = int(compacted[0].stem) if compacted else 0
        return compacted + [p for p in entries if p.suffix == SEGMENT and p.stem.isdigit() and int(p.stem) > through]

    def sizes(self) -> list[tuple[Path, int]]:
        """Return the files and their bytes, in order."""
        found = []
        for path in self.present():
            with contextlib.suppress(FileNotFoundError):  # another process compacted it away meanwhile
                found.append((path, path.stat().st_size))
        return found

    def listed(self) -> list[Path]:
        """Read the files that have to be there.

        Raises:
          ArtifactError: the list cannot be read.
        """
        path = self.directory / _LIST
        try:
            return [self.directory / name for name in read_json(path)["files"]]
        except FileNotFoundError:
            return []  # nothing was written yet, or by a release that kept no list
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"{path}: cannot be read ({error}); {REMEDY}") from error

    def write_list(self, *, without: Path | None = None) -> None:
        """Write the names of the present files, but for one, as the list of the files that have to be there."""
        names = [path.name for path in self.present() if path != without]
        write_json(self.directory / _LIST, {"files": names}, checksummed=True)

    @contextlib.contextmanager
    def opened(self) -> Iterator[list[tuple[Path, BinaryIO]]]:
        """Open all files for reading, in order, at a moment when they fit together.

        Raises:
          ArtifactError: a listed file is missing, or another process changes the files too fast.
        """
        for _ in range(10):  # another process may compact while this one lists files
            with contextlib.ExitStack() as stack:
                listed = self.listed()  # first: a file that is listed later need not be present yet
                present = self.present()
                try:
                    streams = [stack.enter_context(path.open("rb")) for path in present]
                except FileNotFoundError:
                    continue
                self._require(listed, present)
                yield list(zip(present, streams, strict=True))
                return
        raise ArtifactError(f"{self.directory}: its files change faster than they can be read; try again")

    def sync(self) -> None:
        """Write the directory's entries through to the disk."""
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _require(self, listed: Sequence[Path], present: Sequence[Path]) -> None:
        """Raise an error if a listed file is missing and no compacted file replaces it."""
        through = max((int(path.stem) for path in present if path.suffix == COMPACTED), default=0)
        for path in listed:
            if path not in present and int(path.stem) > through:
                raise ArtifactError(f"{path}: is missing, {_LIST} beside it says that it was there; {REMEDY}")
