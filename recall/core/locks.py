"""Lets one process at a time write a part of a run; a second one is refused, and the first goes on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from recall.core.errors import ArtifactError

# Some network file systems have no locks: there, as before, nobody is kept from writing twice.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextlib.contextmanager
def sole_writer(part: Path, *, step: str = "") -> Iterator[None]:
    """Hold the lock of a part of a run while the block runs. The system releases the lock of a killed process.

    The lock is a file beside the part, which is removed at the end.

    Args:
      part: the folder or file that is written; its parent exists.
      step: name of a lock of its own, for work that goes on before and after the part is published.

    Raises:
      ArtifactError: another process, or this one elsewhere, is writing the part.
    """
    path = part.with_name(f".{part.name}{step and '.'}{step}.lock")
    descriptor = _locked(path, part)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock is released: whoever takes it looks whether the file is there
        os.close(descriptor)


def _locked(path: Path, part: Path) -> int:
    """Open the file of a lock and lock it; return its descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise ArtifactError(
                f"{part}: another process{f' ({holder})' if holder else ''} is writing it; wait until it is done, or "
                "choose another --out. It goes on, and nothing was changed"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            return descriptor
        if _is_at(path, descriptor):
            with contextlib.suppress(OSError):  # on a full disk the lock holds without its name
                os.pwrite(descriptor, f"pid {os.getpid():<16d}".encode(), 0)
            return descriptor
        os.close(descriptor)  # the one before has removed the file since it was opened


def _is_at(path: Path, descriptor: int) -> bool:
    """Tell whether a descriptor is of the file that is at a path now."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
