"""Scores items by the likeness of their content to the user's clicks: the baselines that know new items, too."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from recall.core.arrays import Float32s
from recall.core.ragged import Ragged
from recall.evaluation.scorers import VectorScorer, repeated_rows

# Scores held at a time, five arrays of them: they stay in the caches, where each click reads them again.
_BLOCK = 1 << 18


def content_knn(unit: Float32s, history: Ragged) -> VectorScorer:
    """Score items by the cosine to the mean of the vectors of the history.

    A click without a vector has no say, and each further click of an item has. Without any every item scores 0.

    Args:
      unit: float32 [items, dim], content vectors of unit length; zeros for an item without one.
      history: clicked item rows of each example.
    """
    clicks = np.ones(len(history.values), np.float32)
    clicked = sparse.csr_array((clicks, (history.owners, history.values)), shape=(len(history), len(unit)))
    queries = clicked @ unit  # [examples, dim]
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    return VectorScorer(np.divide(queries, lengths, out=np.zeros_like(queries), where=lengths > 0), unit)


class ContentTop3Scorer:
    """Score an item by the sum of its cosines to the three clicks of the history that are nearest to it.

    Several tastes of a user stay apart, which a mean joins. Of a shorter history all clicks count, and without any
    every item scores 0.

    Args:
      unit: float32 [items, dim], content vectors of unit length; zeros for an item without one.
      history: clicked item rows of each example.
    """

    is_finite = True

    def __init__(self, unit: Float32s, history: Ragged) -> None:
        self._unit, self._history = unit, history
        self._columns = np.ascontiguousarray(unit.T)  # [dim, items]
        self._repeats, self._originals = repeated_rows(unit)

    @property
    def item_count(self) -> int:
        """Return the size of the catalogue."""
        return len(self._unit)

    def scores(self, start: int, stop: int) -> Float32s:
        """Add up the three largest cosines, float32 [stop - start, items]."""
        scores = np.empty((stop - start, self.item_count), np.float32)
        size = max(1, _BLOCK // max(1, self.item_count))
        for first in range(start, stop, size):
            last = min(first + size, stop)
            scores[first - start : last - start] = self._block(self._history[first:last])
        scores[:, self._repeats] = scores[:, self._originals]  # equal vectors tie: see `VectorScorer`
        return scores

    def _block(self, history: Ragged) -> Float32s:
        """Score a few examples: one click of each after the other, the longest histories first."""
        order = np.argsort(-history.lengths, kind="stable")
        lengths, starts = history.lengths[order], history.offsets[:-1][order]
        best = np.full((3, len(order), self.item_count), -np.inf, np.float32)  # falling along the first axis
        cosines, smaller = np.empty_like(best[0]), np.empty_like(best[0])
        for place in range(int(lengths.max(initial=0))):
            active = int(np.count_nonzero(lengths > place))
            clicked = history.values[starts[:active] + place]
            new, spare = cosines[:active], smaller[:active]
            np.matmul(self._unit[clicked], self._columns, out=new)  # [active, items]
            for nearest in best[:2, :active]:
                np.minimum(nearest, new, out=spare)
                np.maximum(nearest, new, out=nearest)
                new, spare = spare, new  # what is left goes on to the next place
            np.maximum(best[2, :active], new, out=best[2, :active])
        total = np.where(np.isneginf(best), np.float32(0), best).sum(axis=0)  # [examples, items]
        scores = np.empty_like(total)
        scores[order] = total
        return scores
