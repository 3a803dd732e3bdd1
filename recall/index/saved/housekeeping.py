"""Lists the versions of a saved index, goes back to an earlier one, and removes old ones."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from recall.core.artifacts import MANIFEST, read_manifest
from recall.core.errors import ArtifactError
from recall.index.saved.store import load_version
from recall.index.saved.versions import (
    MADE_BY,
    Removed,
    current_version,
    point_to,
    publishing,
    remove_versions,
    require_model,
    size_of,
    versions_of,
)


@dataclasses.dataclass(frozen=True)
class Version:
    """Describe a published version by its manifest; facts that a damaged manifest lacks are None.

    Attributes:
      number: its name, e.g. 0003.
      is_current: whether CURRENT names it.
      created: UTC, ISO 8601.
      items: number of items.
      kind: exact, scann, sharded, ...
      recall: measured against exact search at its build; 1.0 of an exact index, None without a measurement.
      fingerprint: of the model that made its vectors.
      bytes: of all its files.
      problem: reason why it cannot be opened; None if all files are there with the right sizes.
    """

    number: str
    is_current: bool
    created: str | None
    items: int | None
    kind: str | None
    recall: float | None
    fingerprint: str | None
    bytes: int
    problem: str | None


def list_versions(directory: str | Path) -> list[Version]:
    """Describe all versions of a saved index, the oldest first.

    Raises:
      ArtifactError: there is no index, or CURRENT names none of its versions.
    """
    directory = Path(directory)
    current = current_version(directory)
    return [_describe(folder, is_current=folder == current) for folder in versions_of(directory)]


def roll_back(directory: str | Path, *, fingerprint: str, to: str | None = None) -> str:
    """Make an earlier version the current one, after a check of its every byte.

    Processes that hold another version keep it until they load again.

    Args:
      directory: of the index.
      fingerprint: of the model whose queries will be asked.
      to: number of the version; default: the newest one below the current.

    Returns:
      The number of the version that is current now.

    Raises:
      ArtifactError: there is no such version, it is damaged, or holds another model's vectors; CURRENT is as it was.
    """
    directory = Path(directory)
    current_version(directory)  # raises before a directory is created where no index is
    with publishing(directory):
        current = current_version(directory)
        names = {int(folder.name): folder for folder in versions_of(directory)}
        there = ", ".join(folder.name for folder in names.values())
        if to is None:
            earlier = [number for number in names if number < int(current.name)]
            if not earlier:
                raise ArtifactError(f"{directory}: no version before {current.name}; there are {there}")
            version = names[max(earlier)]
        elif to.isdecimal() and int(to) in names:
            version = names[int(to)]
        else:
            raise ArtifactError(f"{directory}: no version {to!r}; there are {there}")
        require_model(
            version,
            read_manifest(version, made_by=MADE_BY),
            fingerprint=fingerprint,
            remedy=f"choose another version, or put the folder model of that time back and run `{MADE_BY}`",
        )
        load_version(version)
        point_to(directory, version)
        return version.name


def collect(directory: str | Path, *, keep: int) -> Removed:
    """Remove all versions but the newest `keep` and the current one, and leftovers of killed saves.

    Raises:
      ArtifactError: there is no index, or CURRENT names none of its versions.
      ValueError: keep is below 1.
    """
    if keep < 1:
        raise ValueError(f"keep: expected at least 1, found {keep}")
    directory = Path(directory)
    current_version(directory)  # raises before a directory is created where no index is
    with publishing(directory):
        return remove_versions(directory, keep=keep)


def _describe(version: Path, *, is_current: bool) -> Version:
    """Describe one version, damaged or not."""
    manifest: dict[str, Any] = {}
    problem = None
    try:
        manifest = dict(json.loads((version / MANIFEST).read_text()))
        read_manifest(version, made_by=MADE_BY)
        if "kind" not in manifest:
            problem = f"{version / MANIFEST}: does not say what the version holds"
    except (ArtifactError, OSError, ValueError, TypeError) as error:
        problem = str(error)
    modified = datetime.fromtimestamp(version.stat().st_mtime, timezone.utc)
    return Version(
        number=version.name,
        is_current=is_current,
        created=manifest.get("created", modified.isoformat(timespec="seconds")),
        items=manifest.get("items"),
        kind=(kind := manifest.get("kind")),
        recall=1.0 if kind == "exact" else _measured_recall(manifest),
        fingerprint=manifest.get("fingerprint"),
        bytes=size_of(version),
        problem=problem,
    )


def _measured_recall(manifest: Mapping[str, Any]) -> float | None:
    """Return the recall that a manifest reports, None without one."""
    measured = (manifest.get("report") or {}).get("measured") or {}
    # An index in shards is measured as a whole, under a name of its own.
    recall: float | None = (measured.get(manifest.get("kind")) or measured.get("merged") or {}).get("recall")
    return recall
