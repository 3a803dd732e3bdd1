"""Bounds what a connection may hold: descriptors and memory that a client takes without asking for anything.

uvicorn bounds neither the number of connections, nor the time until a request's head is whole, nor a client that does
not read its answer. `server.py` gives `Connection` to uvicorn in place of its own protocol.
"""

from __future__ import annotations

import asyncio
import re
import resource
from pathlib import Path
from typing import Any

import h11
import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

from recall.serving.http.problems import ServiceError

_log = structlog.get_logger("recall.serving")

_SPARE_DESCRIPTORS = 64  # for files of versions and journals, and for the event loop
_PIECES, _PIECE_BYTES = 1024, 64  # of a body: so many pieces may be shorter on average than so many bytes
_HEAD_BYTES = 1 << 14  # of a request: its first line and its headers
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_UNREAD_BYTES = 1 << 25  # of a body whose request was answered before it was read
_PROGRESS_BYTES = 1 << 16  # of an answer that a client has to read within `idle_seconds`


class Connections:
    """Know all connections of a server, and make room for a new one where there are too many.

    Args:
      most: number of connections at the same time.
      idle_seconds: time that a client has to send the head of a request, and to read on in an answer.
      request_seconds: time that a request may take until its answer begins.
    """

    def __init__(self, *, most: int, idle_seconds: float, request_seconds: float) -> None:
        self.most, self.idle_seconds = most, idle_seconds
        self.busy_seconds = request_seconds + idle_seconds
        self._all: dict[Connection, None] = {}  # in the order of their last request

    def __len__(self) -> int:
        return len(self._all)

    def add(self, connection: Connection) -> bool:
        """Take a new connection in, in place of one that asks for nothing if need be; tell whether there is room."""
        if len(self._all) >= self.most:
            waiting = (one for one in self._all if one.is_idle)
            unfinished = (one for one in self._all if one.is_sending)
            victim = next(waiting, None) or next(unfinished, None)
            if victim is None:
                return False
            victim.drop()
            self.remove(victim)
        self._all[connection] = None
        return True

    def renew(self, connection: Connection) -> None:
        """Note that a connection has asked for something."""
        if connection in self._all:
            del self._all[connection]
            self._all[connection] = None

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is closed; may be called again."""
        self._all.pop(connection, None)


class Connection(H11Protocol):
    """Serve one connection as uvicorn does, with bounds of time, of pieces and of unread bytes.

    Args:
      pool: all connections of the server.
      arguments: as of uvicorn's protocol.
    """

    def __init__(self, *, pool: Connections, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.conn = _Pieces(h11.SERVER, self.config.h11_max_incomplete_event_size or 1 << 14)
        self._pool = pool
        self._timer: asyncio.TimerHandle | None = None
        self._timed: object = None  # the request that the timer belongs to; None: the wait for one
        self._unread = self._unsent = 0

    @property
    def is_idle(self) -> bool:
        """Tell whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def is_sending(self) -> bool:
        """Tell whether a request is under way whose body is not there yet."""
        return not self.is_idle and self.cycle.more_body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request, or refuse the connection."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if self._pool.add(self):
            self._restart_timer()
        else:
            _log.warning("connection refused", connections=len(self._pool))
            self._end_with(
                ServiceError(503, "overloaded", "too many connections; try again", headers={"Retry-After": "1"})
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._pool.remove(self)
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read bytes of a request."""
        if self.is_idle and self.conn.their_state is h11.SEND_BODY:
            self._unread += len(data)
            if self._unread > _UNREAD_BYTES:
                self.drop()
                return
        if (
            self.conn.their_state is h11.IDLE
            and len(data) > _HEAD_BYTES
            and _END_OF_HEAD.search(data, 0, _HEAD_BYTES) is None
        ):
            self.send_400_response("")  # h11 would parse tens of thousands of headers first
            return
        super().data_received(data)
        self._follow()

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # it ends with the first byte; the timer here does not
        self._follow()

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are no HTTP, in the form of all errors."""
        if self.is_idle or not self.cycle.response_started:
            self._end_with(
                ServiceError(400, "malformed", "expected HTTP/1.1: a head of at most 16 kB, and a body in few pieces")
            )
        else:
            self.drop()

    def drop(self) -> None:
        """Close the connection now; an answer that the client did not read is lost."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _follow(self) -> None:
        """Set the timer anew if a request has begun or ended."""
        now = None if self.is_idle else self.cycle
        if now is not self._timed:
            self._timed, self._unread = now, 0
            self._pool.renew(self)
            self._restart_timer()

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        seconds = self._pool.idle_seconds if self.is_idle else self._pool.busy_seconds
        self._unsent = self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(seconds, self._time_is_over)

    def _time_is_over(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent and self._unsent - unsent >= _PROGRESS_BYTES:  # a slow client reads a long answer
            self._restart_timer()
        else:
            self.drop()

    def _end_with(self, problem: ServiceError) -> None:
        """Send an answer to what is no request, and close."""
        body = problem.body()
        headers = {**problem.headers, "Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = [f"HTTP/1.1 {problem.status} Refused", *(f"{name}: {value}" for name, value in headers.items())]
        self.transport.write("\r\n".join([*lines, "Connection: close", "", ""]).encode("ascii") + body)
        self.transport.close()


class _Pieces(h11.Connection):
    """Read HTTP, and refuse a body in tiny chunks: a byte in each keeps the event loop busy for seconds a megabyte."""

    def __init__(self, role: type[h11.SERVER], most: int) -> None:
        super().__init__(role, most)
        self._pieces = self._bytes = 0

    def next_event(self) -> Any:
        """Return the next event, as h11 does."""
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > _PIECES and self._bytes < self._pieces * _PIECE_BYTES:
                raise h11.RemoteProtocolError("body in too small pieces")
        elif isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        return event


def affordable_connections(wanted: int) -> int:
    """Return how many connections the process has descriptors for: as many as wanted, or fewer, with a warning."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    descriptors = Path("/proc/self/fd")
    used = len(list(descriptors.iterdir())) if descriptors.is_dir() else _SPARE_DESCRIPTORS
    left = max(1, limit - used - _SPARE_DESCRIPTORS)
    if left < wanted:
        _log.warning("fewer connections than max_connections", connections=left, open_files_limit=limit)
    return min(wanted, left)
