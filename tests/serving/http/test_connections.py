"""Tests what clients get that hold connections, send heads and bodies slowly, or do not read: nobody else waits."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.helpers.served_run import SECONDS, Server

MOST = 12
HEAD = b"POST /recall HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Server]:
    """Serve the run with few connections, of which none may be idle for long."""
    settings = (f"max_connections={MOST}", "idle_seconds=0.5", "timeout_seconds=1")
    server = Server(run, *(part for setting in settings for part in ("--set", setting)))
    yield server
    server.process.kill()


@contextlib.contextmanager
def connected(server: Server, *sent: bytes) -> Iterator[list[socket.socket]]:
    """Open a connection for each text, and send the text."""
    with contextlib.ExitStack() as stack:
        opened = []
        for text in sent:
            one = stack.enter_context(socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))))
            one.settimeout(SECONDS)
            with contextlib.suppress(ConnectionError):
                one.sendall(text)
            opened.append(one)
        yield opened


def answer(connection: socket.socket) -> bytes:
    """Read until the service closes the connection."""
    parts = list[bytes]()
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def is_alive(server: Server) -> bool:
    return httpx.get(f"{server.url}/healthz", timeout=SECONDS).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: local", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
     b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n", HEAD + b"Content-Length: 9\r\n\r\n{",
     HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{"],
)  # fmt: skip
def test_a_client_that_sends_no_more_is_disconnected(server: Server, sent: bytes) -> None:
    with connected(server, sent) as [one]:
        answer(one)  # ends, or the test does not


def test_a_body_that_does_not_come_is_a_504(server: Server) -> None:
    with connected(server, HEAD + b"Content-Length: 9\r\n\r\n{") as [one]:
        assert b" 504 " in answer(one).splitlines()[0]


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: l", HEAD + b"Content-Length: 9\r\n\r\n{"])
def test_idle_and_slow_connections_make_room_for_others(server: Server, sent: bytes) -> None:
    with connected(server, *[sent] * 3 * MOST):
        for _ in range(5):
            assert is_alive(server)


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\r\n\r\n", b"GET / HTTP/x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 30,
     b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
     HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", HEAD + b"Content-Length: -1\r\n\r\n",
     HEAD + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n", HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
     HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", HEAD + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
     HEAD + b"".join(b"X-%d: 1\r\n" % number for number in range(20_000)) + b"\r\n",
     HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 20_000],
)  # fmt: skip
def test_what_is_no_http_is_a_400_of_the_shape_of_all_errors(server: Server, sent: bytes) -> None:
    with connected(server, sent) as [one]:
        found = answer(one)
    # Where more was sent than the service reads, the system may tell the client so before it has the answer.
    assert found.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")) or (not found and len(sent) > 1 << 14)
    assert not found or b'{"error": {"type": "malformed"' in found
    assert is_alive(server)


def test_requests_one_after_another_on_a_connection_are_answered(server: Server) -> None:
    asked = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(server, asked * 50) as [one]:
        assert answer(one).count(b"HTTP/1.1 200 ") == 50


def test_a_client_that_does_not_read_its_answer_is_disconnected(server: Server) -> None:
    body = b'{"users": ["u001"], "k": 100, "details": true}'
    asked = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    with connected(server, *[asked * 300] * 3):
        assert is_alive(server)
        while _connections(server) > 1:
            assert is_alive(server)


def _connections(server: Server) -> int:
    sockets = [path for path in Path(f"/proc/{server.process.pid}/fd").iterdir() if _is_socket(path)]
    listening = 3  # one to listen, two of the event loop to wake itself
    return len(sockets) - listening


def _is_socket(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return str(path.readlink()).startswith("socket:")
    return False


def test_the_log_does_not_grow_with_what_is_no_http(server: Server) -> None:
    before = len(server.lines)
    for _ in range(60):
        with connected(server, b"nonsense\r\n\r\n") as [one]:
            answer(one)
    httpx.get(f"{server.url}/a/last/one", timeout=SECONDS)
    while server.wait_for("request")["path"] != "/a/last/one":
        pass
    warnings = [line for line in server.lines[before:] if line["level"] == "warning"]
    assert len(warnings) <= 40  # 20 in ten seconds, of which the others may have been before
