"""Compares exact search with a sort of all inner products."""

from __future__ import annotations

import numpy as np
import pytest

from recall.config.index import IndexConfig
from recall.index import build_index
from recall.index import exact as module


@pytest.mark.parametrize("block", [1, 1000, 1 << 22])
def test_blocks_do_not_change_the_answer(block, monkeypatch):
    random = np.random.default_rng(1)
    vectors = random.integers(-4, 5, size=(700, 6)).astype(np.float32)  # whole numbers: many exact ties
    queries = random.integers(-4, 5, size=(33, 6)).astype(np.float32)
    scores = queries @ vectors.T
    truth = np.argsort(-scores, axis=1, kind="stable")[:, :9]  # stable: equal scores by rising row
    monkeypatch.setattr(module, "_BLOCK", block)
    index = build_index([str(row) for row in range(700)], vectors, config=IndexConfig(kind="exact"))
    result = index.search(queries, 9)
    np.testing.assert_array_equal(result.rows, truth)
    np.testing.assert_array_equal(result.scores, np.take_along_axis(scores, truth, axis=1))
