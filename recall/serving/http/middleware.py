"""Gives every request an id, a log line and a measurement, and bounds its time."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Collection, Iterable

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recall.serving.http.hosts import host_name, require_host
from recall.serving.http.metrics import Metrics
from recall.serving.http.problems import ServiceError

_log = structlog.get_logger("recall.serving")
_REQUEST_ID = b"x-request-id"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_QUIET = ("/healthz", "/readyz", "/metrics")  # probes come every few seconds
GONE = 499  # the client closed the connection before the answer, as nginx notes it


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
        except asyncio.CancelledError:  # the service ends, and has waited long enough
            if answer.status is None:
                await ServiceError(503, "overloaded", "the service ends").response()(scope, receive, answer)
        except Exception:
            _log.exception("failed", path=scope["path"][:200])
            if answer.status is None:
                problem = ServiceError(
                    500, "internal", "an error of the service; its log says more under this request's id"
                )
                await problem.response()(scope, receive, answer)
        finally:
            self._metrics.in_flight.dec()
            self._note(scope, answer.status or GONE, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        # Paths and methods that nobody offers come from outside: each would be a time series of its own.
        route = scope["path"] if scope["path"] in self._paths else "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        level = _log.debug if route in _QUIET else _log.info
        level("request", method=method, path=scope["path"][:200], status=status, milliseconds=round(seconds * 1000, 2))


class Guard:
    """Bound the seconds of a request, also of a body that is sent slowly or without end, and check its Host.

    Args:
      app: the wrapped application.
      timeout_seconds: from the head of a request to its answer.
      hosts: names that requests may give as their host; None: any.
    """

    def __init__(self, app: ASGIApp, *, timeout_seconds: float, hosts: Collection[str] | None = None) -> None:
        self._app, self._timeout_seconds = app, timeout_seconds
        self._hosts = None if hosts is None else frozenset(map(host_name, hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            if self._hosts is not None:
                require_host(scope["headers"], self._hosts)
            await asyncio.wait_for(self._app(scope, receive, answer), self._timeout_seconds)
        except ServiceError as problem:
            await problem.response()(scope, receive, send)
        except asyncio.TimeoutError:
            if answer.status is None:
                message = f"no answer within {self._timeout_seconds:g} s; ask for less, or try again later"
                await ServiceError(504, "timeout", message).response()(scope, receive, send)


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    given = next((value.decode("latin-1") for name, value in headers if name == _REQUEST_ID), "")
    return given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else uuid.uuid4().hex
