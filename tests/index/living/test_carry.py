"""Checks that what happened to yesterday's living index is in today's, whatever was killed and in whatever order."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recall.core.errors import ArtifactError
from recall.index import LivingIndex, build_index, carry_index, new_journal, save_index
from recall.index.living.promise import Promise
from tests.helpers.interrupting import Interruption
from tests.helpers.living_oracle import DIM, drawn, saved

NEW = {name: np.full(DIM, number, np.float32) for number, name in enumerate(("a", "b", "c", "d"), start=1)}


def encode(sources: Sequence[Any], report: Mapping[str, Any]) -> Any:
    """Today's model: the vector of a source is its number and 100 more, everywhere."""
    return np.stack([np.full(DIM, 100 + source["number"], np.float32) for source in sources])


def add(index: LivingIndex, *names: str) -> None:
    sources = [{"number": int(NEW[name][0])} for name in names]
    index.upsert(list(names), np.stack([NEW[name] for name in names]), sources=sources)


def today(directory: Path, *, without: tuple[str, ...] = (), also: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Publish the catalogue of today under today's model."""
    vectors = dict(zip([f"i{row}" for row in range(20)], drawn(20, seed=7), strict=True))
    vectors |= {name: -NEW[name] for name in also}
    vectors = {name: vector for name, vector in vectors.items() if name not in without}
    save_index(build_index(list(vectors), np.stack(list(vectors.values()))), directory, fingerprint="today")
    return vectors


def held(directory: Path) -> dict[str, float]:
    """Return the first number of every vector by id, opened read only and as a writer."""
    found = []
    for read_only in (True, False):
        with LivingIndex.open(directory, encode=encode, read_only=read_only) as index:
            names = sorted(set(index.ids) - {None})
            found.append(dict(zip(names, index.vectors(names)[:, 0].tolist(), strict=True)))
    assert found[0] == found[1]
    return found[0]


def firsts(vectors: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(vector[0]) for name, vector in vectors.items()}


@pytest.fixture
def days(tmp_path: Path) -> tuple[Path, Path]:
    """Yesterday: i0 to i19; i3 and a deleted, a and b added, i4 refreshed, partly compacted into a version; then c."""
    yesterday = tmp_path / "yesterday"
    saved(yesterday, items=20)
    with LivingIndex.open(yesterday) as index:
        add(index, "a", "b")
        index.delete(["i3", "a"])
        index.upsert(["i4"], drawn(1, seed=3), sources=[{"counts": [5, 1, 0]}])
        index.rebalance()
        add(index, "c")
    return yesterday, tmp_path / "today"


def take(days: tuple[Path, Path], **wanted: Any) -> int:
    return carry_index(*days, fingerprint="today", **wanted)


def test_additions_and_deletions_of_yesterday_are_in_the_index_of_today(days: tuple[Path, Path]) -> None:
    before = {path: path.read_bytes() for path in days[0].rglob("*") if path.is_file()}
    assert take(days) == 5  # a, b, c, i3, i4
    expected = firsts(today(days[1], without=("i7",)))
    del expected["i3"]
    assert held(days[1]) == {**expected, "b": 102, "c": 103}, "today's vectors, and added items by today's model"
    assert take(days) == 0
    assert before == {path: path.read_bytes() for path in days[0].rglob("*") if path.is_file()}


def test_an_item_that_the_catalogue_took_over_is_the_catalogues(days: tuple[Path, Path]) -> None:
    names = [f"i{row}" for row in range(20)]
    assert take(days, catalogue=[*names, "b"]) == 3  # a and i3 as deleted, c
    expected = firsts(today(days[1], also=("a", "b")))
    del expected["i3"], expected["a"]  # deleted items stay so though the catalogue lists them
    assert held(days[1]) == {**expected, "c": 103}
    today(days[1])
    assert "b" not in held(days[1]), "it is the catalogue's from then on"


def test_later_changes_of_yesterday_are_taken_by_the_next_call_and_those_of_today_stay(days: tuple[Path, Path]) -> None:
    with LivingIndex.open(days[0]) as index:
        take(days)
        expected = firsts(today(days[1]))
        add(index, "d", "a")
        index.delete(["i9", "b", "c"])
    with LivingIndex.open(days[1], encode=encode) as index:
        add(index, "c")  # it is today's by now
        with pytest.raises(ArtifactError, match="lock: is held by another writer"):
            take(days)
    assert take(days, catalogue=list(expected)) == 4  # d, a, i9, b
    assert take(days) == 0
    for name in ("i3", "i9"):
        del expected[name]
    assert held(days[1]) == {**expected, "d": 104, "a": 101, "c": 3}


def test_a_call_that_is_killed_anywhere_is_called_again(days: tuple[Path, Path], tmp_path: Path) -> None:
    def dies() -> None:
        raise KeyboardInterrupt

    for line in itertools.count(0, 9):
        both = tmp_path / f"{line}" / "yesterday", tmp_path / f"{line}" / "today"
        shutil.copytree(days[0], both[0])
        death = Interruption(dies, before_line=line, within="carry.py")
        with contextlib.suppress(KeyboardInterrupt), death.armed():
            take(both)
        if not death.happened:
            break
        with LivingIndex.open(both[0]) as index:
            index.delete(["c"])  # meanwhile
        take(both)
        expected = firsts(today(both[1]))
        del expected["i3"]
        assert held(both[1]) == {**expected, "b": 102}
    assert line > 60, "some of the lines are between writes"


@pytest.mark.parametrize("damaged", ["files.json", "lock"])  # the second: no file that matters
def test_a_new_journal_goes_on_with_what_the_version_contains(damaged: str, days: tuple[Path, Path]) -> None:
    with LivingIndex.open(days[0]) as index:
        index.rebalance()
    (days[0] / "journal" / damaged).write_text("?")
    new_journal(days[0])
    take(days)
    for directory in days:  # an index made again, and the next day's
        expected = firsts(today(directory))
        del expected["i3"]
        assert held(directory) == {**expected, "b": 102, "c": 103}


def test_what_a_version_alone_keeps_is_taken_over(days: tuple[Path, Path]) -> None:
    with LivingIndex.open(days[0]) as index:
        index.rebalance()
    shutil.rmtree(days[0] / "journal")
    (days[0] / "ACKNOWLEDGED").write_bytes(Promise("0" * 32, 5, 5).line())  # as an earlier release began it anew
    assert take(days) == 3  # b, c, and i4 by its counts
    expected = firsts(today(days[1]))
    assert held(days[1]) == {**expected, "b": 102, "c": 103}


def test_without_an_index_of_yesterday_nothing_is_taken_and_a_damaged_note_is_named(days: tuple[Path, Path]) -> None:
    assert carry_index(days[0].parent / "none", days[1], fingerprint="today") == 0
    assert not days[1].exists()
    take(days)
    (days[1] / "CARRIED.json").write_text("{}x")
    with pytest.raises(ArtifactError, match=r"CARRIED.json: cannot be read .* remove this one file"):
        take(days)
