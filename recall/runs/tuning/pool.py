"""Takes trials: in processes that each have a share of the cores, or one after the other in this process."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from recall.runs.tuning.trial import Outcome, Task, run_trial

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
_PATIENCE_S = 10.0  # for a process to end
_MOST = 5  # trials of one process


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
      jobs: how many at once, each in a process of its own; 0: one after the other in this process.
      log: what the processes print, e.g. warnings of TensorFlow.
    """
    if jobs:
        return _in_processes(source, jobs=jobs, log=log)
    while (task := source.next()) is not None:
        source.end(task, run_trial(task, lambda entry, task=task: source.epoch(task, entry)))  # type: ignore[misc]
    return None


def _in_processes(source: Source, *, jobs: int, log: Path) -> None:
    """Take trials in worker processes; one that dies fails its trial, and another one takes its place.

    So does one that has taken `_MOST` trials: TensorFlow keeps some of the memory of each training.
    """
    workers = _Workers(jobs=jobs, log=log)
    try:
        while True:
            while workers.has_room and (task := source.next()) is not None:
                workers.start(task)
            if not workers.busy:
                break
            for worker in workers.ready():
                task, message = workers.busy[worker], worker.receive()
                if message is not None and "epoch" in message:
                    worker.send({"goes_on": source.epoch(task, message["epoch"])})
                    continue
                workers.free(worker, is_alive=message is not None)
                outcome = {"state": "failed", "reason": worker.last_words()} if message is None else message["outcome"]
                source.end(task, Outcome(**outcome))
    except BaseException:
        workers.end(at_once=True)
        raise
    workers.end()


class _Workers:
    """Hold the worker processes; each begins when there is a trial for it."""

    def __init__(self, *, jobs: int, log: Path) -> None:
        self._jobs, self._log = jobs, log
        self._idle: list[_Worker] = []
        self.busy: dict[_Worker, Task] = {}

    @property
    def has_room(self) -> bool:
        """Tell whether a further trial can begin."""
        return len(self.busy) < self._jobs

    def start(self, task: Task) -> None:
        """Let a worker take a trial."""
        worker = self._idle.pop() if self._idle else _Worker(jobs=self._jobs, log=self._log)
        worker.send({"folder": str(task.folder), "data": str(task.data)})
        worker.tasks += 1
        self.busy[worker] = task

    def ready(self) -> list[_Worker]:
        """Wait for messages; return the workers that sent one, or are dead."""
        with selectors.DefaultSelector() as selector:
            for worker in self.busy:
                selector.register(worker.output, selectors.EVENT_READ, worker)
            return [key.data for key, _ in selector.select()]

    def free(self, worker: _Worker, *, is_alive: bool) -> None:
        """Take a worker off its trial."""
        del self.busy[worker]
        if is_alive and worker.tasks < _MOST:
            self._idle.append(worker)
        else:
            worker.end()

    def end(self, *, at_once: bool = False) -> None:
        """End all workers."""
        for worker in (*self._idle, *self.busy):
            worker.end(at_once=at_once)


class _Worker:
    """Hold a process that takes trials; see `worker.py`. It ends with this process at the latest."""

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
        self.tasks = 0

    def end(self, *, at_once: bool = False) -> None:
        """End the process: when it waits for its next trial, or at once."""
        if at_once:
            self._process.terminate()
        with suppress(OSError):
            self._input.close()  # a worker without a trial has nothing more to wait for
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
