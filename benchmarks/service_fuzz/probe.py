"""python -m benchmarks.service_fuzz.probe HOST PORT: asks /healthz until its input ends, then prints how long it took.

A process of its own: whoever sends hostile requests is busy with them, and would measure itself.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time

_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.05


def main(host: str, port: int) -> None:
    """Probes, each time on a new connection."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    milliseconds, failures = list[float](), list[str]()
    while not ended.wait(_PAUSE_SECONDS):
        started = time.perf_counter()
        try:
            connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE_SECONDS)
            connection.request("GET", "/healthz", headers={"Host": "localhost"})
            status = str(connection.getresponse().status)
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            status = repr(error)
        milliseconds.append((time.perf_counter() - started) * 1000)
        if status != "200":
            failures.append(status)
    print(json.dumps({"milliseconds": milliseconds, "failures": failures}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
