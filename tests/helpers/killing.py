"""Kills real processes by SIGKILL at moments drawn beforehand; `--kills` says how often."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver
from typing import Any

import numpy as np
import pytest

# Forked from a server that has imported everything: a process is at work within milliseconds, and dies there.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.helpers.victims"])


@functools.cache
def _start_server() -> None:
    # The server of Python 3.10 to 3.12 does not look at the path that it is given before it imports.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--kills`."""
    text = "kills of each step and of the living index in tests/faults; 20 for the account in benchmarks/serving"
    parser.addoption("--kills", type=int, default=4, metavar="N", help=text)


@pytest.fixture(scope="session")
def kills(pytestconfig: pytest.Config) -> int:
    """Return how often each kind of work is killed."""
    return int(pytestconfig.getoption("--kills"))


def seconds_of(work: Callable[..., None], *arguments: Any) -> float:
    """Measure how long some work takes in a process of its own that is left alone."""
    _start_server()
    process = _FORKS.Process(target=work, args=arguments)
    started = time.perf_counter()
    process.start()
    process.join()
    assert process.exitcode == 0, f"{work.__name__} failed"
    return time.perf_counter() - started


def killed_at(moment: float, work: Callable[..., None], *arguments: Any) -> bool:
    """Start some work and kill it after `moment` seconds; False if it was done before that."""
    _start_server()
    process = _FORKS.Process(target=work, args=arguments)
    process.start()
    process.join(moment)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), f"{work.__name__} failed by itself"
    return process.exitcode != 0


def killed_when(reached: Callable[[], bool], work: Callable[..., None], *arguments: Any) -> None:
    """Start some work and kill it as soon as it has reached a point."""
    _start_server()
    process = _FORKS.Process(target=work, args=arguments)
    process.start()
    while not reached():
        process.join(0.001)
        assert process.exitcode is None, f"{work.__name__} was over before"
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def kills_itself(work: Callable[..., None], *arguments: Any) -> None:
    """Do some work that ends its own process by SIGKILL."""
    _start_server()
    process = _FORKS.Process(target=work, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"{work.__name__} ended with {process.exitcode}"


def moments(count: int, *, within: float, seed: int) -> Iterator[float]:
    """Yield seconds at which to kill: one drawn from each of `count` equal parts of a span, in any order."""
    random = np.random.default_rng(seed)
    parts: Sequence[float] = (random.permutation(count) + random.random(count)) / count * within
    return map(float, parts)
