"""Tests the process: signals, many clients at once, and new versions while they ask."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from recall.core.artifacts import read_manifest
from recall.core.errors import ConfigError
from recall.index import load_index, save_index
from recall.serving.http.server import _listen
from recall.serving.http.server import serve as start
from recall.serving.http.settings import ServiceSettings
from tests.helpers.served_run import Server

Serve = Callable[..., Server]


@pytest.fixture(scope="module")
def own_run(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the run, for tests that publish to it."""
    return Path(shutil.copytree(run, tmp_path_factory.mktemp("served") / "run"))


@pytest.fixture(scope="module")
def server(own_run: Path) -> Iterator[Server]:
    """Serve the run for all tests; each leaves it answering."""
    server = Server(own_run, "--set", "reload_seconds=0.05", "--set", "timeout_seconds=5")
    yield server
    server.process.kill()


def publish_again(run: Path) -> str:
    """Publish the index of a run once more; return the version that the service then has."""
    fingerprint = read_manifest(run / "model", made_by="")["fingerprint"]
    version = save_index(load_index(run / "index"), run / "index", fingerprint=fingerprint)
    return f"{fingerprint}/{version.name}"


def recalled(http: httpx.Client, server: Server, user: str, k: int) -> tuple[str, ...]:
    response = http.post(f"{server.url}/recall", json={"users": [user], "k": k})
    assert response.status_code == 200, response.text
    return tuple(item["id"] for item in response.json()["results"][0]["items"])


def test_concurrent_requests_get_the_answers_that_single_ones_get(server: Server, http: httpx.Client) -> None:
    asked = [(f"u{number:03d}", 5 + number % 2) for number in range(40)]
    alone = [recalled(http, server, *each) for each in asked]
    calls = _model_calls(http, server)
    with ThreadPoolExecutor(20) as clients:
        together = list(clients.map(lambda each: recalled(http, server, *each), asked * 3))
    assert together == alone * 3
    assert _model_calls(http, server) - calls < 120  # some of 120 requests shared a call


def _model_calls(http: httpx.Client, server: Server) -> float:
    return _metric(http, server, "recall_model_seconds_count")


def _metric(http: httpx.Client, server: Server, name: str) -> float:
    lines = http.get(f"{server.url}/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


def test_requests_under_way_finish_on_sigterm(serve: Serve, run: Path, http: httpx.Client) -> None:
    server = serve(run, "--set", "batch_wait_ms=1000")  # long enough for the signal to come first
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(recalled, http, server, "u001", 3)
        while not _metric(http, server, "recall_queued_queries"):
            assert not waiting.done()
        server.process.send_signal(signal.SIGTERM)
        assert len(waiting.result()) == 3
    assert server.process.wait(60) in (0, -signal.SIGTERM)
    with pytest.raises(httpx.ConnectError):
        http.get(f"{server.url}/healthz")


def test_a_new_version_comes_into_service_without_a_failed_request(
    server: Server, own_run: Path, http: httpx.Client
) -> None:
    first = http.get(f"{server.url}/readyz").json()["version"]
    versions, arrived = set[str](), threading.Event()

    def ask_on(user: str) -> None:
        while not arrived.is_set():
            response = http.post(f"{server.url}/recall", json={"users": [user], "k": 5})
            assert response.status_code == 200, response.text
            versions.add(response.json()["version"])

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask_on, f"u{number:03d}") for number in range(4)]
        try:
            second = publish_again(own_run)
            assert server.wait_for("loaded")["version"] == second
            while second not in versions:
                assert not any(one.done() for one in asking)
        finally:
            arrived.set()
    for one in asking:
        one.result()
    assert versions <= {first, second}


def test_a_version_that_does_not_load_is_reported_and_the_one_before_stays(
    server: Server, own_run: Path, http: httpx.Client
) -> None:
    first = http.get(f"{server.url}/readyz").json()["version"]
    before = recalled(http, server, "u001", 5)
    there = (own_run / "index" / "CURRENT").read_text()
    (own_run / "index" / "CURRENT").write_text("0077\n")
    report = server.wait_for("not loaded")
    assert report["still_serving"] == first
    assert "expected the number of a version" in report["error"]
    assert http.get(f"{server.url}/readyz").json()["version"] == first
    assert recalled(http, server, "u001", 5) == before
    (own_run / "index" / "CURRENT").write_text(there)
    second = publish_again(own_run)
    while server.wait_for("loaded")["version"] != second:
        pass
    assert recalled(http, server, "u001", 5) == before


