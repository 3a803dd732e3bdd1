"""What a result was made with, and how processes are kept to their part of the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from recall.core.environment import commit, versions

ROOT = Path(__file__).resolve().parents[2]
_THREADS = (
    "OMP_NUM_THREADS",  # Arrow's too
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
)


def environment(*, threads: int, peers: Sequence[str] = ()) -> dict[str, Any]:
    """Commit, versions, CPU, cores of the machine and threads of the process, for a result's JSON.

    Args:
      threads: that libraries were told to use.
      peers: further packages, of which the installed ones are named.
    """
    return {
        "commit": commit(),
        "versions": {"python": platform.python_version(), **versions(), **_installed(peers)},
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
    }


def cpu() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def process_environment(threads: int) -> dict[str, str]:
    """Environment variables of a process whose libraries use so many threads, and that finds this repository."""
    environment = {**os.environ, **dict.fromkeys(_THREADS, str(threads)), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return environment


def _installed(packages: Sequence[str]) -> Mapping[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
