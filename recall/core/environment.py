"""Reports the environment of a result, beside its data and settings: package versions and the commit."""

from __future__ import annotations

import contextlib
import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = ("tensorflow", "tf-keras", "tensorflow-recommenders", "scann", "apache-beam", "numpy", "pandas", "pyarrow")


def versions() -> dict[str, str]:
    """Return the versions of the packages that results depend on, as far as they are installed."""
    installed = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):  # a serving host has no Beam
            installed[name] = metadata.version(name)
    return installed


def commit() -> str:
    """Return the commit of the working tree that the library runs from, or 'unknown'."""
    file = Path(__file__).resolve()
    # A copy in site-packages may lie inside the repository of another project, which does not track it.
    commands = (["ls-files", "--error-unmatch", str(file)], ["rev-parse", "--short=12", "HEAD"])
    try:
        for command in commands:
            result = subprocess.run(
                ["git", "-C", str(file.parent), *command], capture_output=True, text=True, check=True, timeout=5
            )
        return result.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
