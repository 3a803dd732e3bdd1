"""Runs the service as a process: a socket, signals, and uvicorn in between."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import socket
from pathlib import Path

import structlog
import uvicorn

from recall.core.errors import ConfigError, RecallError
from recall.serving.http.app import create_app
from recall.serving.http.logs import LogFormat, configure_logs
from recall.serving.http.settings import ServiceSettings

_log = structlog.get_logger("recall.serving")


def serve(run: Path, settings: ServiceSettings, *, host: str, port: int, log_format: LogFormat = "json") -> None:
    """Serve a run until SIGTERM or SIGINT, then let the requests under way finish.

    Args:
      run: the run directory.
      settings: limits, time-outs, writing.
      host: name or address to listen on.
      port: 0 takes a free one; the log says which.
      log_format: form of the lines on standard output.

    Raises:
      RecallError: the run cannot be loaded, or the address cannot be listened on.
    """
    listening = _listen(host, port)  # first: a wrong port is known at once, a run takes seconds to load
    configure_logs(log_format)
    failures: list[Exception] = []

    def stop(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    server = uvicorn.Server(
        uvicorn.Config(
            create_app(run, settings, on_failure=stop),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(settings.shutdown_seconds),
        )
    )
    address, bound = listening.getsockname()[:2]
    _log.info("listening", host=address, port=bound, run=str(run))
    if settings.allow_writes and settings.token is None and not ipaddress.ip_address(address).is_loopback:
        _log.warning("everybody who reaches this address may write; set RECALL_TOKEN or --token-file")
    with contextlib.closing(listening), contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    for error in failures:
        raise error if isinstance(error, RecallError) else RecallError(f"{run}: cannot be loaded ({error})") from error


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address[:2], family=family, backlog=2048)
        # Connections inherit it, and asyncio sets it on none that `accept` made of this one. Without, the body of an
        # answer, which follows its head, waits 40 ms for the client's delayed acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(f"{host}:{port}: cannot be listened on ({error}); choose another --host or --port") from error
