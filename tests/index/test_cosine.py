"""Checks the index by cosine: built, saved, rebuilt, and absent from what was saved before there was one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recall.config.index import IndexConfig
from recall.core.artifacts import seal
from recall.core.errors import DataError
from recall.index import ExactIndex, Index, LivingIndex, build_index, build_saved_index, load_index
from recall.index.items import unit_vectors

ITEMS, DIM = 400, 9
CONFIG = IndexConfig(kind="scann", k=20)
IDS = [f"item {row}" for row in range(ITEMS)]


def long_and_short(items: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.normal(size=(items, DIM)) * random.uniform(0.1, 5, size=(items, 1))).astype(np.float32)


VECTORS = long_and_short(ITEMS, seed=1)


def nearest(vectors: np.ndarray, row: int, k: int) -> list[int]:
    """List the k rows with the largest cosine of the first DIM - 1 numbers, slowly."""
    own = [list(map(float, vector[:-1])) for vector in vectors]
    length = [sum(number * number for number in vector) ** 0.5 for vector in own]
    cosine = [
        sum(a * b for a, b in zip(own[row], vector, strict=True)) / (length[row] * long)
        for vector, long in zip(own, length, strict=True)
    ]
    return sorted(range(len(own)), key=lambda other: -cosine[other])[:k]


def recall_of(index: Index, vectors: np.ndarray, ids: list[str]) -> float:
    by_cosine = index.by_cosine(DIM - 1)
    rows = range(0, len(vectors), 10)
    found = by_cosine.search(unit_vectors(vectors[::10, :-1]), 20).ids
    shares = [
        len({ids[other] for other in nearest(vectors, row, 20)} & set(own)) / 20
        for row, own in zip(rows, found, strict=True)
    ]
    return float(np.mean(shares))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    build_saved_index(IDS, VECTORS, tmp_path / "index", fingerprint="m", config=CONFIG, cosine_width=DIM - 1)
    return tmp_path / "index"


def test_a_saved_index_by_cosine_answers_as_before_without_comparing_all(saved: Path) -> None:
    index = load_index(saved)
    assert index.by_cosine(DIM - 1).kind == "scann"
    assert recall_of(index, VECTORS, IDS) >= 0.9
    queries = unit_vectors(VECTORS[:30, :-1])
    found = [load_index(saved).by_cosine(DIM - 1).search(queries, 10) for _ in range(2)]
    np.testing.assert_array_equal(found[0].ids, found[1].ids)


def test_what_was_saved_without_one_compares_all(saved: Path) -> None:
    version = saved / "versions" / "0001"
    for path in (version / "cosine" / "scann").iterdir():
        path.unlink()
    (version / "cosine" / "scann").rmdir()
    (version / "cosine").rmdir()
    manifest = json.loads((version / "manifest.json").read_text())
    del manifest["cosine"], manifest["report"]["cosine_width"]
    seal(version, manifest)
    index = load_index(saved)
    assert (index.kind, index.by_cosine(DIM - 1).kind) == ("scann", "exact")
    assert recall_of(index, VECTORS, IDS) == 1
    with LivingIndex.open(saved) as living:
        living.upsert(["new"], VECTORS[[7]] * 3)
        found = living.snapshot().by_cosine(DIM - 1).search(unit_vectors(VECTORS[7, :-1]), 2)
        assert set(found.ids[0]) == {"item 7", "new"}


def test_an_experiment_may_do_without_one() -> None:
    config = CONFIG.model_copy(update={"similar": "exact"})
    index = build_index(IDS, VECTORS, config=config, cosine_width=DIM - 1)
    assert (index.kind, index.by_cosine(DIM - 1).kind) == ("scann", "exact")


@pytest.mark.parametrize("shards", [1, 3])
def test_after_a_rebalance_added_items_are_among_the_others_by_cosine(shards: int, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"shards": shards})
    build_saved_index(IDS, VECTORS, tmp_path, fingerprint="m", config=config, cosine_width=DIM - 1)
    added, ids = long_and_short(100, seed=2), [*IDS, *(f"added {row}" for row in range(100))]
    everything = np.concatenate([VECTORS, added])
    with LivingIndex.open(tmp_path, config=config) as living:
        living.snapshot().by_cosine(DIM - 1)  # the next snapshot has to see what comes later all the same
        for start in range(0, 100, 20):
            living.upsert(ids[ITEMS + start : ITEMS + start + 20], added[start : start + 20])
            living.snapshot().by_cosine(DIM - 1)
        assert recall_of(living.snapshot(), everything, ids) >= 0.9
        living.rebalance()
        assert recall_of(living.snapshot(), everything, ids) >= 0.9
    reopened = load_index(tmp_path)
    kinds = [shard.index.by_cosine(DIM - 1).kind for shard in reopened.shards] if shards > 1 else [
        reopened.by_cosine(DIM - 1).kind]  # fmt: skip
    assert kinds == ["scann"] * shards
    assert recall_of(reopened, everything, ids) >= 0.9


def test_a_snapshot_by_cosine_stays_as_it_was() -> None:
    living = LivingIndex(build_index(IDS, VECTORS))
    living.upsert(["a"], VECTORS[[3]])
    before = living.snapshot()
    living.upsert(["b"], VECTORS[[3]])
    living.delete(["a"])
    query = unit_vectors(VECTORS[3, :-1])
    assert before.by_cosine(DIM - 1).row_count == before.row_count
    assert set(before.by_cosine(DIM - 1).search(query, 2).ids[0]) == {"item 3", "a"}
    assert set(living.snapshot().by_cosine(DIM - 1).search(query, 2).ids[0]) == {"item 3", "b"}


def test_an_item_of_several_vectors_is_as_near_as_its_nearest() -> None:
    vectors = VECTORS.reshape(ITEMS // 2, 2, DIM)
    index = build_index(IDS[: ITEMS // 2], vectors)
    found = index.by_cosine(DIM - 1).search(unit_vectors(vectors[5, 1, :-1]), 3)
    assert found.ids[0, 0] == "item 5"
    unit = VECTORS[:, :-1] / np.linalg.norm(VECTORS[:, :-1], axis=1, keepdims=True)
    best = (unit @ unit[11]).reshape(-1, 2).max(axis=1)
    np.testing.assert_allclose(found.scores[0], np.sort(best)[::-1][:3], atol=1e-6)


def test_unit_length_holds_for_huge_and_tiny_vectors_and_zeros_stay() -> None:
    vectors = np.array([[3, 4], [3e30, 4e30], [3e-40, 4e-40], [0, 0]], np.float32)
    np.testing.assert_allclose(unit_vectors(vectors), [[0.6, 0.8], [0.6, 0.8], [0.6, 0.8], [0, 0]], rtol=1e-4)


def test_more_numbers_than_vectors_have_are_refused() -> None:
    with pytest.raises(DataError, match="width: expected 1 to 9, the dimensions of the vectors, found 10"):
        ExactIndex(build_index(IDS, VECTORS).items).by_cosine(10)
