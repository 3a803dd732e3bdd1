"""Lays out a saved index in numbered versions and a CURRENT file that names one, and changes these safely.

`store.py` defines the files in a version; `housekeeping.py` is for people who look after versions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recall.core.artifacts import write_text
from recall.core.errors import ArtifactError

MADE_BY = "recall index"

_CURRENT, _VERSIONS, _LOCK = "CURRENT", "versions", ".publishing"
_NUMBER = re.compile(r"\d{4,}")


@dataclasses.dataclass(frozen=True)
class Removed:
    """Count what was removed.

    Attributes:
      versions: numbers of the removed versions.
      leftovers: number of half-written versions of killed saves.
      bytes: size of all removed files.
    """

    versions: tuple[str, ...]
    leftovers: int
    bytes: int


@contextlib.contextmanager
def publishing(directory: Path) -> Iterator[None]:
    """Hold the lock that allows to change versions and CURRENT; wait for it. A kill releases it.

    Raises:
      ArtifactError: the lock cannot be made, on a read-only disk for example.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / _LOCK).open("w")
    except OSError as error:
        raise ArtifactError(f"{directory}: could not be written ({error}); nothing was changed") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def next_version(directory: Path) -> Path:
    """Return the folder of the next version; call it while `publishing`."""
    numbers = [int(folder.name) for folder in versions_of(directory)]
    return directory / _VERSIONS / f"{max(numbers, default=0) + 1:04d}"


def current_version(directory: Path) -> Path:
    """Return the folder of the version that CURRENT names.

    Raises:
      ArtifactError: there is no CURRENT, or it names no version.
    """
    name = _current_name(directory)
    while not (_NUMBER.fullmatch(name) and (directory / _VERSIONS / name).is_dir()):
        # Others may publish between the two looks, and remove the version that CURRENT named at the first.
        before, name = name, _current_name(directory)
        if name == before:
            raise ArtifactError(
                f"{directory / _CURRENT}: expected the number of a version in {directory / _VERSIONS}, "
                f"found {name[:20]!r}; run `{MADE_BY}` again"
            )
    return directory / _VERSIONS / name


def _current_name(directory: Path) -> str:
    """Read what CURRENT names."""
    try:
        return (directory / _CURRENT).read_text().strip()
    except FileNotFoundError:
        raise ArtifactError(f"{directory}: holds no index yet; run `{MADE_BY}` first") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{directory / _CURRENT}: cannot be read ({error}); run `{MADE_BY}` again") from error


def point_to(directory: Path, version: Path) -> None:
    """Make a version that is on the disk the current one: readers see the old one or this one.

    Raises:
      ArtifactError: CURRENT could not be written.
    """
    try:
        write_text(directory / _CURRENT, version.name + "\n")
    except OSError as error:
        raise ArtifactError(
            f"{directory / _CURRENT}: could not be written ({error}); the previous version stays current. "
            f"Free some space, then run `{MADE_BY}` again"
        ) from error


def remove_versions(directory: Path, *, keep: int) -> Removed:
    """Remove all versions but the newest `keep` and the current one, and leftovers of killed saves.

    Call it while `publishing`.
    """
    current, folders = current_version(directory), versions_of(directory)
    kept = {current, *folders[-keep:]}
    outdated = [folder for folder in folders if folder not in kept]
    # Names with a dot are leftovers of killed saves: nobody else saves now.
    leftovers = [entry for entry in (directory / _VERSIONS).iterdir() if entry.name.startswith(".")]
    size = sum(size_of(folder) for folder in (*outdated, *leftovers))
    for folder in outdated:
        # A version that is half removed would be listed as a damaged one.
        leftovers.append(folder.rename(folder.with_name(f".{folder.name}.removed")))
    for folder in leftovers:
        shutil.rmtree(folder, ignore_errors=True)
    return Removed(tuple(folder.name for folder in outdated), len(leftovers) - len(outdated), size)


def require_model(version: Path, manifest: Mapping[str, Any], *, fingerprint: str, remedy: str) -> None:
    """Raise an ArtifactError if a version holds vectors of another model."""
    if (found := manifest.get("fingerprint")) != fingerprint:
        raise ArtifactError(f"{version}: holds vectors of model {found}, but the model is {fingerprint}; {remedy}")


def versions_of(directory: Path) -> list[Path]:
    """Return the folders of all versions, the oldest first."""
    folder = directory / _VERSIONS
    if not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if _NUMBER.fullmatch(entry.name)]
    return sorted(found, key=lambda entry: int(entry.name))


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
