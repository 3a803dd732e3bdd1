"""Measures heavy requests: seconds of a core, and how long another user waits for an answer meanwhile.

Beside this code the same runs with an earlier one, so that the ratio holds on any machine.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.common.machine import environment, process_environment
from recall.core.artifacts import write_json
from recall.core.errors import RecallError

_USERS, _REPEATS, _PATIENCE_SECONDS = 256, 3, 240.0
_CAPS = {"author_id": 1, "tags": 1}


def heavy_requests(users: list[str]) -> dict[str, dict[str, Any]]:
    """Return the requests by name, as keywords of `Recaller.recall`; bodies of POST /recall are the same."""
    predicates = [{"column": "author_id", "not_in": [f"x{number}"]} for number in range(2000)]
    return {
        "caps and a cold share": {"users": users, "k": 1000, "caps": _CAPS, "min_cold_share": 0.5},
        "caps that fill": {"users": users, "k": 1000, "caps": {"author_id": 50, "tags": 300}, "min_cold_share": 0.5},
        "2,000 predicates": {"users": users[:1], "k": 50, "filters": {"where": predicates}},
        "one user, k = 10": {"users": users[:1], "k": 10},
        "one user, k = 10, a cap": {"users": users[:1], "k": 10, "caps": {"author_id": 2}},
    }


def measure(run: Path, *, before: Path | None, results: Path, command: list[str]) -> dict[str, Any]:
    """Measure a finished run of the simulated community, and write heavy.json.

    Args:
      run: the run; it is read only.
      before: a checkout of the library to compare with; None: nothing is compared.
      results: folder of the JSON.
      command: the command line, for the JSON.

    Raises:
      RecallError: a measuring process failed.
    """
    content: dict[str, Any] = {"command": command, "environment": environment(threads=1)}
    for name, code in (("before", before), ("after", None)):
        if name == "before" and before is None:
            continue
        content[name] = {"seconds": _seconds(run, code), "another_user_waits_seconds": _waiting(run, code)}
    if before is not None:
        content["ratio"] = {
            name: content["before"]["seconds"][name] / seconds for name, seconds in content["after"]["seconds"].items()
        }
    results.mkdir(parents=True, exist_ok=True)
    write_json(results / "heavy.json", content)
    return content


def _environment(code: Path | None) -> dict[str, str]:
    variables = process_environment(1)
    return variables if code is None else {**variables, "PYTHONPATH": str(code.resolve())}


def _seconds(run: Path, code: Path | None) -> Mapping[str, float]:
    """Return CPU seconds by request, measured in a process of its own."""
    # Not as a script: its folder would come before the code to be measured on the path.
    start = f"import runpy; runpy.run_path({str(Path(__file__).resolve())!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", start, str(run.resolve())], env=_environment(code), capture_output=True, text=True,
        check=False, cwd=run,
    )  # fmt: skip
    if done.returncode:
        raise RecallError(f"heavy requests: the measuring process failed: {done.stderr[-1000:]}")
    found: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _waiting(run: Path, code: Path | None) -> float:
    """Return the seconds that a user waits for five candidates while two heavy requests run; at most the patience."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port = listening.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "recall.cli", "serve", "--run", str(run.resolve()), "--port", str(port)],
        env=_environment(code), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=run,
    )  # fmt: skip
    try:
        ends = time.monotonic() + _PATIENCE_SECONDS
        while _status(port, "GET", "/readyz") != 200:
            if time.monotonic() > ends or server.poll() is not None:
                raise RecallError("heavy requests: the service did not become ready")
            time.sleep(0.5)
        heavy = {**heavy_requests(_user_ids())["caps and a cold share"]}
        for _ in range(2):
            threading.Thread(target=_status, args=(port, "POST", "/recall", heavy), daemon=True).start()
        time.sleep(0.5)  # until both are under way
        asked = time.perf_counter()
        _status(port, "POST", "/recall", {"users": _user_ids()[:1], "k": 5})
        return time.perf_counter() - asked
    finally:
        server.kill()
        server.wait(30)


def _status(port: int, method: str, path: str, body: Any = None) -> int:
    """Send a request and return its status; 0 without an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_SECONDS)) as connection:
        try:
            connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except OSError:
            return 0


def _user_ids() -> list[str]:
    """Return user ids of the simulated community."""
    return [f"u{number:04d}" for number in range(1, _USERS + 1)]


def _measure_here(run: str) -> dict[str, float]:
    """Return CPU seconds by request; runs in the measuring process, with the code on its path."""
    import recall

    recaller, found = recall.Recaller.load(run), dict[str, float]()
    for name, request in heavy_requests(_user_ids()).items():
        repeats = _REPEATS if len(request["users"]) > 1 or "filters" in request else 300
        recaller.recall(**{**request, "users": request["users"][:2]})  # the first call of a kind reads facts
        seconds = list[float]()
        for _ in range(repeats):
            started = time.process_time()
            recaller.recall(**request)
            seconds.append(time.process_time() - started)
        found[name] = statistics.median(seconds)
    return found


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(json.dumps(_measure_here(sys.argv[1])))
