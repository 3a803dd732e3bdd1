"""Compares items of several entries with all entries merged by hand: search, look-ups and files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recall.config.index import IndexConfig
from recall.core.artifacts import write_json
from recall.core.errors import ArtifactError, DataError
from recall.index import Index, build_index, load_index, measure, save_index

KINDS = ("exact", "scann", "sharded exact", "sharded scann")
ITEMS, ENTRIES, DIM = 400, 3, 12


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    random = np.random.default_rng(3)
    centres = random.normal(size=(ITEMS, 1, DIM))
    # Some items' entries are near each other, others' are far apart.
    spread = random.uniform(0.05, 2, size=(ITEMS, 1, 1))
    return (centres + spread * random.normal(size=(ITEMS, ENTRIES, DIM))).astype(np.float32)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return np.random.default_rng(4).normal(size=(40, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def indexes(vectors: np.ndarray) -> dict[str, Index]:
    return {kind: built(kind, vectors) for kind in KINDS}


@pytest.fixture(params=KINDS)
def index(request: pytest.FixtureRequest, indexes: dict[str, Index]) -> Index:
    return indexes[request.param]


def built(kind: str, vectors: np.ndarray, **settings: float) -> Index:
    ids = [f"item {row}" for row in range(len(vectors))]
    *sharded, kind = kind.split()
    return build_index(ids, vectors, config=IndexConfig(kind=kind, k=20, shards=4 if sharded else 1, **settings))


def best(query: np.ndarray, vectors: np.ndarray, k: int) -> list[tuple[int, float]]:
    """Sort all entries and merge them by hand."""
    scored = sorted((-float(vectors[i, e] @ query), i) for i in range(len(vectors)) for e in range(vectors.shape[1]))
    found: dict[int, float] = {}
    for negative, item in scored:
        found.setdefault(item, -negative)
    return list(found.items())[:k]


@pytest.mark.parametrize("kind", ["exact", "sharded exact"])
@pytest.mark.parametrize("k", [1, 7, 60])
def test_exact_search_gives_every_item_once_by_its_best_entry(kind, indexes, vectors, queries, k):
    result = indexes[kind].search(queries, k)
    assert result.rows.shape == (40, k)
    for row, query in enumerate(queries):
        expected = best(query, vectors, k)
        assert result.rows[row].tolist() == [item for item, _ in expected]
        np.testing.assert_allclose(result.scores[row], [score for _, score in expected], rtol=1e-5)
        assert result.ids[row].tolist() == [f"item {item}" for item, _ in expected]


@pytest.mark.parametrize("kind", ["scann", "sharded scann"])
def test_scann_finds_nearly_the_same_and_scores_it_by_the_best_entry(kind, indexes, vectors, queries):
    result = indexes[kind].search(queries, 20)
    shared, wrong = 0, 0
    for row, query in enumerate(queries):
        expected = best(query, vectors, 20)
        shared += len({item for item, _ in expected} & set(result.rows[row]))
        wrong += np.count_nonzero(result.scores[row] < (vectors[result.rows[row]] @ query).max(axis=1) - 1e-4)
    assert shared >= 0.9 * 800
    assert wrong <= 0.02 * 800, "that an entry is missed while another one of its item is found is rare"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_full_where_the_best_entries_are_of_few_items(kind):
    # The query points at five items with twenty entries each; ninety-five others follow far behind.
    vectors = np.random.default_rng(6).normal(size=(100, 20, DIM)).astype(np.float32)
    vectors[:, :, 0] = -1
    vectors[:5, :, 0] = 50
    query = np.eye(DIM, dtype=np.float32)[0]
    result = built(kind, vectors).search(np.stack([query, vectors[70, 3]]), 30)
    for rows in result.rows:
        assert len(set(rows) - {-1}) == 30
    assert set(result.rows[0, :5]) == set(range(5))
    assert (np.diff(result.scores, axis=1) <= 0).all()


def test_a_query_gets_the_same_alone_and_in_a_batch(index, queries):
    together = index.search(queries, 15)
    for row, query in enumerate(queries):
        alone = index.search(query, 15)
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5)
        np.testing.assert_array_equal(alone.rows[0], together.rows[row])


def test_items_are_what_is_counted_named_and_looked_up(index, vectors):
    assert (len(index), index.entries, index.dim) == (ITEMS, ITEMS * ENTRIES, DIM)
    assert index.ids.tolist() == [f"item {row}" for row in range(ITEMS)]
    np.testing.assert_array_equal(index.vectors(["item 8", "item 2"]), vectors[[8, 2]])
    np.testing.assert_array_equal(index.vectors([5]), vectors[[5]])
    assert index.vectors([]).shape == (0, ENTRIES, DIM)
    with pytest.raises(DataError, match="1 of 1 ids are not in the index: item 400"):
        index.vectors(["item 400"])


def test_a_list_longer_than_the_catalogue_is_padded(index, queries):
    result = index.search(queries[:3], ITEMS + 2)
    for rows in result.rows:
        assert sorted(rows[:ITEMS]) == list(range(ITEMS))
        assert rows[ITEMS:].tolist() == [-1, -1]


def test_a_saved_index_comes_back_with_its_entries_and_says_so(index, vectors, queries, tmp_path):
    version = save_index(index, tmp_path, fingerprint="abc")
    manifest = json.loads((version / "manifest.json").read_text())
    assert (manifest["items"], manifest["entries_per_item"]) == (ITEMS, ENTRIES)
    loaded = load_index(tmp_path, fingerprint="abc")
    assert (len(loaded), loaded.entries) == (ITEMS, ITEMS * ENTRIES)
    found, expected = loaded.search(queries, 25), index.search(queries, 25)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(loaded.vectors([3]), vectors[[3]])
    assert loaded.vectors([]).flags.writeable


def test_an_index_that_lacks_entries_of_its_items_does_not_load(tmp_path):
    version = save_index(built("exact", np.ones((4, 2, 3), np.float32)), tmp_path, fingerprint="abc")
    manifest = json.loads((version / "manifest.json").read_text())
    write_json(version / "manifest.json", {**manifest, "entries_per_item": 3}, checksummed=True)
    with pytest.raises(ArtifactError, match="expected"):
        load_index(tmp_path)


def test_one_entry_per_item_is_the_index_without_entries(vectors, queries, tmp_path):
    one, plain = built("exact", vectors[:, :1]), built("exact", vectors[:, 0])
    np.testing.assert_array_equal(one.search(queries, 9).rows, plain.search(queries, 9).rows)
    assert one.vectors([1, 2]).shape == plain.vectors([1, 2]).shape == (2, DIM)
    assert one.report == plain.report
    # An index that was saved before entries were noted has one per item.
    version = save_index(plain, tmp_path, fingerprint="abc")
    manifest = json.loads((version / "manifest.json").read_text())
    del manifest["entries_per_item"]
    write_json(version / "manifest.json", manifest, checksummed=True)
    np.testing.assert_array_equal(load_index(tmp_path).search(queries, 9).rows, plain.search(queries, 9).rows)


def test_tuning_reaches_its_target_in_items(vectors):
    index = built("scann", vectors, target_recall=0.98)
    queries = np.random.default_rng(9).normal(size=(200, DIM)).astype(np.float32)
    assert measure(index, queries, k=20).recall >= 0.95
    assert index.report["measured"]["exact"]["k"] == 20


def test_every_item_needs_as_many_vectors():
    with pytest.raises(DataError, match="3 ids but 2 vectors"):
        build_index(["a", "b", "c"], np.ones((2, 3, 4)))
    with pytest.raises(DataError, match="at least one row and one dimension"):
        build_index(["a", "b"], np.ones((2, 0, 4)))
