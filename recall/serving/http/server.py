"""Runs the service as a process: a socket, signals, and uvicorn in between."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import FrameType

import structlog
import uvicorn

from recall.core.errors import ConfigError, RecallError
from recall.serving.http.app import create_app
from recall.serving.http.connections import Connection, Connections, affordable_connections
from recall.serving.http.hosts import LOOPBACK, is_loopback
from recall.serving.http.logs import LogFormat, configure_logs
from recall.serving.http.settings import ServiceSettings

_log = structlog.get_logger("recall.serving")
_WAITING_CONNECTIONS = 2048  # that the kernel holds until they are accepted
# asyncio tries as often in a row to accept a connection, and logs a traceback each time if there is no descriptor left.
_ACCEPTED_AT_ONCE = 64
_GRACE = 0.8  # part of shutdown_seconds that requests have to end in; the rest is for closing files


def serve(run: Path, settings: ServiceSettings, *, host: str, port: int, log_format: LogFormat = "json") -> None:
    """Serve a run until SIGTERM, SIGINT or SIGHUP, then let the requests under way finish, within `shutdown_seconds`.

    SIGHUP is ignored where it was ignored before, as under `nohup`.

    Args:
      run: the run directory.
      settings: limits, time-outs, writing.
      host: name or address to listen on.
      port: 0 takes a free one; the log says which.
      log_format: form of the lines on standard output.

    Raises:
      RecallError: the run cannot be loaded, the address cannot be listened on, or everybody could write there.
    """
    listening = _listen(host, port)  # first: a wrong port is known at once, a run takes seconds to load
    address, bound = listening.getsockname()[:2]
    settings = _for_address(settings, address)
    configure_logs(log_format)
    failures: list[Exception] = []

    def stop(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    pool = Connections(
        most=affordable_connections(settings.max_connections),
        idle_seconds=settings.idle_seconds,
        request_seconds=settings.timeout_seconds,
    )
    server = _Server(
        uvicorn.Config(
            create_app(run, settings, on_failure=stop),
            http=partial(Connection, pool=pool),  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_ACCEPTED_AT_ONCE,
            timeout_graceful_shutdown=settings.shutdown_seconds * _GRACE,  # type: ignore[arg-type]  # any number of seconds
        ),
        shutdown_seconds=settings.shutdown_seconds,
    )
    _log.info("listening", host=address, port=bound, run=str(run))
    if settings.allow_writes and settings.token is None and not is_loopback(address):
        _log.warning("everybody who reaches this address may write")
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, server.handle_exit)
    with contextlib.closing(listening), contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    if server.is_ending:  # SIGTERM has ended the process by now, as uvicorn raises it again
        _leave()  # the interpreter would wait for work in threads that nobody waits for
    for error in failures:
        raise error if isinstance(error, RecallError) else RecallError(f"{run}: cannot be loaded ({error})") from error


class _Server(uvicorn.Server):
    """End within a time, whatever is under way: native code in a thread cannot be stopped but with the process.

    Args:
      config: as of uvicorn's server.
      shutdown_seconds: from the first signal to the end of the process.

    Attributes:
      is_ending: whether a signal has come.
    """

    def __init__(self, config: uvicorn.Config, *, shutdown_seconds: float) -> None:
        super().__init__(config)
        self._shutdown_seconds = shutdown_seconds
        self.is_ending = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, with a longer queue than connections are accepted at once."""
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(_WAITING_CONNECTIONS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        super().handle_exit(sig, frame)
        if not self.is_ending:
            self.is_ending = True
            threading.Thread(target=self._end, name="end", daemon=True).start()

    def _end(self) -> None:
        time.sleep(self._shutdown_seconds)
        # Acknowledged changes are on the disk: nothing is lost but answers that nobody got in time.
        _log.warning("ended with work under way", shutdown_seconds=self._shutdown_seconds)
        _leave()


def _leave() -> None:
    """End the process without waiting for its threads."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(0)


def _for_address(settings: ServiceSettings, address: str) -> ServiceSettings:
    """Fill in what depends on who reaches an address; refuse to let everybody write.

    Raises:
      ConfigError: other machines reach the address, and writes need no token.
    """
    if is_loopback(address):
        return settings if settings.hosts is not None else settings.model_copy(update={"hosts": LOOPBACK})
    if settings.allow_writes and settings.token is None and not settings.writes_without_token:
        raise ConfigError(
            f"--host {address}: other machines reach this address, and everybody there could write; set RECALL_TOKEN "
            "or --token-file, listen on 127.0.0.1, or say --writes-without-token"
        )
    return settings


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address[:2], family=family, backlog=_WAITING_CONNECTIONS)
        # Connections inherit it, and asyncio sets it on none that `accept` made of this one. Without, the body of an
        # answer, which follows its head, waits 40 ms for the client's delayed acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(f"{host}:{port}: cannot be listened on ({error}); choose another --host or --port") from error
