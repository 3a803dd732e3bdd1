"""Saved indexes: numbered versions, and a CURRENT file that names the one to load.

DIR/CURRENT                 the number, e.g. 0003
DIR/versions/0003/          manifest.json, ids.parquet and the files of the index
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recall.artifacts import publish, read_manifest
from recall.errors import ArtifactError
from recall.index.base import Index
from recall.index.exact import ExactIndex
from recall.index.scann_index import ScannIndex

MADE_BY = "recall index"
KEPT_VERSIONS = 2

_FORMAT_VERSION = 1
_CURRENT = "CURRENT"
_IDS = "ids.parquet"
_KINDS: Mapping[str, type[Index]] = {kind.kind: kind for kind in (ExactIndex, ScannIndex)}


def save_index(index: Index, directory: str | Path, *, fingerprint: str) -> Path:
    """Publishes an index as the current version; the one before stays, older ones are removed.

    A save that is killed leaves the version that was current. One process at a time may save.

    Args:
      index: what to save.
      directory: created if need be.
      fingerprint: of the model that made the vectors; `load_index` compares it.

    Returns:
      The directory of the new version.

    Raises:
      ArtifactError: it could not be written; the current version is as it was.
    """
    directory = Path(directory)
    versions = directory / "versions"
    number = max(_numbers(versions), default=0) + 1
    manifest = {
        "format_version": _FORMAT_VERSION,
        "kind": index.kind,
        "fingerprint": fingerprint,
        "items": len(index),
        "entries_per_item": index.items.entries_per_item,
        "dim": index.dim,
        "settings": index.settings,
        "report": dict(index.report),
    }
    version = versions / f"{number:04d}"
    with publish(version, manifest=manifest) as scratch:
        pq.write_table(pa.table({"item_id": pa.array(index.ids, pa.string())}), scratch / _IDS)
        index._write(scratch)
    _point_to(directory, version)
    _prune(versions)
    return version


def load_index(directory: str | Path, *, fingerprint: str | None = None) -> Index:
    """The current version of a saved index, every byte checked.

    Args:
      directory: where `save_index` put it.
      fingerprint: of the model whose queries will be asked; None skips the comparison.

    Raises:
      ArtifactError: there is none, it is damaged, or it was made from another model's vectors.
    """
    directory = Path(directory)
    version = _current(directory)
    manifest = read_manifest(version, made_by=MADE_BY, verify=True)
    if manifest.get("format_version") != _FORMAT_VERSION or manifest.get("kind") not in _KINDS:
        raise ArtifactError(
            f"{version}: expected format {_FORMAT_VERSION} of kind {' or '.join(_KINDS)}, found format "
            f"{manifest.get('format_version')} of kind {manifest.get('kind')}; run `{MADE_BY}` again"
        )
    if fingerprint is not None and manifest.get("fingerprint") != fingerprint:
        raise ArtifactError(
            f"{version}: holds vectors of model {manifest.get('fingerprint')}, but the model is {fingerprint}; "
            f"run `{MADE_BY}` again"
        )
    try:
        return _read(version, manifest)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ArtifactError(f"{version}: cannot be opened ({error}); run `{MADE_BY}` again") from error


def _read(version: Path, manifest: Mapping[str, Any]) -> Index:
    ids = pq.read_table(version / _IDS).column("item_id").combine_chunks()
    kind = _KINDS[manifest["kind"]]
    index = kind._read(version, ids, settings=manifest["settings"], report=manifest["report"])
    entries = manifest["items"] * manifest.get("entries_per_item", 1)  # an item had one before it was noted
    found, expected = (len(ids), index.entries, index.dim), (manifest["items"], entries, manifest["dim"])
    if found != expected:
        raise ValueError(f"ids, vectors and dimensions: expected {expected}, found {found}")
    return index


def _current(directory: Path) -> Path:
    try:
        name = (directory / _CURRENT).read_text().strip()
    except FileNotFoundError:
        raise ArtifactError(f"{directory}: holds no index yet; run `{MADE_BY}` first") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{directory / _CURRENT}: cannot be read ({error}); run `{MADE_BY}` again") from error
    version = directory / "versions" / name
    if not re.fullmatch(r"\d{4,}", name) or not version.is_dir():
        raise ArtifactError(
            f"{directory / _CURRENT}: expected the number of a version in {version.parent}, found {name[:20]!r}; "
            f"run `{MADE_BY}` again"
        )
    return version


def _point_to(directory: Path, version: Path) -> None:
    temporary = directory / f".{_CURRENT}"
    try:
        temporary.write_text(version.name + "\n")
        os.replace(temporary, directory / _CURRENT)
    except OSError as error:
        raise ArtifactError(
            f"{directory / _CURRENT}: could not be written ({error}); the previous version stays current. "
            f"Free some space, then run `{MADE_BY}` again"
        ) from error


def _prune(versions: Path) -> None:
    kept = {f"{number:04d}" for number in sorted(_numbers(versions))[-KEPT_VERSIONS:]}
    for entry in versions.iterdir():
        # Names with a dot are what killed saves left behind.
        if entry.name not in kept and (entry.name.startswith(".") or entry.name.isdigit()):
            shutil.rmtree(entry, ignore_errors=True)


def _numbers(versions: Path) -> list[int]:
    if not versions.is_dir():
        return []
    return [int(entry.name) for entry in versions.iterdir() if re.fullmatch(r"\d{4,}", entry.name)]
