"""The service and its publisher as processes, and what is watched of them: memory, and which version is current."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks.common.machine import ROOT
from recall.core.errors import RecallError

_START_SECONDS = 300  # for what takes a few on a quiet machine
_STOP_SECONDS = 120


class Server:
    """`recall serve` on a free port of the loopback; ready when it is made.

    Args:
      run: directory of the run; another process may publish there.
      token: of writers.
      settings: `name=value` of `--set`.
      log: file that takes what the service logs.

    Raises:
      RecallError: it did not start; shows the end of the log.
    """

    def __init__(self, run: Path, *, token: str, settings: Sequence[str], log: Path) -> None:
        command = [sys.executable, "-m", "recall.cli", "serve", "--run", str(run), "--port", "0", "--allow-writes"]
        command += [f"--set={setting}" for setting in settings]
        self.log = log
        with log.with_suffix(".err").open("w") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment(RECALL_TOKEN=token)
            )
        self.events: list[dict[str, Any]] = []
        self._new: queue.Queue[dict[str, Any] | None] = queue.Queue()
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        self.url = f"http://127.0.0.1:{self._wait_for('listening')['port']}"
        self._wait_for("loaded")

    def stop(self) -> int:
        """Asks it to end, waits, and returns its exit code; that of a kill if it does not end."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._reader.join()
        return self.process.wait()

    def cpu_seconds(self) -> float:
        """Of all its threads so far."""
        import psutil

        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def _read(self, stream: IO[str]) -> None:
        with self.log.open("w") as log:
            for line in stream:
                log.write(line)
                log.flush()
                with contextlib.suppress(ValueError):  # a line that is no JSON is of a library: it stays in the log
                    self.events.append({**json.loads(line), "at": time.monotonic()})
                    self._new.put(self.events[-1])
        self._new.put(None)

    def _wait_for(self, event: str) -> dict[str, Any]:
        with contextlib.suppress(queue.Empty):
            while (line := self._new.get(timeout=_START_SECONDS)) is not None:
                if line["event"] == event:
                    return line
        self.process.kill()
        raise RecallError(f"recall serve: did not log {event!r}; see {self.log} and {self.log.with_suffix('.err')}")


class Watch:
    """Once a second: resident memory of a process, and the current version of an index.

    Args:
      pid: of the process.
      index: directory of the index.
    """

    def __init__(self, pid: int, index: Path, *, seconds: float = 1.0) -> None:
        self._pid, self._current, self._seconds = pid, index / "CURRENT", seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.memory: list[tuple[float, float]] = []  # monotonic seconds, MB
        self.versions: list[tuple[float, str]] = []  # when each was first seen

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._pid)
            while not self._stopping.wait(self._seconds):
                now, version = time.monotonic(), self._current.read_text().strip()
                self.memory.append((now, process.memory_info().rss / 1e6))
                if not self.versions or self.versions[-1][1] != version:
                    self.versions.append((now, version))


@contextlib.contextmanager
def publisher(source: Path, target: Path, *, every: float, log: Path) -> Iterator[None]:
    """Another process publishes `source` as a new version of `target` every so many seconds.

    Raises:
      RecallError: it did not start, or ended before it was told to.
    """
    command = [sys.executable, "-m", "benchmarks.serving.publisher", str(source), str(target), f"--every={every}"]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment())
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RecallError(f"the publisher did not start; see {log}")
        yield
        if process.poll() is not None:
            raise RecallError(f"the publisher ended with exit code {process.returncode}; see {log}")
    finally:
        process.terminate()
        process.wait()


def environment(**further: str) -> dict[str, str]:
    """Environment variables of a process that finds this repository; its threads are as the libraries choose."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(paths), **further}
