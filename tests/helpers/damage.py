"""What may happen to a file: it is cut, a bit of it flips, it is gone."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path


def cut(path: Path) -> None:
    """Takes the last byte away."""
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    """Flips a bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(path: Path) -> None:
    """Removes it."""
    path.unlink()


DAMAGES: tuple[Callable[[Path], None], ...] = (cut, flip, remove)


def possible(path: Path) -> tuple[Callable[[Path], None], ...]:
    """The damages that a file can take: an empty one has no byte to lose."""
    return DAMAGES if path.stat().st_size else (remove,)


@contextlib.contextmanager
def damaged(path: Path, damage: Callable[[Path], None]) -> Iterator[None]:
    """A file is damaged in the block, and the one that it was, to the nanosecond, afterwards."""
    whole = path.with_name(f"{path.name}.whole")
    os.replace(path, whole)
    shutil.copy2(whole, path)
    try:
        damage(path)
        yield
    finally:
        os.replace(whole, path)


def files_of(folder: Path) -> list[Path]:
    """All files below a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
