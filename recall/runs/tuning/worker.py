"""Takes the trials that a tuning in another process sends: `python -m recall.runs.tuning.worker`.

A line of standard input is a trial, or the answer to an epoch; a line of standard output is an epoch, or an outcome.
At the end of its input the process ends.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from recall.runs.console import silence_libraries
from recall.runs.tuning.trial import Task, run_trial


def work(tasks: TextIO, results: TextIO) -> None:
    """Take trials until there is no further one.

    Args:
      tasks: lines of JSON to read.
      results: lines of JSON to write.
    """

    def send(message: Mapping[str, Any]) -> None:
        results.write(json.dumps(message) + "\n")
        results.flush()

    def goes_on(entry: Mapping[str, Any]) -> bool:
        send({"epoch": dict(entry)})
        if not (answer := tasks.readline()):
            raise SystemExit(0)  # nobody is there any more to take the result
        return bool(json.loads(answer)["goes_on"])

    while line := tasks.readline():
        task = json.loads(line)
        send({"outcome": run_trial(Task(Path(task["folder"]), Path(task["data"])), goes_on)._asdict()})


if __name__ == "__main__":
    # What a library prints goes to standard error.
    own_output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    silence_libraries()
    work(sys.stdin, own_output)
