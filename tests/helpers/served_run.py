"""Gives tests of the service one loaded run for applications in this process, and real server processes."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from recall.config.experiment import Config
from recall.serving.http.app import create_app
from recall.serving.http.settings import ServiceSettings
from recall.serving.http.snapshot import Snapshot

SECONDS = 120  # for what is over in one or two on a quiet machine


class Server:
    """Run `recall serve` in a process of its own, on a free port."""

    def __init__(self, run: Path, *arguments: str, command: Sequence[str] = ()) -> None:
        own = [sys.executable, "-m", "recall.cli", "serve", "--run", str(run), "--port", "0", *arguments]
        self.process = subprocess.Popen(command or own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines: list[dict[str, Any]] = []
        self._new: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.wait_for('listening')['port']}"
        self.wait_for("loaded")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._new.put(json.loads(line))  # every line is JSON, or the test fails for want of what comes next
        self._new.put(None)

    def wait_for(self, event: str) -> dict[str, Any]:
        """Wait for the next log line of an event and return it."""
        while (line := self._new.get(timeout=SECONDS)) is not None:
            self.lines.append(line)
            if line["event"] == event:
                return line
        assert self.process.stderr is not None
        raise AssertionError(f"the server ended without {event!r}: {self.process.stderr.read()}")


@pytest.fixture(scope="session")
def run(finish: Callable[[Config], Path], settings: Config) -> Path:
    """Return the finished run that is served."""
    return finish(settings)


@pytest.fixture(scope="session")
def snapshot(run: Path) -> Snapshot:
    """Load the run once for all applications."""
    return Snapshot.load(run)


@pytest.fixture
def service(run: Path, snapshot: Snapshot) -> Iterator[Callable[..., TestClient]]:
    """Make clients of an application with settings: `service(max_k=10)`."""
    with contextlib.ExitStack() as stack:

        def start(**settings: Any) -> TestClient:
            app = create_app(run, ServiceSettings(**settings), snapshot=snapshot)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield start


@pytest.fixture
def client(service: Callable[..., TestClient]) -> TestClient:
    """Make a client of an application with default settings."""
    return service()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start server processes: `serve(run, "--set", "max_k=10")`; they are ready when they are returned."""
    with contextlib.ExitStack() as stack:

        def start(run: Path, *arguments: str) -> Server:
            server = Server(run, *arguments)
            stack.callback(server.process.kill)
            return server

        yield start


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """Open plain HTTP with patience."""
    with httpx.Client(timeout=SECONDS, limits=httpx.Limits(max_connections=64)) as client:
        yield client
