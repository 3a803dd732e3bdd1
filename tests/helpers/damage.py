"""Damages files: cuts them, flips a bit, removes them."""

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
    """Change a bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(path: Path) -> None:
    """Removes it."""
    path.unlink()


DAMAGES: tuple[Callable[[Path], None], ...] = (cut, flip, remove)


def possible(path: Path) -> tuple[Callable[[Path], None], ...]:
    """Return the damages that a file can take: an empty one has no byte to lose."""
    return DAMAGES if path.stat().st_size else (remove,)


@contextlib.contextmanager
def damaged(path: Path, damage: Callable[[Path], None]) -> Iterator[None]:
    """Damage a file within the block; afterwards it is as before, to the nanosecond."""
    whole = path.with_name(f"{path.name}.whole")
    os.replace(path, whole)
    shutil.copy2(whole, path)
    try:
        damage(path)
        yield
    finally:
        os.replace(whole, path)


def files_of(folder: Path) -> list[Path]:
    """List all files below a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
