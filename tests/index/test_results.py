"""Checks the selection of the best columns."""

from __future__ import annotations

import numpy as np

from recall.index.results import top_rows


def test_ties_at_the_cut_go_to_the_lowest_columns():
    scores = np.array([[0, 2, 1, 1, 3, 1], [1, 1, 1, 1, 1, 1]], np.float32)
    assert np.sort(top_rows(scores, 3), axis=1).tolist() == [[1, 2, 4], [0, 1, 2]]
    assert np.sort(top_rows(scores, 6), axis=1).tolist() == [[0, 1, 2, 3, 4, 5]] * 2
