"""Checks that the steps of a run that serving needs were done."""

from __future__ import annotations

from pathlib import Path

from recall.core.errors import ArtifactError

_SERVED = {"data/manifest.json": "prepare", "model/manifest.json": "train", "index/CURRENT": "index"}


def require_steps(run: Path) -> None:
    """Raise ArtifactError if a step that serving needs was not done in a run directory; names the command."""
    for part, step in _SERVED.items():
        if not (run / part).exists():
            nothing = not any((run / other).exists() for other in _SERVED)
            command = f"recall run CONFIG.yaml --out {run}" if nothing else f"recall {step} --run {run}"
            raise ArtifactError(f"{run / part}: not there yet; run `{command}` first")
