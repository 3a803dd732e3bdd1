"""kill -9 while a living index is changed and rebalanced: what was acknowledged is there, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recall.config.index import IndexConfig
from recall.index import LivingIndex, build_index, save_index
from tests.helpers import victims
from tests.helpers.killing import killed_at, moments

State = dict[str, np.ndarray]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    old = [f"old {item}" for item in range(300)]
    index = build_index(old, victims.vectors_of(0, len(old)), config=IndexConfig(kind="exact", k=10))
    save_index(index, tmp_path / "index", fingerprint="model")
    return tmp_path / "index"


def applied(state: State, change: list[object]) -> State:
    operation, ids, number = change
    if operation == "delete":
        return {name: vector for name, vector in state.items() if name not in ids}
    return {**state, **dict(zip(ids, victims.vectors_of(number, len(ids)), strict=True))}


def possible(state: State, log: Path) -> list[State]:
    """What may be there after what was logged: a change that was begun and not acknowledged may be there or not."""
    changes: list[list[object]] = []
    lines = log.read_text().splitlines() if log.exists() else []
    for line in lines:
        if line == "done":
            state, changes = applied(state, changes.pop()), []
        else:
            changes = [json.loads(line)]
    return [state, *(applied(state, change) for change in changes)]


def content(index: LivingIndex) -> State:
    ids = [name for name in index.ids if name is not None]
    return dict(zip(ids, index.vectors(ids), strict=True))


def is_same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("rebalancing", [False, True], ids=["upsert", "rebalance"])
def test_all_that_was_acknowledged_is_there_after_a_kill(
    rebalancing: bool, kills: int, directory: Path, tmp_path: Path, account: Callable[..., None]
) -> None:
    with LivingIndex.open(directory) as index:
        state = content(index)
    acknowledged = versions = 0
    for number, moment in enumerate(moments(kills, within=1.0, seed=3)):
        log = tmp_path / f"log {number}"
        assert killed_at(moment, victims.change, directory, log, number + 1, rebalancing)
        with LivingIndex.open(directory) as index:
            found = content(index)
            assert any(is_same(found, expected) for expected in possible(state, log))
            state = found
            for name in list(state)[-3:]:
                assert index.search(state[name], 300).ids[0].tolist().count(name) == 1
        acknowledged += log.read_text().count("done") if log.exists() else 0
        versions = max(versions, int((directory / "CURRENT").read_text()))
    assert acknowledged > kills
    assert (versions > kills // 4) == rebalancing
    what = "upsert and delete, while rebalancing" if rebalancing else "upsert and delete"
    account(f"kill -9 in {what}", kills, "nothing", f"{acknowledged:,} acknowledged changes, {versions:,} versions")
