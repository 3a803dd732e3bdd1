"""How long people wait: the command's help, and the first answer of a finished run."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.speed.community import stored_run, user_ids


def prepare(scratch: Path, *, system: str, items: int = 20_000) -> None:
    """Makes the run, and starts the command once, so that files are in memory."""
    stored_run(scratch.parent, items)
    measure(scratch, system=system, items=items)


def measure(scratch: Path, *, system: str, items: int = 20_000) -> dict[str, float]:
    """Seconds of a whole process.

    Args:
      scratch: the run is beside it.
      system: `help`, recall --help; `query`, recall query for one user; `tensorflow`, an import of TensorFlow alone,
        to see what part of a query that is.
      items: size of the run's catalogue.
    """
    run = stored_run(scratch.parent, items)
    query = ["query", "--run", str(run), "--user", user_ids()[0], "-k", "10", "--json"]
    command = {
        "help": ["-m", "recall.cli", "--help"],
        "query": ["-m", "recall.cli", *query],
        "tensorflow": ["-c", "import recall, tensorflow"],
    }[system]
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return {"seconds": time.perf_counter() - started}
