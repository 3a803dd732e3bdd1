"""Checks a living index over changing versions: rebalanced, made again, from another process or model."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from recall.config.index import IndexConfig
from recall.core.errors import ArtifactError, DataError
from recall.index import LivingIndex, Rebalancer, build_index, build_saved_index, load_index, save_index
from tests.helpers.living_oracle import DIM, assert_holds, drawn, saved


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


def test_a_journal_of_another_index_is_refused(tmp_path):
    saved(tmp_path / "one")
    with LivingIndex.open(tmp_path / "one") as index:
        index.delete(["i1"])
        shutil.copytree(tmp_path / "one" / "journal", tmp_path / "older")
        index.delete(["i2"])
        index.rebalance()
    shutil.rmtree(tmp_path / "one" / "journal")
    shutil.copytree(tmp_path / "older", tmp_path / "one" / "journal")
    with pytest.raises(ArtifactError, match="ends at record 1, but 2 were acknowledged"):
        LivingIndex.open(tmp_path / "one")
    (tmp_path / "one" / "ACKNOWLEDGED").unlink()
    with pytest.raises(ArtifactError, match="ends at record 1, but the index already contains 2"):
        LivingIndex.open(tmp_path / "one")


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
            index.snapshot().rows(["i2"])
        assert len(index) == 300
        index.rebalance()
        assert index.sources(["raw", "i1"]) == [{"row": 7}, None]
    with LivingIndex.open(tmp_path, fingerprint="other") as index:
        assert (index.vectors(["raw"]) == 7).all(), "the version contains it"
    with pytest.raises(ArtifactError, match="vectors of model other, but the model is m"):
        LivingIndex.open(tmp_path, fingerprint="m")
    LivingIndex.open(tmp_path).close()  # the failed one has let go of the lock


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
