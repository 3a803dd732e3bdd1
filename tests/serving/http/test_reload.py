"""Tests that the memory of a replaced version goes back to the system."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from recall.serving.http.reload import give_back

BLOCK, BLOCKS = 100_000, 2_000  # below what malloc maps by itself


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators decide for themselves")
def test_freed_blocks_below_one_that_is_in_use_are_given_back() -> None:
    blocks = [bytes([1]) * BLOCK for _ in range(BLOCKS)]
    last = blocks[-1]  # malloc gives back by itself what is above it, and only that
    held = resident_bytes()
    del blocks
    give_back()
    assert held - resident_bytes() > 0.8 * BLOCK * BLOCKS
    assert len(last) == BLOCK
