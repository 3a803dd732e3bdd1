"""Replaces one directory by another, so that at every moment one of the two stands there whole."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import uuid
from functools import cache
from pathlib import Path
from typing import Any

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # <fcntl.h>, <stdio.h> of glibc
_HEX = "[0-9a-f]" * 8
_NOT_HERE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV)


def scratch_of(directory: Path) -> Path:
    """Return a hidden name beside a directory for its replacement."""
    return directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}")


def clear_up(directory: Path) -> None:
    """Restore a directory that a killed `replace` had moved away; remove other leftovers of killed runs beside it."""
    for old in moved_away(directory):
        if not os.path.lexists(directory):
            old.rename(directory)
        _remove(old)
    for abandoned in directory.parent.glob(f".{directory.name}.{_HEX}"):
        _remove(abandoned)


def moved_away(directory: Path) -> list[Path]:
    """List the old directories of `replace` calls that were killed between two renames; the newest first."""
    return sorted(
        directory.parent.glob(f".{directory.name}.{_HEX}.old"), key=lambda path: path.lstat().st_ctime, reverse=True
    )


def replace(scratch: Path, directory: Path) -> None:
    """Put `scratch` in the place of `directory`, and remove the old content afterwards.

    Where the system can exchange two names (Linux, most file systems), a kill leaves the old directory or the new one.
    Elsewhere the old one is moved away first, and a kill right then leaves neither: `clear_up` brings the old one back.

    Raises:
      OSError: the old one is where it was.
    """
    if not os.path.lexists(directory):
        scratch.rename(directory)
    elif not exchange(scratch, directory):
        old = scratch.with_name(scratch.name + ".old")
        directory.rename(old)
        try:
            scratch.rename(directory)
        except BaseException:
            old.rename(directory)
            raise
        _remove(old)
        return
    _remove(scratch)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step. Returns False, with nothing done, where the system cannot do it."""
    rename = _renameat2()
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    if (number := ctypes.get_errno()) in _NOT_HERE:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


@cache
def _renameat2() -> Any:
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return function


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
