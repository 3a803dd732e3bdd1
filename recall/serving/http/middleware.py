"""Gives every request an id, a log line and a measurement, and bounds its size and its time."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Collection, Iterable

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recall.serving.http.metrics import Metrics
from recall.serving.http.problems import ServiceError

_log = structlog.get_logger("recall.serving")
_REQUEST_ID = b"x-request-id"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_QUIET = ("/healthz", "/readyz", "/metrics")  # probes come every few seconds
_GONE = 499  # the client closed the connection before the answer, as nginx notes it


class _Answer:
    """Send an answer, and remember its status."""

    def __init__(self, send: Send, request_id: str = "") -> None:
        self._send, self._request_id = send, request_id.encode()
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._request_id:
                message["headers"] = [*message.get("headers", ()), (_REQUEST_ID, self._request_id)]
        await self._send(message)


class Observe:
    """Give each request an id, log it in one line, count and time it, and answer 500 for an unexpected exception.

    The id is the caller's (header X-Request-ID) or a new one. Every log line of the request has it, and so has the
    answer. No line has ids of users or items.

    Args:
      app: the wrapped application.
      metrics: counts the requests.
      paths: the paths of the routes; requests for other paths are counted together.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, paths: Collection[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope["headers"])
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        answer, started = _Answer(send, request_id), time.perf_counter()
        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, answer)
        except Exception:
            _log.exception("failed", path=scope["path"][:200])
            if answer.status is None:
                problem = ServiceError(
                    500, "internal", "an error of the service; its log says more under this request's id"
                )
                await problem.response()(scope, receive, answer)
        finally:
            self._metrics.in_flight.dec()
            self._note(scope, answer.status or _GONE, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        # Paths and methods that nobody offers come from outside: each would be a time series of its own.
        route = scope["path"] if scope["path"] in self._paths else "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        level = _log.debug if route in _QUIET else _log.info
        level("request", method=method, path=scope["path"][:200], status=status, milliseconds=round(seconds * 1000, 2))


class Guard:
    """Bound the bytes of a body and the seconds of a request.

    The whole body is read here, before the route runs: so the two bounds also stop a client that sends slowly or
    without end.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, timeout_seconds: float) -> None:
        self._app, self._max_bytes, self._timeout_seconds = app, max_body_bytes, timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            await asyncio.wait_for(self._bounded(scope, receive, answer), self._timeout_seconds)
        except ServiceError as problem:
            await problem.response()(scope, receive, send)
        except asyncio.TimeoutError:
            if answer.status is None:
                message = f"no answer within {self._timeout_seconds:g} s; ask for less, or try again later"
                await ServiceError(504, "timeout", message).response()(scope, receive, send)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self._body(scope["headers"], receive)
        if body is None:
            return  # the client is gone
        is_read = False

        async def replay() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _body(self, headers: Iterable[tuple[bytes, bytes]], receive: Receive) -> bytes | None:
        self._require_size(
            next((int(value) for name, value in headers if name == b"content-length" and value.isdigit()), 0)
        )
        parts, size = list[bytes](), 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            self._require_size(size)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _require_size(self, size: int) -> None:
        if size > self._max_bytes:
            message = f"body: expected at most {self._max_bytes:,} bytes, found {size:,} or more; split the request"
            raise ServiceError(413, "body_too_large", message)


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    given = next((value.decode("latin-1") for name, value in headers if name == _REQUEST_ID), "")
    return given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else uuid.uuid4().hex
