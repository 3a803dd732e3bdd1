"""Lets one process at a time write a journal."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from recall.core.errors import ArtifactError


class WriterLock:
    """Hold the lock of a journal's one writer; a kill releases it.

    Args:
      path: of the lock; its directory is created if need be.

    Raises:
      ArtifactError: another writer holds it, or it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise ArtifactError(
                f"{path}: is held by another writer of this index; close that one first, or open this one read only"
            ) from None
        except OSError as error:
            self.release()
            raise ArtifactError(f"{path}: could not be written ({error}); open the index read only") from error

    @property
    def is_held(self) -> bool:
        """Tell whether the lock was not released."""
        return self._file is not None

    @property
    def is_in_place(self) -> bool:
        """Tell whether the lock that is held is the file that another writer would ask."""
        if self._file is None:
            return False
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._file), os.stat(self._path))
        return False

    def release(self) -> None:
        """Let another process write; may be called again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
