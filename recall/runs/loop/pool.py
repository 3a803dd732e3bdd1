"""Plays tasks in processes of one thread each, several at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from recall.core.errors import RecallError
from recall.runs.loop.worker import Task, run_task

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def play_tasks(tasks: Iterable[Task], *, jobs: int, done: Callable[[Task], None]) -> None:
    """Play all tasks.

    Args:
      tasks: the tasks; their results are published in their folders.
      jobs: how many at once, each in a process of its own; 0: one after the other in this process.
      done: is told of each task that is published, in this thread.

    Raises:
      RecallError: a task failed. The others that had begun are ended, and what is published stays.
    """
    if not jobs:
        for task in tasks:
            run_task(task)
            done(task)
        return
    processes: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(_play, task, processes): task for task in tasks}
        try:
            for future in as_completed(waiting):
                future.result()
                done(waiting[future])
        except BaseException:
            for one in waiting:
                one.cancel()
            for process in processes:
                process.terminate()
            raise


def _play(task: Task, processes: list[subprocess.Popen[str]]) -> None:
    """Play a task in a process, and wait for it."""
    log = Path(task.folder).with_name(f"{Path(task.folder).name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "recall.runs.loop.worker"],
            stdin=subprocess.PIPE, stdout=output, stderr=output, text=True,
            env={**os.environ, **dict.fromkeys(_THREADS, "1")},
            start_new_session=True,  # Ctrl-C is for this process, which ends the others
        )  # fmt: skip
        processes.append(process)
        assert process.stdin
        process.stdin.write(json.dumps(asdict(task)) + "\n")
        process.stdin.flush()
        code = process.wait()
        process.stdin.close()
    if code:
        raise RecallError(f"{task.arm}, seed {task.seed}: {_last_words(log, code)}")
    log.unlink()


def _last_words(log: Path, code: int) -> str:
    """Say why a process ended."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    if code == 2 and lines and lines[-1].startswith("error: "):
        return lines[-1].removeprefix("error: ")
    if code == -9:
        return "its process was killed (signal 9), as happens when memory is short; use fewer --jobs"
    return f"its process ended with {f'signal {-code}' if code < 0 else f'code {code}'}; {log} has what it printed"
