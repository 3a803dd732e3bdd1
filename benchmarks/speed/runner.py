"""Measures cases, each in a process of its own; those of a row take turns, so that disturbances hit all."""

from __future__ import annotations

import datetime
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from benchmarks.common.machine import environment, process_environment
from benchmarks.speed.results import write_result
from benchmarks.speed.sweep import PlannedCase, Row, Sweep
from recall.core.errors import RecallError

_ROWS = "benchmarks.speed.rows"
_SAMPLE_SECONDS = 0.05


class Turn(NamedTuple):
    """One measurement to make.

    Attributes:
      repeat: from 0.
      case: of what.
    """

    repeat: int
    case: PlannedCase


def turns(row: Row, cases: Sequence[PlannedCase]) -> Iterator[Turn]:
    """All measurements of a row: every case once, then every case again that asks for it."""
    repeats = [row.repeats_for(case.case) for case in cases]
    for repeat in range(max(repeats, default=0)):
        yield from (Turn(repeat, case) for case, count in zip(cases, repeats, strict=True) if repeat < count)


def measure_all(
    sweep: Sweep, cases: Sequence[PlannedCase], *, out: Path, results: Path, command: Sequence[str], console: Console
) -> list[PlannedCase]:
    """Measures cases row by row and writes their results.

    Args:
      sweep: says how the rows are measured.
      cases: what to measure, those of a row in sequence.
      out: folder of what is prepared, and of logs.
      results: folder of the JSON.
      command: what started all this, for the record.
      console: is told about every measurement.

    Returns:
      The cases that failed; they have no new result.

    Raises:
      RecallError: what watches the processes is not installed.
    """
    if importlib.util.find_spec("psutil") is None:
        raise RecallError("speed is measured with psutil; pip install 'recall-towers[benchmarks]'")
    failed: list[PlannedCase] = []
    for name, of_row in groupby(cases, key=lambda case: case.row):
        failed += _measure_row(name, sweep.rows[name], list(of_row), out, results, command=command, console=console)
    return failed


def _measure_row(
    name: str,
    row: Row,
    cases: Sequence[PlannedCase],
    out: Path,
    results: Path,
    *,
    command: Sequence[str],
    console: Console,
) -> list[PlannedCase]:
    scratch = (out / name).resolve()
    (scratch / "logs").mkdir(parents=True, exist_ok=True)
    # One date for the whole row: claims compare what was measured side by side.
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    measured: dict[str, list[dict[str, Any]]] = {case.case: [] for case in cases}
    failed: list[PlannedCase] = []
    for case in cases:
        started = time.perf_counter()
        if _run(row, case, scratch, out=None) is None:
            failed.append(case)
            console.print(f"{case.name}: [red]could not be prepared[/red], see {_log(scratch, case)}")
        else:
            console.print(f"{case.name}: prepared in {time.perf_counter() - started:.1f} s")
    made = environment(threads=row.cores, peers=row.peers)
    for repeat, of_turn in groupby(turns(row, cases), key=lambda turn: turn.repeat):
        for _, case in of_turn:
            if case in failed:
                continue
            started = time.perf_counter()
            found = _run(row, case, scratch, out=scratch / f"{case.case}.measured.json")
            if found is None:
                failed.append(case)
                console.print(f"{case.name}: [red]failed[/red], see {_log(scratch, case)}")
                continue
            measured[case.case].append(found)
            seconds = time.perf_counter() - started
            console.print(f"{case.name} {repeat + 1}/{row.repeats_for(case.case)}: {seconds:.1f} s")
        # After each turn of all cases: a row that is interrupted leaves the turns that it has finished.
        for case in cases:
            if case not in failed:
                about = {"arguments": dict(case.arguments), "command": list(command), "date": date, "environment": made}
                write_result(results, name, case.case, repeats=measured[case.case], about=about)
    return failed


def _run(row: Row, case: PlannedCase, scratch: Path, *, out: Path | None) -> dict[str, Any] | None:
    """One process that prepares a case, or measures it into a file; its numbers, None if it failed."""
    arguments = [row.module or f"{_ROWS}.{case.row}", json.dumps(dict(case.arguments)), "--cores", str(row.cores)]
    arguments += ["--scratch", str(scratch), *(["--out", str(out)] if out else [])]
    if out:
        out.unlink(missing_ok=True)
    with _log(scratch, case).open("a") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.worker", *arguments],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=process_environment(row.cores),
        )
        peak = _watch(process, timeout_seconds=row.timeout_seconds)
    if process.returncode or (out and not out.exists()):
        return None
    if out is None:
        return {}
    written = json.loads(out.read_text())
    own = written["peak_rss_bytes"]
    return {**written["measured"], "peak_rss_bytes": max(peak, own), "load_before": written["load_before"]}


def _watch(process: subprocess.Popen[bytes], *, timeout_seconds: float) -> int:
    """Waits for a process; returns the most resident bytes that it and its children were seen with together."""
    import psutil

    peak, deadline = 0, time.monotonic() + timeout_seconds
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        if time.monotonic() > deadline:
            for member in [*watched.children(recursive=True), watched]:
                member.kill()
        try:
            members = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in members))
        except psutil.NoSuchProcess:  # one of them ended between two lines
            pass
        time.sleep(_SAMPLE_SECONDS)
    return peak


def _log(scratch: Path, case: PlannedCase) -> Path:
    return scratch / "logs" / f"{case.case}.txt"
