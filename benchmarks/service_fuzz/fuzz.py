"""Sends hostile requests to a service of its own, with idle and slow connections beside, and measures what it does."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.common.machine import environment
from benchmarks.service_fuzz.hostile import Hostile, Maker
from benchmarks.serving.processes import Server
from benchmarks.serving.processes import environment as server_environment

_PATIENCE_SECONDS = 60.0
_CUT_OFF_SECONDS = 0.2  # until a client that has sent half a request goes away
_SLOW = b"POST /recall HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
_FINE = frozenset({503, 507})  # of 5xx: too much at once, and a full disk


@dataclass
class Seen:
    """What was seen of the service.

    Attributes:
      answers: number of requests by kind and status; "none" where the connection was closed without an answer.
      health_ms: how long each /healthz took.
      health_failures: probes that got another answer than 200.
    """

    answers: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)
    health_ms: list[float] = field(default_factory=list)
    health_failures: list[str] = field(default_factory=list)


def fuzz(
    run: Path,
    *,
    requests: int,
    seed: int,
    clients: int,
    idle: int,
    slow: int,
    log: Path,
    settings: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Serves a run, attacks it, and returns the result as JSON values.

    Args:
      run: a finished run that may be written to.
      requests: number of hostile requests.
      seed: of the requests.
      clients: requests at the same time.
      idle: connections beside that send nothing.
      slow: connections beside that send a byte of a body now and then.
      log: file that takes what the service logs.
      settings: `name=value` of `--set`.
    """
    token = secrets.token_hex()
    server = Server(run, token=token, settings=settings, log=log)
    try:
        before, started = _memory_mb(server), time.monotonic()
        maker, seen = Maker(seed=seed, most_bytes=1 << 20, token=token), Seen()
        host, port = str(urlsplit(server.url).hostname), int(urlsplit(server.url).port or 80)
        with _probed(host, port, seen):
            asyncio.run(_attack(host, port, maker, seen, requests=requests, clients=clients, idle=idle, slow=slow))
        seconds, after = time.monotonic() - started, _memory_mb(server)
    finally:
        code = server.stop()
    return {
        "environment": environment(threads=0),
        "requests": requests, "seed": seed, "clients": clients, "idle": idle, "slow": slow,
        "seconds": round(seconds, 1),
        "answers": _by_kind(seen.answers),
        "statuses": _by_status(seen.answers),
        "healthz": {
            "probes": len(seen.health_ms),
            "longest_ms": round(max(seen.health_ms), 1),
            "p99_ms": round(sorted(seen.health_ms)[int(len(seen.health_ms) * 0.99)], 1),
            "failures": seen.health_failures[:10],
        },
        "memory_mb": {"before": before, "after": after},
        "log_bytes": log.stat().st_size,
        "exit_code": code,
    }  # fmt: skip


def shortcomings(result: dict[str, Any], *, longest_ms: float = 1000.0) -> list[str]:
    """What should not have been, in words; empty if all is well."""
    found = [
        f"{count} x {status}: no request may cause it"
        for status, count in result["statuses"].items()
        if status.startswith("5") and int(status) not in _FINE
    ]
    if result["healthz"]["longest_ms"] > longest_ms:
        found.append(f"/healthz took {result['healthz']['longest_ms']:,} ms, expected at most {longest_ms:,}")
    if result["healthz"]["failures"]:
        found.append(f"/healthz failed: {result['healthz']['failures']}")
    return found


async def _attack(
    host: str, port: int, maker: Maker, seen: Seen, *, requests: int, clients: int, idle: int, slow: int
) -> None:
    left = iter(range(requests))

    async def send_on() -> None:
        for _ in left:
            hostile = maker.next()
            seen.answers[hostile.kind, await _sent(host, port, hostile)] += 1

    beside = [
        *(asyncio.create_task(_held(host, port, b"", 1e6)) for _ in range(idle)),
        *(asyncio.create_task(_held(host, port, _SLOW, 0.5)) for _ in range(slow)),
    ]
    await asyncio.gather(*(send_on() for _ in range(clients)))
    for task in beside:
        task.cancel()
    await asyncio.gather(*beside, return_exceptions=True)


async def _sent(host: str, port: int, hostile: Hostile) -> str:
    """Sends a request; returns the status of its answer."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return type(error).__name__
    try:
        writer.write(hostile.wire)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(writer.drain(), _PATIENCE_SECONDS)
        line = await asyncio.wait_for(reader.readline(), _PATIENCE_SECONDS if hostile.is_whole else _CUT_OFF_SECONDS)
        while await asyncio.wait_for(reader.read(1 << 16), _PATIENCE_SECONDS):
            pass
        return line.split()[1].decode() if line.startswith(b"HTTP/1.1 ") else "none"
    except ConnectionError:
        return "none"
    except asyncio.TimeoutError:
        return "late" if hostile.is_whole else "left"
    finally:
        writer.close()


async def _held(host: str, port: int, sent: bytes, every: float) -> None:
    """Holds a connection and sends a byte now and then; opens another when it is closed."""
    while True:
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(sent)
                while not reader.at_eof():
                    if sent:
                        writer.write(b" ")
                        await writer.drain()
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(reader.read(1 << 16), every)
            finally:
                writer.close()
        await asyncio.sleep(0.1)


@contextlib.contextmanager
def _probed(host: str, port: int, seen: Seen) -> Iterator[None]:
    """Asks /healthz from another process meanwhile."""
    command = [sys.executable, "-m", "benchmarks.service_fuzz.probe", host, str(port)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=server_environment()
    )
    try:
        yield
    finally:
        printed, _ = process.communicate("")
        found = json.loads(printed)
        seen.health_ms, seen.health_failures = found["milliseconds"], found["failures"]


def _memory_mb(server: Server) -> dict[str, float]:
    """Resident memory now and at its most, in MB."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return {"resident": round(found["VmRSS"] / 1024, 1), "most": round(found["VmHWM"] / 1024, 1)}


def _by_kind(answers: collections.Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    kinds: dict[str, dict[str, int]] = {}
    for (kind, status), count in sorted(answers.items()):
        kinds.setdefault(kind, {})[status] = count
    return kinds


def _by_status(answers: collections.Counter[tuple[str, str]]) -> dict[str, int]:
    statuses: collections.Counter[str] = collections.Counter()
    for (_, status), count in answers.items():
        statuses[status] += count
    return dict(sorted(statuses.items()))
