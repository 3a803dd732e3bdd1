"""What one client does, for `locust --headless`: a question, its answer, the next question at once.

Every latency is kept, and so is a sample of the answers; locust's own statistics round both away.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from benchmarks.serving.questions import Asking

_SEED = 1
_MOST_ERRORS = 20  # kept in words; all are counted


class Load:
    """What all clients of one phase share.

    Args:
      asked: file with an `Asking`, and what share of the answers to keep.
      out: folder for latencies.json and answers.jsonl.
    """

    def __init__(self, asked: Path, out: Path) -> None:
        content = json.loads(asked.read_text())
        self.asking, self.sampled_share = Asking(**content["asking"]), content["sampled_share"]
        self.choices = random.Random(_SEED)
        self.sent: list[float] = []
        self.milliseconds: list[float] = []
        self.failures = 0
        self.examples: list[str] = []
        self._out, self._answers = out, (out / "answers.jsonl").open("w")

    def keep(self, body: dict[str, Any], text: str, *, sent: float, received: float) -> None:
        """Counts an answer, and writes some of them down as they came."""
        self.sent.append(sent)
        self.milliseconds.append((received - sent) * 1e3)
        if self.choices.random() < self.sampled_share:
            line = {"sent": sent, "received": received, "question": body, "answer": json.loads(text)}
            self._answers.write(json.dumps(line) + "\n")

    def fail(self, why: str) -> None:
        """Counts a question that got no answer."""
        self.failures += 1
        if len(self.examples) < _MOST_ERRORS:
            self.examples.append(why[:300])

    def close(self) -> None:
        """Writes what was measured."""
        self._answers.close()
        measured = {
            "sent": self.sent, "milliseconds": self.milliseconds, "failures": self.failures, "examples": self.examples
        }  # fmt: skip
        (self._out / "latencies.json").write_text(json.dumps(measured))


@events.init_command_line_parser.add_listener
def _add_arguments(parser: LocustArgumentParser) -> None:
    parser.add_argument("--asked", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)


@events.test_start.add_listener
def _begin(environment: Environment, **_: Any) -> None:
    options = environment.parsed_options
    assert options is not None
    AsksForCandidates.load = Load(options.asked, options.results)


@events.test_stop.add_listener
def _end(**_: Any) -> None:
    AsksForCandidates.load.close()


class AsksForCandidates(FastHttpUser):
    """A client that never pauses."""

    wait_time = constant(0)
    load: Load

    @task
    def ask(self) -> None:
        """One POST /recall."""
        load = self.load
        body = load.asking.question(load.choices)
        sent = time.monotonic()
        with self.client.post("/recall", json=body, catch_response=True) as response:
            text = response.text
            received = time.monotonic()
            if response.status_code == 200 and text:
                load.keep(body, text, sent=sent, received=received)
                response.success()
            else:
                load.fail(f"{response.status_code} {response.error or text}")
                response.failure("no answer")
