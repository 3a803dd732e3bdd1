"""One measurement in a fresh process: `python -m benchmarks.speed.worker MODULE ARGUMENTS --cores N --scratch DIR`."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Annotated

import typer


def work(
    module: Annotated[str, typer.Argument(help="with measure(), dotted")],
    arguments: Annotated[str, typer.Argument(help="of the case, as JSON")],
    cores: Annotated[int, typer.Option(min=1)],
    scratch: Annotated[Path, typer.Option(help="folder of the row's files")],
    out: Annotated[Path | None, typer.Option(help="where the numbers go; without it the case is only prepared")] = None,
) -> None:
    """Measures one case once, or prepares it."""
    # The last cores: the first one serves most interrupts, and the process that watches this one needs some place too.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    row = importlib.import_module(module)
    case = json.loads(arguments)
    if out is None:
        if hasattr(row, "prepare"):
            row.prepare(scratch, **case)
        return
    load = os.getloadavg()[0]
    measured = row.measure(scratch, **case)
    out.write_text(json.dumps({"measured": measured, "peak_rss_bytes": _own_peak_bytes(), "load_before": load}))


def _own_peak_bytes() -> int:
    """Exact, where the watching process only sees samples; of this process alone."""
    # Not getrusage: its maximum is inherited from the parent.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    typer.run(work)
