"""Takes trials one after the other: in this process, or in several that each have a share of the cores."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from recall.runs.tuning.trial import Outcome, Task, run_trial

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
_PATIENCE_S = 10.0  # for a process to end


class Source(Protocol):
    """Give out trials and take their results."""

    def next(self) -> Task | None:
        """Return the next trial; None: there is no further one."""

    def epoch(self, task: Task, entry: Mapping[str, Any]) -> bool:
        """Take the history entry of an epoch, and say whether the trial goes on."""

    def end(self, task: Task, outcome: Outcome) -> None:
        """Take the result of a trial."""


def take_trials(source: Source, *, jobs: int, log: Path) -> None:
    """Take all trials of a source.

    Args:
      source: its methods are called in this process, one at a time.
      jobs: how many at once; 1: in this process.
      log: what further processes print, e.g. warnings of TensorFlow.
    """
    if jobs > 1:
        return _in_processes(source, jobs=jobs, log=log)
    while (task := source.next()) is not None:
        source.end(task, run_trial(task, lambda entry, task=task: source.epoch(task, entry)))  # type: ignore[misc]
    return None


def _in_processes(source: Source, *, jobs: int, log: Path) -> None:
    """Take trials in worker processes; one that dies fails its trial, and another one takes its place."""
    with ExitStack() as stack, selectors.DefaultSelector() as selector:

        def started() -> _Worker:
            return stack.enter_context(_Worker(jobs=jobs, log=log))

        idle, busy = [started() for _ in range(jobs)], dict[_Worker, Task]()
        while True:
            while idle and (task := source.next()) is not None:
                worker = idle.pop()
                worker.send({"folder": str(task.folder), "data": str(task.data)})
                busy[worker] = task
                selector.register(worker.output, selectors.EVENT_READ, worker)
            if not busy:
                return
            for key, _ in selector.select():
                worker = key.data
                task, message = busy[worker], worker.receive()
                if message is not None and "epoch" in message:
                    worker.send({"goes_on": source.epoch(task, message["epoch"])})
                    continue
                selector.unregister(worker.output)
                del busy[worker]
                if message is None:
                    idle.append(started())
                    source.end(task, Outcome("failed", reason=worker.last_words()))
                else:
                    idle.append(worker)
                    source.end(task, Outcome(**message["outcome"]))


class _Worker:
    """Hold a process that takes trials; see `worker.py`. It ends with the block, and with this process."""

    def __init__(self, *, jobs: int, log: Path) -> None:
        threads = str(max(1, len(os.sched_getaffinity(0)) // jobs))
        with log.open("a") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "recall.runs.tuning.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
                env={**dict.fromkeys(_THREADS, threads), **os.environ},
                start_new_session=True,  # Ctrl-C is for this process, which ends the others
            )  # fmt: skip
        assert self._process.stdin
        assert self._process.stdout
        self._input, self.output = self._process.stdin, self._process.stdout

    def __enter__(self) -> _Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.terminate()
        with suppress(OSError):
            self._input.close()  # an idle worker has nothing more to wait for
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.output.close()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; to a process that is dead it is lost, and `receive` finds out."""
        with suppress(OSError):
            self._input.write(json.dumps(message) + "\n")
            self._input.flush()

    def receive(self) -> dict[str, Any] | None:
        """Wait for a message; None: the process is dead."""
        line = self.output.readline()
        return json.loads(line) if line.endswith("\n") else None

    def last_words(self) -> str:
        """Say how the process died."""
        code = self._process.wait()
        if code == -9:
            return "its process was killed (signal 9), as happens when memory is short; use fewer --jobs"
        return f"its process ended with {f'signal {-code}' if code < 0 else f'code {code}'}"
