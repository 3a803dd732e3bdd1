"""Publishing directories so that a killed run leaves nothing that loads.

An artefact is a directory with a `manifest.json`. It is written under a temporary name beside its final
place, every file's size and CRC-32C is put into the manifest, and the directory is renamed at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c

from recall.errors import ArtifactError

MANIFEST = "manifest.json"
HIDDEN_MANIFEST = "_manifest.json"  # readers of a folder of Parquet files pass over names with a leading underscore
_CHUNK = 1 << 22


def fingerprint(*parts: Any) -> str:
    """Stable hash of JSON-serialisable parts; 16 hex digits. Equal parts give equal fingerprints on any machine."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def checksum(path: Path) -> str:
    """CRC-32C of a file's bytes as eight hex digits."""
    crc = google_crc32c.Checksum()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK):
            crc.update(block)
    return crc.digest().hex()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON as `write_text` does."""
    write_text(path, json.dumps(content, indent=2, sort_keys=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes beside the file's place, to the disk, and renames: a reader, or a power cut, sees the old or the new."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_text(text)
        to_disk(temporary)
        os.replace(temporary, path)
        to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Returns when the bytes of a file, or the names in a directory, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def publish(
    directory: Path, *, manifest: dict[str, Any], name: str = MANIFEST, parts: Sequence[str] = ()
) -> Iterator[Path]:
    """Yields a scratch directory that becomes `directory` when the block ends without an error.

    Args:
      directory: final place; an artefact that is already there is replaced.
      manifest: JSON-serialisable content; may be filled inside the block. `files` is added here.
      name: of the manifest's file.
      parts: see `seal`.

    Raises:
      ArtifactError: the disk is full or cannot be written; nothing is left behind.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in directory.parent.glob(f".{directory.name}.{'[0-9a-f]' * 8}"):  # by a killed run
        shutil.rmtree(abandoned, ignore_errors=True)
    scratch = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}")
    replaced = scratch.with_name(scratch.name + ".old")
    scratch.mkdir()
    try:
        yield scratch
        seal(scratch, manifest, name=name, parts=parts)
        if directory.exists():
            directory.rename(replaced)
        scratch.rename(directory)
        to_disk(directory.parent)
    except OSError as error:
        raise ArtifactError(f"{directory}: could not be written ({error}); nothing was changed. "
                            "Free some space or choose another --out, then run the step again") from error  # fmt: skip
    finally:
        if replaced.exists() and not directory.exists():
            replaced.rename(directory)
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def seal(directory: Path, manifest: dict[str, Any], *, name: str = MANIFEST, parts: Sequence[str] = ()) -> None:
    """Writes the manifest of a finished directory: the given content and each file's bytes and CRC-32C.

    All of it is on the disk when this returns.

    Args:
      directory: holds all files.
      manifest: the content; `files` is added.
      name: of the manifest's file.
      parts: folders in it that were sealed by themselves; their own manifests vouch for what is below.
    """
    sealed = {directory / name, *(path for part in parts for path in (directory / part).rglob("*"))}
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path not in sealed)
    manifest["files"] = {
        str(path.relative_to(directory)): {"bytes": path.stat().st_size, "crc32c": checksum(path)} for path in files
    }
    for path in (*files, *(path for path in directory.rglob("*") if path.is_dir())):
        to_disk(path)
    write_json(directory / name, manifest)


def read_manifest(directory: Path, *, made_by: str, verify: bool = False, name: str = MANIFEST) -> dict[str, Any]:
    """The manifest of a published directory.

    Args:
      directory: the artefact.
      made_by: the command that makes it, for the error message, e.g. `recall prepare`.
      verify: also compare every file's checksum (reads all bytes); sizes are always compared.
      name: of the manifest's file.

    Raises:
      ArtifactError: no manifest, a file is missing, truncated or altered, or it lies outside of the directory.
    """
    path = directory / name
    if not path.exists():
        raise ArtifactError(f"{directory}: not there yet; run `{made_by}` first")
    try:
        manifest: dict[str, Any] = dict(json.loads(path.read_text()))
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
        if verify and checksum(file) != entry["crc32c"]:
            raise ArtifactError(f"{file}: its checksum differs from the manifest's; run `{made_by}` again")
    return manifest


_SERVED = {"data/manifest.json": "prepare", "model/manifest.json": "train", "index/CURRENT": "index"}


def require_steps(run: Path) -> None:
    """Raises ArtifactError if a step that serving needs was not done in a run directory; names the command."""
    for part, step in _SERVED.items():
        if not (run / part).exists():
            nothing = not any((run / other).exists() for other in _SERVED)
            command = f"recall run CONFIG.yaml --out {run}" if nothing else f"recall {step} --run {run}"
            raise ArtifactError(f"{run / part}: not there yet; run `{command}` first")
