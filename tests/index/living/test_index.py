"""Compares the living index with a dictionary as its oracle: effects of changes, and refusals."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from recall.core.errors import ArtifactError, DataError
from recall.index import LivingIndex, build_index
from tests.helpers.living_oracle import DIM, KINDS, assert_holds, drawn, saved


@pytest.mark.parametrize("entries", [None, 3])
def test_changes_are_seen_at_once_and_after_reopening(kind, entries, tmp_path):
    expected = saved(tmp_path, kind, entries=entries)
    with LivingIndex.open(tmp_path, fingerprint="m") as index:
        new = drawn(80, seed=2, entries=entries)
        names = [f"i{row}" for row in range(280, 360)]  # 20 are replaced, 60 are new
        index.upsert(names, new)
        expected.update(zip(names, new, strict=True))
        gone = ["i0", "i299", "i300", "i359"]
        assert index.delete(gone) == 4
        for name in gone:
            del expected[name]
        index.upsert(["i0"], new[:1] + 1)
        expected["i0"] = new[0] + 1
        assert_holds(index, expected, exactly=kind != "scann")
        assert (index.drift(sample=0).recent, index.drift(sample=0).gone) == (78, 21)
    with LivingIndex.open(tmp_path, fingerprint="m") as index:
        assert_holds(index, expected, exactly=kind != "scann")


def test_sources_are_those_of_an_items_last_change_whoever_else_is_asked_for(tmp_path):
    saved(tmp_path)
    with LivingIndex.open(tmp_path) as index:
        index.upsert(["one", "other"], drawn(2, seed=2), sources=["first", "second"])
        before = index.sequence
        index.upsert(["one"], drawn(1, seed=3), sources=["third"])
        for ids in (["one", "other"], ["other", "one"]):
            assert dict(zip(ids, index.sources(ids), strict=True)) == {"one": "third", "other": "second"}
        assert index.with_sources_since(before) == ["one"]


def test_what_is_known_beside_the_vectors_changes_in_step_with_them():
    # The moment between the two, seen by who keeps in step and by who does not.
    before, after = drawn(2, seed=1)
    index = LivingIndex(build_index(["a", "b"], [before, before], config=KINDS["exact"]))
    known, kept_out, between = {"a": 1}, [], []

    def look():
        if in_time := index.in_step.acquire(blocking=False):
            index.in_step.release()
        kept_out.append(not in_time)

    def show():
        known["a"] = 2
        between.append(index.vectors(["a"])[0])
        reader = threading.Thread(target=look)
        reader.start()
        reader.join()

    index.upsert(["a"], [after], in_step=show)
    assert kept_out == [True]
    np.testing.assert_array_equal(between, [before])
    with index.in_step:
        assert known["a"] == 2
        np.testing.assert_array_equal(index.vectors(["a"])[0], after)


def test_what_was_refused_is_not_shown():
    index, shown = LivingIndex(build_index(["a"], drawn(1, seed=1), config=KINDS["exact"])), []
    for ids, vectors in ((["b"], drawn(1, seed=1)[:, 1:]), (["b", "b"], drawn(2, seed=1))):
        with pytest.raises(DataError):
            index.upsert(ids, vectors, in_step=lambda: shown.append(1))
    assert not shown


def test_a_snapshot_stays_as_it_was_whatever_happens(tmp_path):
    expected = saved(tmp_path)
    with LivingIndex.open(tmp_path) as index:
        index.upsert(["a"], drawn(1, seed=2))
        snapshot = index.snapshot()
        before = snapshot.search(drawn(5, seed=3), 20)
        for step in range(200):  # long enough for the recent part to be laid out anew
            index.upsert(["a", f"b{step}"], drawn(2, seed=step + 10))
        index.delete(["a", "i0"])
        index.rebalance()
        after = snapshot.search(drawn(5, seed=3), 20)
        assert after.ids.tolist() == before.ids.tolist()
        np.testing.assert_array_equal(snapshot.vectors(["a", "i0"]), np.stack([drawn(1, seed=2)[0], expected["i0"]]))
        assert snapshot.row("b3") == -1


def test_masks_and_exclusions_fit_the_rows_of_a_snapshot(kind, tmp_path):
    expected = saved(tmp_path, kind)
    with LivingIndex.open(tmp_path) as index:
        names = [f"n{row}" for row in range(50)]
        index.upsert(names, drawn(50, seed=2))
        expected |= dict(zip(names, drawn(50, seed=2), strict=True))
        index.delete(["i10", "n10"])
        snapshot = index.snapshot()
        wanted = [name for name in expected if name.endswith("7")]
        allowed = np.zeros(snapshot.row_count, bool)
        allowed[snapshot.rows(wanted)] = True
        barred = ["n17", "i107"]
        found = snapshot.search(drawn(4, seed=3), 60, allowed=allowed, excluded=[snapshot.rows(barred)] * 4)
        for ids in found.ids:
            assert sorted(name for name in ids if name is not None) == sorted(set(wanted) - set(barred))


# What cannot be done


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda index: index.upsert(["a", "a"], drawn(2, seed=1)), r"1 stand more than once, e.g. 'a' at rows 0, 1"),
        (lambda index: index.upsert(["a"], np.full((1, DIM), np.nan)), r"1 of 1 rows hold NaN"),
        (lambda index: index.upsert(["a"], np.ones((1, 9))), r"expected 1 of 8 dimensions per item, found 1 of 9"),
        (lambda index: index.upsert(["a"], np.ones((1, 2, 8))), r"expected 1 of 8 dimensions per item, found 2 of 8"),
        (lambda index: index.upsert(["a", "b"], np.ones((1, 8))), r"2 ids but 1 vectors"),
        (lambda index: index.upsert([1], np.ones((1, 8))), r"ids: expected strings"),
        (lambda index: index.upsert(["a"], np.ones((1, 8)), sources=[]), r"sources: expected one for each of 1 items"),
        (lambda index: index.delete(["i1", "x", "y"]), r"2 of 3 ids are not in the index: x, y"),
        (lambda index: index.delete("i1"), r"expected a list of ids, found the text 'i1'"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(change, error, tmp_path):
    expected = saved(tmp_path, items=30)
    with LivingIndex.open(tmp_path) as index:
        with pytest.raises(DataError, match=error):
            change(index)
        assert_holds(index, expected)
        index.upsert([], np.empty((0, DIM)))
        assert index.delete(["i1", "x", "i1"], missing_ok=True) == 1
        assert index.delete(["x"], missing_ok=True) == 0
    with LivingIndex.open(tmp_path) as index:
        assert len(index) == 29


def test_a_closed_index_says_so(tmp_path):
    saved(tmp_path, items=30)
    index = LivingIndex.open(tmp_path)
    index.close()
    index.close()
    calls: list[Callable[[], object]] = [
        lambda: index.search(np.ones(DIM), 3),
        lambda: index.upsert(["a"], np.ones((1, DIM))),
        lambda: index.delete(["i1"]),
        index.rebalance,
        index.refresh,
        index.drift,
        lambda: len(index),
    ]
    for call in calls:
        with pytest.raises(ArtifactError, match="the index is closed; open it again"):
            call()


def test_every_item_may_be_deleted(kind, tmp_path):
    saved(tmp_path, kind, items=30)
    with LivingIndex.open(tmp_path) as index:
        index.delete([f"i{row}" for row in range(30)])
        found = index.search(np.ones((2, DIM)), 3)
        assert (len(index), found.ids.tolist()) == (0, [[None] * 3] * 2)
        assert index.drift().recent_recall is None
        with pytest.raises(DataError, match="every item was deleted"):
            index.rebalance()
        index.upsert(["back"], np.ones((1, DIM)))
        assert index.search(np.ones(DIM), 2).ids.tolist() == [["back", None]]
    with LivingIndex.open(tmp_path) as index:
        assert index.search(np.ones(DIM), 2).ids.tolist() == [["back", None]]
