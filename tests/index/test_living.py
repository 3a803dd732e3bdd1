"""The living index against an oracle that is a dictionary: under threads, crashes, rebalances and other models."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recall.config import IndexConfig
from recall.errors import ArtifactError, ConfigError, DataError
from recall.index import (
    LivingIndex,
    RebalancePolicy,
    Rebalancer,
    build_index,
    build_saved_index,
    load_index,
    save_index,
)

DIM = 8
KINDS = {
    "exact": IndexConfig(kind="exact", k=10),
    "scann": IndexConfig(kind="scann", k=10),
    "sharded": IndexConfig(kind="exact", k=10, shards=3),
}
Vectors = dict[str, np.ndarray]


def drawn(count: int, *, seed: int, entries: int | None = None) -> np.ndarray:
    shape = (count, DIM) if entries is None else (count, entries, DIM)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def saved(directory: Path, kind: str = "exact", *, items: int = 300, entries: int | None = None) -> Vectors:
    """Publishes items i0, i1, ... and returns their vectors."""
    vectors = drawn(items, seed=1, entries=entries)
    ids = [f"i{row}" for row in range(items)]
    save_index(build_index(ids, vectors, config=KINDS[kind]), directory, fingerprint="m")
    return dict(zip(ids, vectors, strict=True))


def assert_holds(index: LivingIndex, expected: Vectors, *, exactly: bool = True) -> None:
    """Every query gets the best of the expected items, and nothing else is there."""
    assert len(index) == len(expected)
    assert set(index.ids) - {None} == set(expected)
    ids = np.array(list(expected), dtype=object)
    vectors = np.stack(list(expected.values()))
    queries = drawn(20, seed=9)
    scores = vectors.reshape(len(ids), -1, DIM) @ queries.T  # [items, entries, queries]
    scores = scores.max(axis=1).T
    k = min(10, len(ids))
    truth = ids[np.argsort(-scores, axis=1)[:, :k]]
    found = index.search(queries, 10)
    assert (found.ids[:, k:] == None).all()  # noqa: E711
    if exactly:
        assert found.ids[:, :k].tolist() == truth.tolist()
    else:
        assert np.mean([len(set(a) & set(b)) / k for a, b in zip(truth, found.ids, strict=True)]) > 0.9
        assert set(found.ids.ravel()) <= set(expected)
    np.testing.assert_array_equal(index.vectors(list(expected)[:50]), vectors[:50])


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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


def test_rebalancing_keeps_every_item_and_deleted_ones_never_return(kind, tmp_path):
    expected = saved(tmp_path, kind)
    with LivingIndex.open(tmp_path, fingerprint="m") as index:
        names, new = [f"n{row}" for row in range(100)], drawn(100, seed=2)
        index.upsert(names, new)
        expected.update(zip(names, new, strict=True))
        for name in ("i5", "n5"):
            del expected[name]
        index.delete(["i5", "n5"])
        left = index.rebalance()
        assert (left.recent, left.gone, left.items) == (0, 0, 398)
        assert_holds(index, expected, exactly=kind != "scann")
        assert set(load_index(tmp_path).ids) == set(expected), "the version holds them without the journal"
        index.delete(["i6"])
        del expected["i6"]
    with LivingIndex.open(tmp_path, fingerprint="m") as index:
        assert index.drift(sample=0).gone == 1, "what the version contains is not applied again"
        assert_holds(index, expected, exactly=kind != "scann")


def test_a_new_base_is_tuned_with_the_queries_that_the_version_before_was_tuned_with(tmp_path):
    config = IndexConfig(kind="scann", k=10)
    names = [f"i{row}" for row in range(300)]
    vectors, queries = drawn(300, seed=1), drawn(7, seed=2)
    build_saved_index(names, vectors, tmp_path / "index", fingerprint="model", config=config, sample_queries=queries)
    for own, expected in ((None, 7), (None, 7), (queries[:5], 5), (None, 5)):
        with LivingIndex.open(tmp_path / "index", config=config, sample_queries=own) as index:
            index.upsert(["new"], drawn(1, seed=3))
            index.rebalance()
            assert index.report["measured"]["scann"]["queries"] == expected
    other = drawn(4, seed=4)
    with LivingIndex.open(tmp_path / "index", config=config) as index:
        build_saved_index(names, vectors, tmp_path / "index", fingerprint="model", config=config, sample_queries=other)
        assert index.refresh()
        index.rebalance()
        assert index.report["measured"]["scann"]["queries"] == 4


def test_a_version_made_from_the_catalogue_again_does_not_undo_the_journal(tmp_path):
    expected = saved(tmp_path)
    with LivingIndex.open(tmp_path, fingerprint="m") as index:
        index.upsert(["new", "i1"], drawn(2, seed=2))
        index.delete(["i0"])
        index.rebalance()
        expected |= dict(zip(["new", "i1"], drawn(2, seed=2), strict=True))
        del expected["i0"]
        for _ in range(3):  # so that the rebalanced version is pruned
            saved(tmp_path)
        assert index.refresh()
        assert_holds(index, expected)
        index.upsert(["newer"], drawn(1, seed=3))
        expected["newer"] = drawn(1, seed=3)[0]
    with LivingIndex.open(tmp_path, fingerprint="m") as index:
        assert_holds(index, expected)
        assert not index.refresh()


def test_rebalancing_over_a_version_of_another_process_is_refused(tmp_path):
    expected = saved(tmp_path)
    with LivingIndex.open(tmp_path) as index:
        index.delete(["i3"])
        saved(tmp_path)
        with pytest.raises(ArtifactError, match=r"another process published version 0002 .* refresh"):
            index.rebalance()
        index.refresh()
        index.rebalance()
        del expected["i3"]
        assert_holds(index, expected)


def test_a_reader_sees_what_the_writer_did_when_it_refreshes(tmp_path):
    expected = saved(tmp_path)
    with LivingIndex.open(tmp_path) as writer, LivingIndex.open(tmp_path, read_only=True) as reader:
        with pytest.raises(ArtifactError, match="held by another writer"):
            LivingIndex.open(tmp_path)
        writer.upsert(["x"], drawn(1, seed=4))
        assert "x" not in set(reader.ids)
        assert not reader.refresh()
        expected["x"] = drawn(1, seed=4)[0]
        assert_holds(reader, expected)
        writer.delete(["x"])
        writer.rebalance()
        assert reader.refresh()
        del expected["x"]
        assert_holds(reader, expected)
        for change in (lambda: reader.delete(["i1"]), lambda: reader.upsert(["y"], drawn(1, seed=1)), reader.rebalance):
            with pytest.raises(ArtifactError, match="for reading alone"):
                change()


def test_a_journal_stays_short_though_the_same_items_change_again_and_again(tmp_path):
    expected = saved(tmp_path)
    notes = ["x" * 1_000] * 50  # of each item

    def journal_bytes() -> int:
        return sum(path.stat().st_size for path in (tmp_path / "journal").iterdir())

    def change_often(index: LivingIndex) -> None:
        for seed in range(40):
            vectors = drawn(50, seed=seed)
            index.upsert([f"n{row}" for row in range(50)], vectors, sources=notes)
            expected.update({f"n{row}": vector for row, vector in enumerate(vectors)})
        assert journal_bytes() > 40 * 50 * 1_000

    with LivingIndex.open(tmp_path) as index:
        change_often(index)
        assert Rebalancer(index).check() is None, "50 of 350 are too few to build anew"
        assert journal_bytes() < 2 * 50 * 1_200
        change_often(index)
        save_index(load_index(tmp_path), tmp_path, fingerprint="m")
        assert index.refresh()
        assert journal_bytes() < 2 * 50 * 1_200
        assert not index.tidy()
        assert_holds(index, expected)
        assert index.sources(["n7"]) == notes[:1]
    with LivingIndex.open(tmp_path) as index:
        assert_holds(index, expected)


# Another model


def test_another_models_version_wins_over_older_upserts_but_not_over_deletes(tmp_path):
    expected = saved(tmp_path)
    with LivingIndex.open(tmp_path, fingerprint="m") as index:
        index.upsert(["i1", "raw", "bare"], drawn(3, seed=2), sources=[None, {"row": 7}, None])
        index.delete(["i2"])
    ids = list(expected)
    wider = np.random.default_rng(5).normal(size=(300, DIM + 2)).astype(np.float32)
    save_index(build_index(ids, wider), tmp_path, fingerprint="other")

    def encode(sources, report):
        assert list(sources) == [{"row": 7}]
        return np.full((1, DIM + 2), 7.0, np.float32)

    with LivingIndex.open(tmp_path, fingerprint="other", encode=encode) as index:
        assert index.set_aside == ("bare",)
        assert (index.vectors(["raw"]) == 7).all()
        np.testing.assert_array_equal(index.vectors(["i1"]), wider[[1]])
        with pytest.raises(DataError, match="i2"):
            index.rows(["i2"])
        assert len(index) == 300
        index.rebalance()
        assert index.sources(["raw", "i1"]) == [{"row": 7}, None]
    with LivingIndex.open(tmp_path, fingerprint="other") as index:
        assert (index.vectors(["raw"]) == 7).all(), "the version contains it"
    with pytest.raises(ArtifactError, match="vectors of model other, but the model is m"):
        LivingIndex.open(tmp_path, fingerprint="m")
    LivingIndex.open(tmp_path).close()  # the failed one has let go of the lock


def test_sources_are_those_of_an_items_last_change_whoever_else_is_asked_for(tmp_path):
    saved(tmp_path)
    with LivingIndex.open(tmp_path) as index:
        index.upsert(["one", "other"], drawn(2, seed=2), sources=["first", "second"])
        before = index.sequence
        index.upsert(["one"], drawn(1, seed=3), sources=["third"])
        for ids in (["one", "other"], ["other", "one"]):
            assert dict(zip(ids, index.sources(ids), strict=True)) == {"one": "third", "other": "second"}
        assert index.with_sources_since(before) == ["one"]


def test_a_source_that_this_model_cannot_read_is_set_aside_alone(tmp_path):
    saved(tmp_path)
    with LivingIndex.open(tmp_path) as index:
        index.upsert(["good", "bad"], drawn(2, seed=2), sources=["good", "bad"])
    save_index(build_index(["i0"], np.ones((1, 3))), tmp_path, fingerprint="other")

    def encode(sources, report):
        if "bad" in sources:
            raise DataError("no number")
        return np.ones((len(sources), 3), np.float32)

    with LivingIndex.open(tmp_path, encode=encode) as index:
        assert index.set_aside == ("bad",)
        assert sorted(index.ids) == ["good", "i0"]


def test_a_journal_of_another_index_is_refused(tmp_path):
    saved(tmp_path / "one")
    with LivingIndex.open(tmp_path / "one") as index:
        index.delete(["i1"])
        shutil.copytree(tmp_path / "one" / "journal", tmp_path / "older")
        index.delete(["i2"])
        index.rebalance()
    shutil.rmtree(tmp_path / "one" / "journal")
    LivingIndex.open(tmp_path / "one").close()  # none at all: it was moved away on purpose
    shutil.rmtree(tmp_path / "one" / "journal")
    shutil.copytree(tmp_path / "older", tmp_path / "one" / "journal")
    with pytest.raises(ArtifactError, match="ends at record 1, but the index already contains 2"):
        LivingIndex.open(tmp_path / "one")


# Threads


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


# Crashes

CHANGE_UNTIL_KILLED = """
import sys
import numpy as np
from recall.index import LivingIndex
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


