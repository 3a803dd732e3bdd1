"""One writer beside the clients: adds, changes and deletes items, and looks at once whether that shows."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serving.item_states import ABSENT, Write
from benchmarks.serving.plan import Plan

_SEED = 2
_SECONDS = 30.0  # patience with one request
_MOST_ERRORS = 20


class Writer:
    """Sends writes on a schedule, one after another; what falls behind is caught up with.

    After each second's writes the items that they changed are asked for by id (`allow`): those added have to be there,
    those deleted not. These answers are kept like those of clients.

    Args:
      url: of the service.
      token: of writers.
      plan: how many of what per second.
      contents: rows of the items file, the ids taken out; what is added.
      victims: ids of the catalogue that are deleted one by one.
      users: whose lists are looked at.
      answers: file for the answers.
    """

    def __init__(
        self, url: str, *, token: str, plan: Plan, contents: Sequence[Mapping[str, Any]], victims: Sequence[str],
        users: Sequence[str], answers: Path,
    ) -> None:  # fmt: skip
        self._client = httpx.Client(base_url=url, timeout=_SECONDS, headers={"Authorization": f"Bearer {token}"})
        self._plan, self._contents, self._users, self._answers = plan, contents, users, answers
        self._victims = iter(victims)
        self._ids = itertools.cycle([f"added-{number}" for number in range(plan.added_items)])
        self._choices = random.Random(_SEED)
        self._live: dict[str, None] = {}  # added and not deleted
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self.writes: list[Write] = []
        self.milliseconds: list[float] = []  # of upserts
        self.failures: list[str] = []
        self.seconds = 0.0

    def start(self) -> None:
        """Begins to write, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends with the second under way."""
        self._stopping.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        started = time.monotonic()
        try:
            with self._answers.open("w") as answers:
                for second in itertools.count():
                    self._one_second(started + second, answers)
                    if self._stopping.is_set():
                        break
        except Exception as error:  # the thread's end must not pass for a quiet writer
            self._fail(f"the writer ended: {error!r}")
        self.seconds = time.monotonic() - started

    def _one_second(self, begin: float, answers: Any) -> None:
        requests = max(1, self._plan.upserts_per_second // self._plan.items_per_upsert)
        first = len(self.writes)
        for number in range(requests):
            self._wait_until(begin + number / requests)
            self._upsert()
        doomed = self._choices.sample(list(self._live), min(self._plan.deletes_per_second, len(self._live)))
        self._delete([*doomed, *itertools.islice(self._victims, 1)])
        changed = list(dict.fromkeys(write.item for write in self.writes[first:]))
        self._look(changed, answers)

    def _upsert(self) -> None:
        names = list(itertools.islice(self._ids, self._plan.items_per_upsert))
        contents = [self._choices.randrange(len(self._contents)) for _ in names]
        rows = [{**self._contents[content], "item_id": name} for name, content in zip(names, contents, strict=True)]
        sent = time.monotonic()
        if self._send("POST", "/items", {"items": rows}) is not None:
            acknowledged = time.monotonic()
            self.milliseconds.append((acknowledged - sent) * 1e3)
            self.writes += [
                Write(name, content, sent, acknowledged) for name, content in zip(names, contents, strict=True)
            ]
            self._live.update(dict.fromkeys(names))

    def _delete(self, names: Sequence[str]) -> None:
        sent = time.monotonic()
        if names and self._send("DELETE", "/items", {"ids": names}) is not None:
            acknowledged = time.monotonic()
            self.writes += [Write(name, ABSENT, sent, acknowledged) for name in names]
            for name in names:
                self._live.pop(name, None)

    def _look(self, names: Sequence[str], answers: Any) -> None:
        if not names:
            return
        question = {
            "users": [self._choices.choice(self._users)], "k": len(names), "filters": {"allow": names},
            "exclude_seen": False, "fallback": False,
        }  # fmt: skip
        sent = time.monotonic()
        answer = self._send("POST", "/recall", question)
        if answer is not None:
            line = {"sent": sent, "received": time.monotonic(), "question": question, "answer": answer}
            answers.write(json.dumps(line) + "\n")

    def _send(self, method: str, path: str, body: Mapping[str, Any]) -> Any | None:
        try:
            response = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            return self._fail(f"{method} {path}: {error!r}")
        if response.status_code != 200:
            return self._fail(f"{method} {path}: {response.status_code} {response.text[:300]}")
        return response.json()

    def _fail(self, why: str) -> None:
        # What an unanswered write did is unknown: the load test has failed, and answers may be called wrong for it.
        if len(self.failures) < _MOST_ERRORS:
            self.failures.append(why)

    def _wait_until(self, moment: float) -> None:
        if (seconds := moment - time.monotonic()) > 0:
            time.sleep(seconds)
