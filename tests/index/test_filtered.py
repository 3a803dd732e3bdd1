"""Search among the items that a query may have, against sorting all of them."""

from __future__ import annotations

import numpy as np
import pytest

from recall.config.index import IndexConfig
from recall.core.errors import DataError
from recall.index import Index, build_index

ITEMS, DIM = 9_000, 8
KINDS = {
    "exact": IndexConfig(kind="exact", k=20),
    "scann": IndexConfig(kind="scann", k=20),
    "sharded": IndexConfig(kind="exact", k=20, shards=3),
}


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(ITEMS, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(12, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def indexes(vectors: np.ndarray) -> dict[str, Index]:
    return {kind: build_index([f"i{row}" for row in range(ITEMS)], vectors, config=KINDS[kind]) for kind in KINDS}


@pytest.fixture(params=KINDS)
def index(request: pytest.FixtureRequest, indexes: dict[str, Index]) -> Index:
    return indexes[request.param]


def truth(vectors, query, k, *, may):
    """Return the rows of the k best allowed items, by sorting all."""
    rows = np.flatnonzero(may)
    return rows[np.argsort(-(vectors[rows].astype(float) @ query), kind="stable")][:k]


@pytest.mark.parametrize("share", [0.9, 0.3, 0.02, 0.001])
def test_the_best_allowed_items_are_found_however_few_they_are(index, vectors, queries, share):
    allowed = np.random.default_rng(3).random(ITEMS) < share
    found = index.search(queries, 10, allowed=allowed)
    hits = 0
    for query, rows in zip(queries, found.rows, strict=True):
        expected = truth(vectors, query, 10, may=allowed)
        assert (rows[: expected.size] >= 0).all()
        assert (rows[expected.size :] == -1).all()
        assert allowed[rows[rows >= 0]].all()
        hits += np.isin(expected, rows).sum() / expected.size
    assert hits / len(queries) == pytest.approx(1, abs=0 if index.is_exact else 0.1)


def test_items_far_from_the_query_are_found_when_only_they_are_allowed(index, vectors, queries):
    # The worst third: whatever width is tried at first, none of these is in it.
    for query in queries[:3]:
        scores = vectors @ query
        allowed = scores < np.quantile(scores, 1 / 3)
        found = index.search(query, 25, allowed=allowed)
        assert found.rows[0].tolist() == truth(vectors, query, 25, may=allowed).tolist()


def test_each_query_is_spared_what_it_excludes(index, vectors, queries):
    best = index.search(queries, 60).rows
    excluded = [best[line, : line * 5] for line in range(len(queries))]
    found = index.search(queries, 40, excluded=excluded)
    for line, query in enumerate(queries):
        assert not np.isin(found.rows[line], excluded[line]).any()
        assert (found.rows[line] >= 0).all()
        if index.is_exact:
            may = ~np.isin(np.arange(ITEMS), excluded[line])
            assert found.rows[line].tolist() == truth(vectors, query, 40, may=may).tolist()


def test_when_all_but_a_few_are_excluded_those_few_are_given(index, queries):
    left = [17, 4_000, 8_999]
    everything_else = np.setdiff1d(np.arange(ITEMS), left)
    found = index.search(queries[:2], 10, excluded=[everything_else, []])
    assert sorted(found.rows[0, :3]) == left
    assert found.ids[0, 3:].tolist() == [None] * 7
    assert np.isneginf(found.scores[0, 3:]).all()
    assert (found.rows[1] >= 0).all()


def test_nothing_allowed_is_an_empty_answer(index, queries):
    found = index.search(queries, 3, allowed=np.zeros(ITEMS, bool))
    assert (found.rows == -1).all()
    assert found.scores.shape == (12, 3)


def test_what_is_excluded_but_not_allowed_anyway_costs_no_result(index, queries):
    allowed = np.arange(ITEMS) < 30
    found = index.search(queries, 30, allowed=allowed, excluded=[np.arange(20, 60)] * 12)
    assert (np.sort(found.rows, axis=1)[:, 10:] == np.arange(20)).all()
    assert (found.rows[:, 20:] == -1).all()


def test_everything_allowed_is_as_no_filter(indexes, queries):
    exact = indexes["exact"]
    plain, filtered = exact.search(queries, 50), exact.search(queries, 50, allowed=np.ones(ITEMS, bool))
    np.testing.assert_array_equal(plain.rows, filtered.rows)
    np.testing.assert_array_equal(plain.scores, filtered.scores)


def test_an_item_with_several_vectors_counts_by_its_best_under_a_filter(queries):
    several = np.random.default_rng(5).normal(size=(400, 3, DIM)).astype(np.float32)
    index = build_index([f"i{row}" for row in range(400)], several, config=KINDS["exact"])
    allowed = np.arange(400) % 7 == 0
    found = index.search(queries, 12, allowed=allowed)
    scores = np.where(allowed, (several @ queries.T).max(axis=1).T, -np.inf)  # [queries, items]
    np.testing.assert_array_equal(found.rows, np.argsort(-scores, axis=1)[:, :12])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"allowed": np.ones(3, bool)}, r"allowed: expected bool \[9,000\], found bool \[3\]"),
        ({"allowed": np.ones(ITEMS)}, r"allowed: expected bool \[9,000\], found float64 \[9000\]"),
        ({"excluded": [[1]]}, r"excluded: expected one list of rows for each of 12 queries, found 1"),
        ({"excluded": [[ITEMS]] * 12}, r"excluded: expected rows 0 to 8,999, found 9,000 to 9,000"),
    ],
)
def test_filters_that_do_not_fit_are_refused(indexes, queries, arguments, expected):
    with pytest.raises(DataError, match=expected):
        indexes["exact"].search(queries, 5, **arguments)
