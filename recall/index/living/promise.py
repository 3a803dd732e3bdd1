"""Keeps, beside a journal, the number of its last acknowledged record: a journal that lost its end is noticed.

DIR/ACKNOWLEDGED is one line of text. The number in it is a lower bound: it is written after the record, without waiting
for the disk, so that a kill leaves it exact or one behind, and a power cut leaves it behind, never ahead.

`journal.py` compares the journal's files with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import uuid
from pathlib import Path

import google_crc32c

from recall.core.artifacts import write_text
from recall.core.errors import ArtifactError

_LINE = re.compile(rb"journal ([0-9a-f]{32}) after (\d{20}) acknowledged (\d{20}) crc32c ([0-9a-f]{8})\n")
_ATTEMPTS = 10


class OtherJournalError(ArtifactError):
    """Report that another journal has taken the place of the one that was read; nothing of it is shown."""


@dataclasses.dataclass(frozen=True)
class Promise:
    """Hold what has to be in a journal.

    Attributes:
      journal: identity of the journal; one that is begun anew has another.
      begins_after: number of the last record that the journal lacks on purpose; its first record is the next one.
      acknowledged: number of the last record that a writer has acknowledged, or an earlier one.
    """

    journal: str
    begins_after: int
    acknowledged: int

    def line(self) -> bytes:
        """Encode the promise; every promise has as many bytes."""
        text = f"journal {self.journal} after {self.begins_after:020d} acknowledged {self.acknowledged:020d} crc32c "
        return f"{text}{google_crc32c.value(text.encode()):08x}\n".encode()


class PromiseFile:
    """Read and write the promise of one journal.

    Args:
      path: of the file; None keeps no promise.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._now: Promise | None = None

    def read(self) -> Promise | None:
        """Read the promise, None without one.

        Raises:
          ArtifactError: the file is damaged.
        """
        if self.path is None:
            return None
        problem = ""
        for _ in range(_ATTEMPTS):  # a writer may be writing it
            try:
                line = self.path.read_bytes()
            except FileNotFoundError:
                return None
            except OSError as error:
                problem = str(error)
                continue
            found = _LINE.fullmatch(line)
            promise = Promise(found[1].decode(), int(found[2]), int(found[3])) if found else None
            if promise is not None and promise.line() == line:
                return promise
            problem = "it is no longer what was written"
        raise ArtifactError(
            f"{self.path}: cannot be read ({problem}); restore it from a backup, or remove this one file to take the "
            "journal as it is"
        )

    def begin(self, *, begins_after: int, acknowledged: int) -> None:
        """Write the promise of a journal that has none yet, through to the disk; else go on with the one that is there.

        Raises:
          OSError: it cannot be written.
        """
        if self.path is None:
            return
        self._now = self.read()
        if self._now is None:
            self._now = Promise(uuid.uuid4().hex, begins_after, acknowledged)
            write_text(self.path, self._now.line().decode())
        self.close()
        self._descriptor = os.open(self.path, os.O_WRONLY)

    @property
    def is_open(self) -> bool:
        """Tell whether `note` has a file to write to."""
        return self.path is None or self._descriptor is not None

    def note(self, sequence: int) -> None:
        """Raise the number of the last acknowledged record; never an error, as a lower number is true, too."""
        if self._descriptor is None or self._now is None:
            return
        self._now = dataclasses.replace(self._now, acknowledged=sequence)
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, self._now.line(), 0)

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