# Drift


def test_drift_counts_and_measures_what_search_misses(tmp_path):
    vectors = drawn(6_000, seed=1)
    index = LivingIndex(build_index([f"i{row}" for row in range(6_000)], vectors, config=KINDS["scann"]))
    assert index.drift().recall is None
    index.upsert([f"n{row}" for row in range(200)], drawn(200, seed=2) + 3)
    index.delete([f"i{row}" for row in range(600)])
    drift = index.drift(k=20)
    assert (drift.items, drift.recent, drift.gone, drift.queries) == (5_600, 200, 600, 64)
    assert drift.recent_share == pytest.approx(200 / 5_600)
    assert drift.gone_share == pytest.approx(0.1)
    assert drift.recent_recall == 1, "what came later is compared exactly"
    assert drift.recall is not None
    assert drift.recall > 0.8


def test_the_background_rebalances_when_the_policy_says_so(tmp_path):
    expected = saved(tmp_path)
    policy = RebalancePolicy(most_recent_share=0.1, least_changes=20, check_every_seconds=0.01)
    with LivingIndex.open(tmp_path) as index:
        rebalancer = Rebalancer(index, policy)
        assert rebalancer.check() is None
        index.upsert([f"n{row}" for row in range(30)], drawn(30, seed=2))
        assert rebalancer.check() is None, "30 of 330 are fewer than a tenth"
        index.upsert([f"m{row}" for row in range(10)], drawn(10, seed=3))
        assert rebalancer.check() == "11.8% of the items are recent, more than 10.0%"
        assert rebalancer.rebalances == 1
        index.delete([f"i{row}" for row in range(100)])
        with Rebalancer(index, policy) as background:
            while background.rebalances == 0 and background.error is None:
                assert len(index.search(np.ones(DIM), 240).ids[0]) == 240
        assert background.error is None
        assert index.drift(sample=0).gone == 0
        for row in range(100):
            del expected[f"i{row}"]
        expected |= {f"n{row}": vector for row, vector in enumerate(drawn(30, seed=2))}
        expected |= {f"m{row}": vector for row, vector in enumerate(drawn(10, seed=3))}
        assert_holds(index, expected)


@pytest.mark.parametrize(
    "wrong", [{"most_recent_share": 1.5}, {"least_recall": -1}, {"least_changes": 0}, {"check_every_seconds": 0}]
)
def test_impossible_policies_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RebalancePolicy(**wrong)