def test_a_request_is_one_line_of_json_that_names_no_user(server: Server, http: httpx.Client) -> None:
    http.post(f"{server.url}/recall", json={"users": ["u042"]}, headers={"X-Request-ID": "asked-1"})
    while (line := server.wait_for("request"))["request_id"] != "asked-1":
        pass
    assert (line["request_id"], line["method"], line["path"], line["status"]) == ("asked-1", "POST", "/recall", 200)
    assert line["milliseconds"] > 0
    assert "u042" not in str(server.lines)


def test_a_huge_body_and_an_endless_one_harm_nobody(server: Server, http: httpx.Client) -> None:
    assert http.post(f"{server.url}/recall", content=b"x" * 10_000_000).status_code == 413
    released = threading.Event()

    def endless() -> object:
        yield b'{"users": ['
        released.wait(60)
        yield b'"u001"]}'

    with ThreadPoolExecutor(1) as clients:
        slow = clients.submit(lambda: httpx.post(f"{server.url}/recall", content=endless(), timeout=60))
        while not _requests(http, server, status="504"):
            assert recalled(http, server, "u001", 3)
        released.set()
        assert slow.result().status_code == 504


def _requests(http: httpx.Client, server: Server, *, status: str) -> bool:
    return f'status="{status}"' in http.get(f"{server.url}/metrics").text


def test_a_signal_ends_the_process_in_time_whatever_is_under_way(run: Path, tmp_path: Path) -> None:
    blocked, signals = tmp_path / "blocked.py", (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    # One process for each signal, forked from one that has imported everything and runs nothing of it.
    blocked.write_text(
        "import json, os, signal, sys, threading\n"
        "from pathlib import Path\n"
        "import recall.serving.recaller\n"
        "from recall.serving.http.server import serve\n"
        "from recall.serving.http.service import Service\n"
        "from recall.serving.http.settings import ServiceSettings\n"
        "def answer(self, questions):\n"
        '    print(\'{"event": "answering"}\', flush=True)\n'
        "    threading.Event().wait()\n"  # as a call of native code that lasts
        "Service.answer = answer\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # nohup, which may have started the tests, ignores it
        "settings = ServiceSettings(shutdown_seconds=1, timeout_seconds=0.2)\n"
        "for _ in range(int(sys.argv[2])):\n"
        "    if not (child := os.fork()):\n"
        "        serve(Path(sys.argv[1]), settings, host='127.0.0.1', port=0)\n"
        "        os._exit(0)\n"
        '    print(json.dumps({"event": "forked", "process": child}), flush=True)\n'
        "    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        '    print(json.dumps({"event": "ended", "status": status}), flush=True)\n'
    )
    server = Server(run, command=[sys.executable, str(blocked), str(run), str(len(signals))])
    try:
        for number, sent in enumerate(signals):
            if number:
                server.url = f"http://127.0.0.1:{server.wait_for('listening')['port']}"
                server.wait_for("loaded")
            with pytest.raises(httpx.HTTPStatusError, match="504"):
                httpx.post(f"{server.url}/recall", json={"users": ["u001"]}, timeout=60).raise_for_status()
            server.wait_for("answering")
            os.kill(_forked(server), sent)
            assert server.wait_for("ended")["status"] in (0, -sent), sent
    finally:
        server.process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.kill(_forked(server), signal.SIGKILL)


def _forked(server: Server) -> int:
    return next(int(line["process"]) for line in reversed(server.lines) if line["event"] == "forked")


def test_who_could_be_written_to_by_everybody_is_not_started(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--writes-without-token"):
        start(tmp_path, ServiceSettings(allow_writes=True), host="0.0.0.0", port=0)


def test_an_answer_does_not_wait_until_the_client_acknowledges_its_head():
    with _listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
