"""Checks a living index that is searched and changed at once, or killed: no answer is wrong, nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from recall.index import LivingIndex, build_index, save_index
from tests.helpers.living_oracle import DIM, KINDS, assert_holds, drawn, saved


@pytest.mark.slow
def test_every_answer_under_concurrent_changes_is_right_for_some_moment_between(kind, tmp_path):
    # A score is the first coordinate. The writer moves `moving` up and down, adds n0, n1, ... one by one, and deletes
    # each before the next: an answer has to hold all fixed items, and of the others what one moment had.
    vectors = np.zeros((40, DIM), np.float32)
    vectors[:, 0] = np.linspace(1, 2, 40)
    ids = [f"i{row}" for row in range(40)]
    save_index(build_index(ids, vectors, config=KINDS[kind]), tmp_path, fingerprint="m")
    index = LivingIndex.open(tmp_path)
    steps = 60
    done = [0]  # finished steps; a step deletes one item and adds the next under a score of its own
    wrong: list[str] = []
    query = np.eye(DIM, dtype=np.float32)[0]

    def search() -> None:
        while done[0] < steps:
            first = done[0]
            found = index.search(query, 60)
            last = done[0] + 1  # one may be under way
            names = [name for name in found.ids[0] if name is not None]
            later = [name for name in names if name.startswith("n")]
            if sorted(set(names) - set(later)) != sorted(ids) or len(set(names)) != len(names):
                wrong.append(f"fixed items: {names}")
            if len(later) > 1 or any(not first - 1 <= int(name[1:]) <= last for name in later):
                wrong.append(f"between steps {first} and {last}: {later}")
            for name, score in zip(found.ids[0], found.scores[0], strict=True):
                if name in later and score != 10 + int(name[1:]):
                    wrong.append(f"{name} with score {score}")

    def change() -> None:
        for step in range(steps):
            if step:
                index.delete([f"n{step - 1}"])
            index.upsert([f"n{step}"], (10 + step) * query[np.newaxis])
            done[0] += 1

    readers = [threading.Thread(target=search) for _ in range(3)]
    writer = threading.Thread(target=change)
    for thread in (*readers, writer):
        thread.start()
    for thread in (*readers, writer):
        thread.join()
    assert not wrong, wrong[:5]
    index.close()


def test_writers_of_several_threads_all_get_in(tmp_path):
    expected = saved(tmp_path, items=50)
    index = LivingIndex.open(tmp_path)

    def change(thread: int) -> None:
        for step in range(15):
            index.upsert([f"t{thread}-{step}"], drawn(1, seed=1000 * thread + step + 50))
            if step % 3 == 0:
                index.delete([f"t{thread}-{step}"])

    threads = [threading.Thread(target=change, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        for step in range(15):
            if step % 3:
                expected[f"t{number}-{step}"] = drawn(1, seed=1000 * number + step + 50)[0]
    assert_holds(index, expected)
    index.close()
    with LivingIndex.open(tmp_path) as index:
        assert_holds(index, expected)


def test_search_and_changes_go_on_while_a_new_base_is_built(tmp_path):
    expected = saved(tmp_path)
    index = LivingIndex.open(tmp_path)
    index.upsert(["early"], drawn(1, seed=2))
    expected["early"] = drawn(1, seed=2)[0]
    seen: list[int] = []

    def during_the_build(line: str) -> None:  # called in the middle of it
        if seen:
            return
        index.upsert(["late", "i7"], drawn(2, seed=3))
        index.delete(["i8", "early"])
        seen.append(len(index.search(np.ones(DIM), 400).ids[0]) - 100)

    # ScaNN, since building it reports progress.
    index._config = KINDS["scann"]
    index.rebalance(progress=during_the_build)
    assert seen == [300]
    expected |= dict(zip(["late", "i7"], drawn(2, seed=3), strict=True))
    for name in ("i8", "early"):
        del expected[name]
    assert_holds(index, expected, exactly=False)
    assert (index.drift(sample=0).recent, index.drift(sample=0).gone) == (2, 3)
    index.close()
    with LivingIndex.open(tmp_path) as index:
        assert_holds(index, expected, exactly=False)


# Crashes


CHANGE_UNTIL_KILLED = """
import sys
import numpy as np
from recall.index import (LivingIndex)
index = LivingIndex.open(sys.argv[1])
step = 0
while True:
    index.upsert([f"n{step}"], np.full((1, 8), step))
    print("upsert", step, flush=True)
    if step % 4 == 3:
        index.delete([f"n{step - 1}"])
        print("delete", step - 1, flush=True)
    if step % 25 == 24:
        index.rebalance()
    step += 1
"""


@pytest.mark.parametrize("lines", [1, 30, 31, 45, 70])
def test_nothing_acknowledged_is_lost_when_the_process_is_killed(lines, tmp_path):
    expected = saved(tmp_path, items=40)
    process = subprocess.Popen(
        [sys.executable, "-c", CHANGE_UNTIL_KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    acknowledged = [process.stdout.readline() for _ in range(lines)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += process.stdout.read().splitlines()
    process.wait()
    for line in acknowledged:
        operation, step = line.split()
        if operation == "upsert":
            expected[f"n{step}"] = np.full(8, int(step), np.float32)
        else:
            del expected[f"n{step}"]
    with LivingIndex.open(tmp_path, fingerprint="m") as index:
        held = {name: index.vectors([name])[0] for name in index.ids if name is not None}
        # The change that was under way may have happened or not.
        differing = held.keys() ^ expected.keys()
        assert len(differing) <= 1
        for name in held.keys() & expected.keys():
            np.testing.assert_array_equal(held[name], expected[name])
        index.upsert(["after"], np.ones((1, 8)))
        index.rebalance()
