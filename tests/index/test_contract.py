"""Checks the promises of every index. A new kind joins by being added to `KINDS`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recall.config.index import IndexConfig
from recall.core.errors import DataError
from recall.index import Index, LivingIndex, build_index

KINDS = {
    "exact": IndexConfig(kind="exact", k=20),
    "scann": IndexConfig(kind="scann", k=20),
    "sharded exact": IndexConfig(kind="exact", k=20, shards=4),
    "sharded scann": IndexConfig(kind="scann", k=20, shards=4),
    "living exact": IndexConfig(kind="exact", k=20),
    "living scann": IndexConfig(kind="scann", k=20),
    "living sharded exact": IndexConfig(kind="exact", k=20, shards=4),
}
ITEMS, DIM = 600, 16

pytestmark = pytest.mark.parametrize("kind", KINDS)


def built(kind: str, ids: list[str], vectors: np.ndarray, *, cosine_width: int | None = None) -> Index:
    # A handful of items does not fill several shards.
    shards = min(KINDS[kind].shards, 1 + len(ids) // 5)
    config = KINDS[kind].model_copy(update={"shards": shards})
    index = build_index(ids, vectors, config=config, cosine_width=cosine_width)
    return lived_in(index, vectors) if kind.startswith("living") else index


def lived_in(built: Index, vectors: np.ndarray) -> Index:
    """Make a living index of the same items by many changes, and return its snapshot.

    A third is built from wrong vectors and replaced, the last third comes later, other items come and go.
    """
    ids, third = built.ids.tolist(), len(built) // 3
    wrong = np.array(vectors, np.float32)
    wrong[: len(ids) : 3] += 9
    first = len(ids) - third
    config = IndexConfig(kind="exact" if built.is_exact else "scann", k=20, shards=built.settings.get("shards", 1))
    index = LivingIndex(build_index(ids[:first], wrong[:first], config=config))
    index.upsert(ids[first:], wrong[first:])
    index.upsert(["passing", "by"], np.full((2, built.dim), 9.0))
    for row in range(0, len(ids), 3):
        index.upsert([ids[row]], np.asarray(vectors, np.float32)[[row]])
    index.delete(["passing", "by"])
    if len(ids) > 2:
        index.delete([ids[1]])
        index.upsert([ids[1]], np.asarray(vectors, np.float32)[[1]])
    return index.snapshot()


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    random = np.random.default_rng(3)
    return (random.normal(size=(ITEMS, DIM)) * random.uniform(0.1, 3, size=(ITEMS, 1))).astype(np.float32)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return np.random.default_rng(4).normal(size=(40, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def indexes(vectors: np.ndarray) -> dict[str, Index]:
    ids = [f"item {row}" for row in range(ITEMS)]
    return {kind: built(kind, ids, vectors, cosine_width=DIM - 1) for kind in KINDS}


@pytest.fixture
def index(kind: str, indexes: dict[str, Index]) -> Index:
    return indexes[kind]


def test_scores_are_the_inner_products_of_the_returned_items(index, vectors, queries):
    result = index.search(queries, 10)
    assert (result.rows.dtype, result.scores.dtype) == (np.int32, np.float32)
    assert result.rows.shape == result.scores.shape == result.ids.shape == (40, 10)
    expected = (queries[:, None, :].astype(float) * vectors[result.rows]).sum(axis=2)
    np.testing.assert_allclose(result.scores, expected, rtol=1e-5, atol=1e-5)


def test_results_fall_in_score_and_never_repeat_an_item(index, queries):
    result = index.search(queries, 50)
    assert (np.diff(result.scores, axis=1) <= 0).all()
    assert all(len(set(row)) == 50 for row in result.rows)


def test_ids_are_strings_that_belong_to_the_rows(index, queries):
    result = index.search(queries, 5)
    assert result.ids.tolist() == [[f"item {row}" for row in rows] for rows in result.rows]


def test_most_of_the_true_best_are_found(index, vectors, queries):
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :20]
    found = index.search(queries, 20).rows
    hits = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(truth, found, strict=True)])
    assert hits == 1 if index.is_exact else hits >= 0.9


def test_a_query_is_answered_alone_as_in_a_batch_and_the_same_every_time(index, queries):
    batch = index.search(queries, 15)
    again = index.search(queries, 15)
    for number, query in enumerate(queries):
        alone = index.search(query, 15)
        assert alone.rows.shape == (1, 15)
        np.testing.assert_array_equal(alone.rows[0], batch.rows[number])
        # ScaNN sums the last candidates of a batch in another order; a float32 holds 24 bits.
        np.testing.assert_allclose(alone.scores[0], batch.scores[number], rtol=0 if index.is_exact else 2**-20)
    np.testing.assert_array_equal(again.rows, batch.rows)


def test_by_cosine_lengths_of_vectors_and_further_numbers_have_no_say(kind, index, vectors):
    compared = vectors[:, : DIM - 1].astype(float)
    unit = compared / np.linalg.norm(compared, axis=1, keepdims=True)
    by_cosine = index.by_cosine(DIM - 1)
    assert (by_cosine.dim, by_cosine.row_count, len(by_cosine)) == (DIM - 1, index.row_count, ITEMS)
    result = by_cosine.search(unit[:40].astype(np.float32), 20)
    assert result.ids.tolist() == [[f"item {row}" for row in rows] for rows in result.rows]
    np.testing.assert_allclose(result.scores, np.einsum("qd,qkd->qk", unit[:40], unit[result.rows]), atol=1e-5)
    truth = np.argsort(-(unit[:40] @ unit.T), axis=1)[:, :20]
    hits = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(truth, result.rows, strict=True)])
    assert hits == 1 if index.is_exact else hits >= 0.9
    # By inner product the third of the longest vectors takes far more than a third of all places.
    long = np.argsort(-np.linalg.norm(compared, axis=1))[: ITEMS // 3]
    assert np.isin(index.search(vectors[:40], 20).rows, long).mean() > 0.6
    assert np.isin(result.rows, long).mean() < 0.45


def test_by_cosine_filters_and_exclusions_hold(index, vectors):
    unit = vectors[:, : DIM - 1] / np.linalg.norm(vectors[:, : DIM - 1], axis=1, keepdims=True)
    allowed = np.zeros(index.row_count, bool)
    allowed[:ITEMS:4] = True
    found = index.by_cosine(DIM - 1).search(unit[[0, 4]], 150, allowed=allowed, excluded=[[0], [4, 8]])
    assert [set(row[row >= 0]) for row in found.rows] == [{*range(4, ITEMS, 4)}, {0, *range(12, ITEMS, 4)}]


def test_more_candidates_than_items_are_padded(index, queries):
    result = index.search(queries[:3], ITEMS + 2)
    assert (np.sort(result.rows[:, :ITEMS], axis=1) == np.arange(ITEMS)).all()
    assert (result.rows[:, ITEMS:] == -1).all()
    assert (result.scores[:, ITEMS:] == -np.inf).all()
    assert result.ids[:, ITEMS:].tolist() == [[None, None]] * 3


def test_no_queries_give_no_results(index):
    result = index.search(np.empty((0, DIM), np.float32), 4)
    assert result.rows.shape == result.ids.shape == (0, 4)


def test_properties_describe_the_items(kind, index):
    expected = (kind.split()[0], ITEMS, DIM, kind.endswith("exact"))
    assert (index.kind, len(index), index.dim, index.is_exact) == expected
    assert index.ids[:ITEMS].tolist() == [f"item {row}" for row in range(ITEMS)]
    assert index.ids[ITEMS:].tolist() == [None] * (index.row_count - ITEMS)


def test_stored_vectors_are_found_by_id_and_by_row(index, vectors):
    np.testing.assert_array_equal(index.vectors(["item 7", "item 0"]), vectors[[7, 0]])
    np.testing.assert_array_equal(index.vectors(pa.array(["item 7"])), vectors[[7]])
    np.testing.assert_array_equal(index.vectors(np.array([599])), vectors[[599]])
    assert index.vectors([]).shape == (0, DIM)
    with pytest.raises(DataError, match=r"1 of 2 ids are not in the index: item 600"):
        index.vectors(["item 1", "item 600"])
    with pytest.raises(DataError, match=rf"rows: expected 0 to {index.row_count - 1}, found -1 to 3"):
        index.vectors([3, -1])


def test_equal_items_come_in_the_order_of_their_rows(kind, queries):
    # Whole numbers: every inner product is exact in float32, so equal vectors tie exactly.
    distinct = np.random.default_rng(5).integers(-3, 4, size=(5, DIM))
    vectors = np.tile(distinct, (60, 1)).astype(np.float32)  # row r equals row r % 5
    index = built(kind, [str(row) for row in range(300)], vectors)
    query = np.ones(DIM, np.float32)
    result = index.search(query, 300)
    for score in np.unique(result.scores):
        rows = result.rows[result.scores == score]
        assert (np.diff(rows) > 0).all()


def test_tiny_catalogues_are_searched(kind, vectors, queries):
    for items in (1, 2, 17, 150):
        index = built(kind, [str(row) for row in range(items)], vectors[:items])
        best = (queries @ vectors[:items].T).argmax(axis=1)
        assert (index.search(queries, 1).rows[:, 0] == best).mean() >= 0.9
        assert (index.search(queries, 200).rows >= 0).sum(axis=1).tolist() == [items] * len(queries)


def test_vectors_that_are_all_zero_are_searched(kind):
    index = built(kind, ["a", "b", "c"], np.zeros((3, 4)))
    assert index.search(np.ones(4), 3).scores.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["a", "b", "a", "b", "c"], np.ones((5, 2)), r"2 stand more than once, e.g. 'a' at rows 0, 2"),
        (["a", None, "c"], np.ones((3, 2)), r"ids: 1 are missing: rows 1"),
        ([1, 2], np.ones((2, 2)), r"ids: expected strings, found int64"),
        (["a", 1], np.ones((2, 2)), r"ids: expected strings"),
        (["a", "b"], np.ones((3, 2)), r"2 ids but 3 vectors"),
        (["a", "b"], np.ones(2), r"expected a matrix \[rows, dim\], found shape \(2,\)"),
        (["a", "b"], [[1, 2], [3]], r"vectors: expected rows of numbers"),
        ([], np.ones((0, 2)), r"at least one row"),
        (["a"], np.ones((1, 0)), r"at least one row and one dimension"),
        (["a", "b", "c"], [[1, 2], [1, np.nan], [np.inf, 0]], r"2 of 3 rows hold NaN or infinite .* rows 1, 2"),
        (["a"], [[1e39]], r"finite in float32"),
    ],
)
def test_unusable_items_are_refused_naming_the_rows(kind, ids, vectors, message):
    with pytest.raises(DataError, match=message):
        built(kind, ids, vectors)


def test_unusable_queries_are_refused(index, queries):
    with pytest.raises(DataError, match=r"queries: expected 16 dimensions, found 15"):
        index.search(queries[:, :15], 3)
    with pytest.raises(DataError, match=r"k: expected at least 1, found 0"):
        index.search(queries, 0)
    broken = queries.copy()
    broken[7, 2] = np.nan
    with pytest.raises(DataError, match=r"queries: 1 of 40 rows hold NaN .* rows 7"):
        index.search(broken, 3)
    with pytest.raises(DataError, match=r"found shape \(1, 2, 16\)"):
        index.search(queries[None, :2], 3)


def test_merged_lists_hold_the_best_items_of_all_queries_once(index, queries, vectors):
    found = index.search(queries[:30], 25)
    merged = found.merged(3)
    assert merged.rows.shape == merged.scores.shape == merged.ids.shape == (10, 75)
    if index.is_exact:
        best = (queries[:30].astype(float) @ vectors.T).reshape(10, 3, ITEMS).max(axis=1)  # [users, items]
        np.testing.assert_allclose(merged.scores[:, :25], -np.sort(-best, axis=1)[:, :25], rtol=1e-5, atol=1e-5)
    for user, (rows, scores, ids) in enumerate(zip(merged.rows, merged.scores, merged.ids, strict=True)):
        best_of: dict[int, float] = {}
        for lists in range(3 * user, 3 * user + 3):
            for row, score in zip(found.rows[lists], found.scores[lists], strict=True):
                best_of[row] = max(score, best_of.get(row, -np.inf))
        assert len(best_of) < 75, "some item is in several lists"
        expected = sorted(best_of.items(), key=lambda item: (-item[1], item[0]))
        assert list(zip(rows, scores, strict=True))[: len(expected)] == expected
        assert set(rows[len(expected) :]) == {-1}
        assert set(ids[len(expected) :]) == {None}
        assert np.isneginf(scores[len(expected) :]).all()


def test_merged_lists_of_one_query_each_are_as_they_were(index, queries):
    found = index.search(queries, ITEMS + 2)
    merged = found.merged(1)
    np.testing.assert_array_equal(merged.rows, found.rows)
    np.testing.assert_array_equal(merged.scores, found.scores)
    assert index.search(queries[:0], 4).merged(2).rows.shape == (0, 8)
