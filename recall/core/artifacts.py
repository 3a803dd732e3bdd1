"""Publishes directories so that a killed run leaves nothing that loads.

An artefact is a directory with a `manifest.json`. It is written under a temporary name beside its final place. The
manifest names every file with its size and CRC-32C and ends with a checksum of its own. The directory takes the place
of the old one in one step (`replacing.py`).

Damage is found as follows. A file that a manifest names, the manifest itself and a JSON file with its own checksum
(metrics.json, index/summary.json) are refused by name when they are missing, cut or altered. A file that the manifest
does not name is never read. A run's config.yaml and timing.json have no checksum: people may edit the first, and
nothing depends on the second. index/CURRENT holds a version number and is refused if there is no such version.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c

from recall.core.errors import ArtifactError, disk_problem
from recall.core.locks import sole_writer
from recall.core.replacing import clear_up, moved_away, replace, scratch_of

MANIFEST = "manifest.json"
HIDDEN_MANIFEST = "_manifest.json"  # readers of a folder of Parquet files pass over names with a leading underscore
_CHUNK = 1 << 22
_OWN_CHECKSUM = "crc32c"
_OWN_CHECKSUM_AT_END = re.compile(rb'"crc32c": "([0-9a-f]{8})"\n}\n\Z')


def fingerprint(*parts: Any) -> str:
    """Hash JSON-serialisable parts into 16 hex digits. Equal parts give equal fingerprints on any machine."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def checksum(path: Path) -> str:
    """Compute the CRC-32C of a file's bytes, as eight hex digits."""
    crc = google_crc32c.Checksum()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK):
            crc.update(block)
    return crc.digest().hex()


def write_json(path: Path, content: Mapping[str, Any], *, checksummed: bool = False) -> None:
    """Write JSON as `write_text` does.

    Args:
      path: the file.
      content: the mapping to write.
      checksummed: whether to add a last key crc32c, the CRC-32C of all bytes before its value, for `read_json`.
    """
    if checksummed:
        content = {key: value for key, value in content.items() if key != _OWN_CHECKSUM} | {_OWN_CHECKSUM: ""}
    text = json.dumps(content, indent=2, sort_keys=False) + "\n"
    if checksummed:
        before = text.removesuffix('"\n}\n')
        text = f'{before}{_crc32c(before.encode())}"\n}}\n'
    write_text(path, text)


def read_json(path: Path) -> dict[str, Any]:
    """Read the content that `write_json` wrote, without its own checksum, which is compared if there is one.

    Raises:
      FileNotFoundError: there is no such file.
      OSError, ValueError, TypeError: it cannot be read, or is no longer what was written.
    """
    text = path.read_bytes()
    content = dict(json.loads(text))
    if content.pop(_OWN_CHECKSUM, None) is not None:
        found = _OWN_CHECKSUM_AT_END.search(text)
        if found is None or found[1].decode() != _crc32c(text[: found.start(1)]):
            raise ValueError("its own checksum differs: it was altered or cut after it was written")
    return content


def _crc32c(data: bytes) -> str:
    return google_crc32c.Checksum(data).digest().hex()


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place, flush it to the disk and rename it. Readers see the old or the new content.

    What a killed writer left beside it is removed: a writer that lives holds a lock on its file.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("x") as file:
            with contextlib.suppress(OSError):  # some network file systems have no locks; there leftovers stay
                fcntl.flock(file, fcntl.LOCK_EX)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
        to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    for abandoned in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}"):
        _remove_abandoned(abandoned)


def _remove_abandoned(temporary: Path) -> None:
    """Remove the file of a writer that was killed; of one that lives, or has just begun, it stays."""
    with contextlib.suppress(OSError), temporary.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_size:  # a writer locks its file before it writes
            temporary.unlink()


