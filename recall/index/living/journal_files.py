"""Finds the files of a journal in its directory, and keeps the list of the files that have to be there.

DIR/00000000000000000001.segment   records from this sequence number on; the last segment grows
DIR/00000000000000000840.compacted in place of all segments up to this number: of every id its last record
DIR/files.json                     names of the files that have to be there: a missing one is damage, too

`journal_format.py` defines what is inside the first two.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from recall.core.artifacts import read_json, write_json
from recall.core.errors import ArtifactError, shown
from recall.index.living.journal_format import FORMAT, REMEDY

SEGMENT, COMPACTED = ".segment", ".compacted"
_LIST = "files.json"
_NAME = re.compile(r"[0-9]{20}\.(segment|compacted)")
_ATTEMPTS = 10


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
        entries = sorted(path for path in self.directory.iterdir() if _NAME.fullmatch(path.name))
        compacted = [path for path in entries if path.suffix == COMPACTED][-1:]
        # A crash during compaction may leave segments beside the file that took their place.
        through = int(compacted[0].stem) if compacted else 0
        return compacted + [path for path in entries if path.suffix == SEGMENT and int(path.stem) > through]

    def remove_replaced(self) -> None:
        """Remove the files that a compacted one has taken the place of.

        Raises:
          OSError: a file cannot be removed.
        """
        kept = self.present()
        if any(path.suffix == COMPACTED for path in kept):
            for path in self.directory.iterdir():
                if _NAME.fullmatch(path.name) and path not in kept:
                    path.unlink(missing_ok=True)

    def sizes(self) -> list[tuple[Path, int]]:
        """Return the files and their bytes, in order."""
        return [(path, size) for path, size, _ in self.states()]

    def states(self) -> list[tuple[Path, int, int]]:
        """Return the files, their bytes and the times of their last changes in ns, in order."""
        found = []
        for path in self.present():
            with contextlib.suppress(FileNotFoundError):  # another process compacted it away meanwhile
                state = path.stat()
                found.append((path, state.st_size, state.st_mtime_ns))
        return found

    def listed(self) -> list[Path] | None:
        """Read the files that have to be there; None without a list.

        Raises:
          ArtifactError: the list cannot be read, or names something else than files of a journal.
        """
        path = self.directory / _LIST
        try:
            names = read_json(path)["files"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"{path}: cannot be read ({error}); {REMEDY}") from error
        for name in names if isinstance(names, list) else [names]:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ArtifactError(
                    f"{path}: expected names of the journal's files, found {shown(repr(name))}; {REMEDY}"
                )
        return [self.directory / name for name in names]

    def write_list(self, *, without: Path | None = None) -> None:
        """Write the names of the present files, but for one, as the list of the files that have to be there."""
        names = [path.name for path in self.present() if path != without]
        write_json(self.directory / _LIST, {"files": names}, checksummed=True)

    @contextlib.contextmanager
    def opened(self, *, needs_list: bool) -> Iterator[list[tuple[Path, BinaryIO]]]:
        """Open all files for reading, in order, at a moment when they fit together.

        Args:
          needs_list: whether records without a list of the files are damage.

        Raises:
          ArtifactError: a listed file or the list is missing, or another process changes the files too fast.
        """
        for _ in range(_ATTEMPTS):
            with contextlib.ExitStack() as stack:
                listed, present = self.listed(), self.present()
                try:
                    streams = [stack.enter_context(path.open("rb")) for path in present]
                except FileNotFoundError:
                    continue
                problem = self._problem(listed, present, streams, needs_list=needs_list)
                if self.listed() != listed:  # another process compacted, or began a file, while this one looked
                    continue
                if problem:
                    raise ArtifactError(problem)
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

    def _problem(
        self, listed: Sequence[Path] | None, present: Sequence[Path], streams: Sequence[BinaryIO], *, needs_list: bool
    ) -> str | None:
        """Describe a missing file; None if all are there."""
        if listed is None:
            # A writer lists a segment before it writes the first record.
            if needs_list and any(os.fstat(stream.fileno()).st_size > len(FORMAT) for stream in streams):
                return f"{self.directory / _LIST}: is missing, and nothing vouches for the files beside it; {REMEDY}"
            return None
        through = max((int(path.stem) for path in present if path.suffix == COMPACTED), default=0)
        for path in listed:
            if path not in present and int(path.stem) > through:
                return f"{path}: is missing, {_LIST} beside it says that it was there; {REMEDY}"
        return None
