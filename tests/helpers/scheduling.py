"""Decides which tests `make check` leaves out, and how many processes run the suite.

A test is slow, and left out by `-m "not slow"`, if

* it is in one of `SLOW_FOLDERS`;
* it uses one of `SLOW_FIXTURES`: a model that was trained, or a server in a process of its own;
* it is marked `slow`, since it takes some second of one core or more.

Where a test takes more than `QUICK` seconds of processor time, and none of these is true, pytest warns at its end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SLOW_FOLDERS = ("integration", "faults", "benchmarks", "pipelines", "training")
SLOW_FIXTURES = ("finish", "trained", "trained_small", "by_two", "serve")
QUICK = 20.0  # seconds of processor time, of the test's process and of the processes that it starts
MEMORY = 3 << 30  # bytes that a process of the suite may need, with what it starts


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that are slow by their folder or their fixtures, and begin with the files that hold slow ones."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        fixtures = getattr(item, "fixturenames", ())
        if folder in SLOW_FOLDERS or any(name in fixtures for name in SLOW_FIXTURES):
            item.add_marker("slow")
    # A long file that is begun last would keep one process busy while the others have nothing left to do.
    begun_first = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in begun_first)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Warn of a test that is slow and not marked so."""
    before = _processor_seconds()
    yield
    taken = _processor_seconds() - before
    if taken > QUICK and item.get_closest_marker("slow") is None:
        item.warn(pytest.PytestWarning(f"{taken:.0f} s of processor time: mark the test slow, or make it smaller"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of processes for `-n auto`: one for each core, as far as memory goes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // MEMORY))


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
