"""Gives tests of the living index published items with drawn vectors, and a dictionary to compare it with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recall.config.index import IndexConfig
from recall.index import LivingIndex, build_index, save_index

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
    """Publish items i0, i1, ... and returns their vectors."""
    vectors = drawn(items, seed=1, entries=entries)
    ids = [f"i{row}" for row in range(items)]
    save_index(build_index(ids, vectors, config=KINDS[kind]), directory, fingerprint="m")
    return dict(zip(ids, vectors, strict=True))


def assert_holds(index: LivingIndex, expected: Vectors, *, exactly: bool = True) -> None:
    """Check that every query gets the best of the expected items, and that nothing else is there."""
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
