"""Trains in a process that kills itself while an epoch is validated."""

from __future__ import annotations

from pathlib import Path

from tests.helpers import victims
from tests.helpers.killing import kills_itself


def train_until_killed(
    experiment: Path, data: Path, model: Path, overrides: tuple[str, ...], *, validation: int
) -> None:
    """Trains in a process of its own, with fingerprint "this", that dies by SIGKILL in its nth validation (from 1)."""
    kills_itself(victims.train_until_validation, validation, experiment, data, model, overrides)
