"""Says whether an export may take the place of what is at a path."""

from __future__ import annotations

from pathlib import Path

from recall.core.artifacts import MANIFEST, read_manifest
from recall.core.errors import ArtifactError

MADE_BY = "recall export"


def require_replaceable(out: Path) -> None:
    """Refuse with ArtifactError a path that holds anything but an earlier export."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if out.is_dir() and (out / MANIFEST).exists() and read_manifest(out, made_by=MADE_BY).get("made_by") == MADE_BY:
        return
    raise ArtifactError(f"{out}: is there already and is no earlier export; choose another --out")