def to_disk(path: Path) -> None:
    """Flush a file's bytes, or the names in a directory, to the disk, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def publish(
    directory: Path, *, manifest: dict[str, Any], name: str = MANIFEST, parts: Sequence[str] = ()
) -> Iterator[Path]:
    """Yield a scratch directory that becomes `directory` when the block ends without an error.

    Args:
      directory: final place; an artefact that is already there is replaced.
      manifest: JSON-serialisable content; may be filled inside the block. `files` is added here.
      name: file name of the manifest.
      parts: see `seal`.

    Raises:
      ArtifactError: another process is publishing the directory, or the disk is full or cannot be written; nothing is
        left behind.
    """
    scratch = scratch_of(directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with sole_writer(directory):  # what it clears up must not be the scratch of one that still runs
            clear_up(directory)
            scratch.mkdir()
            yield scratch
            seal(scratch, manifest, name=name, parts=parts)
            replace(scratch, directory)
            to_disk(directory.parent)
    except Exception as error:
        if not (problem := disk_problem(error)):
            raise
        raise ArtifactError(f"{directory}: could not be written ({problem}); nothing was changed. "
                            "Free some space or choose another --out, then run the step again") from error  # fmt: skip
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def seal(directory: Path, manifest: dict[str, Any], *, name: str = MANIFEST, parts: Sequence[str] = ()) -> None:
    """Write the manifest of a finished directory: the given content, and bytes and CRC-32C of each file.

    All of it is on the disk when this returns.

    Args:
      directory: holds all files.
      manifest: the content; `files` is added.
      name: file name of the manifest.
      parts: folders in it that were sealed by themselves and have manifests of their own.
    """
    sealed = {directory / name, *(path for part in parts for path in (directory / part).rglob("*"))}
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path not in sealed)
    manifest["files"] = {
        str(path.relative_to(directory)): {"bytes": path.stat().st_size, "crc32c": checksum(path)} for path in files
    }
    for path in (*files, *(path for path in directory.rglob("*") if path.is_dir())):
        to_disk(path)
    write_json(directory / name, manifest, checksummed=True)


def read_manifest(
    directory: Path, *, made_by: str, verify: bool | Callable[[str], bool] = False, name: str = MANIFEST
) -> dict[str, Any]:
    """Read and check the manifest of a published directory.

    Args:
      directory: the artefact.
      made_by: the command that makes it, for the error message, e.g. `recall prepare`.
      verify: also compare every file's checksum (reads all bytes), or of those whose names it chooses; sizes and the
        manifest's own checksum are always compared.
      name: file name of the manifest.

    Raises:
      ArtifactError: no manifest, a file is missing, truncated or altered, or it lies outside of the directory.
    """
    path = directory / name
    if not path.exists():
        raise ArtifactError(_missing(directory, path, made_by=made_by))
    try:
        manifest = read_json(path)
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); run `{made_by}` again") from error
    for relative, entry in manifest.get("files", {}).items():
        file = directory / relative
        # Two dots, an absolute path, or a link on the way: a manifest vouches for its own directory and no other file.
        if ".." in file.parts[len(directory.parts) :] or not file.resolve().is_relative_to(directory.resolve()):
            raise ArtifactError(
                f"{path}: names {relative!r}, which is outside of {directory}; nothing of it is read, "
                f"run `{made_by}` again"
            )
        size = file.stat().st_size if file.exists() else None
        if size != entry["bytes"]:
            found = "is missing" if size is None else f"has {size:,} bytes"
            raise ArtifactError(f"{file}: {found}, the manifest says {entry['bytes']:,} bytes; run `{made_by}` again")
        if verify is True or (callable(verify) and verify(relative)):
            require_checksum(file, entry, made_by=made_by)
    return manifest


def require_checksum(file: Path, entry: Mapping[str, Any], *, made_by: str) -> None:
    """Raise ArtifactError if a file is missing or its checksum differs from its entry in the manifest."""
    try:
        found = checksum(file)
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read ({error}); run `{made_by}` again") from error
    if found != entry["crc32c"]:
        raise ArtifactError(f"{file}: its checksum differs from the manifest's; run `{made_by}` again")


def _missing(directory: Path, path: Path, *, made_by: str) -> str:
    if directory.is_dir() and any(directory.iterdir()):
        return f"{path}: is missing, and nothing vouches for the files beside it; run `{made_by}` again"
    if old := moved_away(directory):
        return (
            f"{directory}: a kill came while it was replaced, and what stood there is in {old[0].name} beside it; "
            f"rename that to {directory.name}, or run `{made_by}` again"
        )
    return f"{directory}: not there yet; run `{made_by}` first"
