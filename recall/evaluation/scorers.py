"""Scores items for examples by inner products of their vectors; `ranking.py` reads any `Scorer`."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from recall.core.arrays import Float32s, Intps
from recall.core.errors import RecallError


class EvaluationError(RecallError):
    """Report that a model's scores or vectors cannot be ranked, or do not belong to the examples."""


class Scorer(Protocol):
    """Give every item of the catalogue a score for an example."""

    @property
    def item_count(self) -> int:
        """Return the size of the catalogue."""

    @property
    def is_finite(self) -> bool:
        """Tell whether all scores are known to be finite; else every score is checked."""

    def scores(self, start: int, stop: int) -> Float32s:
        """Score all items for some examples.

        Returns:
          Finite float32 [stop - start, items], higher is better; a new array that the caller may overwrite.
        """


class VectorScorer:
    """Score by inner product of query and item vectors.

    Items with equal vectors always get equal scores. A matmul may round the same inner product differently in different
    columns (OpenBLAS does in blocks of one or two queries), and a tie that is broken by rounding would not count
    against the model. The score of the first is therefore given to the others. This matters for new items without
    content.

    Args:
      queries: float32 [examples, dim].
      items: float32 [items, dim].

    Raises:
      EvaluationError: the widths differ, or a vector holds NaN or infinity; the message names the side.
    """

    def __init__(self, queries: Float32s, items: Float32s) -> None:
        if queries.ndim != 2 or items.ndim != 2 or queries.shape[1] != items.shape[1]:
            raise EvaluationError(
                f"query vectors have shape {queries.shape}, item vectors {items.shape}; "
                "expected two matrices of the same width. Export both from the same model"
            )
        _require_finite(queries, "query vectors")
        _require_finite(items, "item vectors")
        self._queries = np.asarray(queries, np.float32)
        items = np.asarray(items, np.float32)
        # Turned around once; or every block has the matmul do it.
        self._columns = np.ascontiguousarray(items.T)  # [dim, items]
        self._repeats, self._originals = repeated_rows(items)
        longest = [float(np.linalg.norm(vectors, axis=1).max(initial=0)) for vectors in (self._queries, items)]
        self._largest = longest[0] * longest[1]  # bounds all inner products (Cauchy and Schwarz)

    @property
    def item_count(self) -> int:
        """Return the size of the catalogue."""
        return self._columns.shape[1]

    @property
    def is_finite(self) -> bool:
        """Tell whether the vectors are short enough that every inner product fits into float32."""
        return self._largest < 1e38

    def scores(self, start: int, stop: int) -> Float32s:
        """Compute inner products, float32 [stop - start, items]."""
        scores = self._queries[start:stop] @ self._columns  # [examples, items]
        scores[:, self._repeats] = scores[:, self._originals]
        return scores


class MultiVectorScorer:
    """Score by the best of several query or item vectors: the largest of their inner products.

    Scores are exact, and equal item vectors get equal scores, as in `VectorScorer`.

    Args:
      queries: float32 [examples, interests, dim]; [examples, dim] if items have several vectors.
      items: float32 [items, dim], or [items, codes, dim].

    Raises:
      EvaluationError: as `VectorScorer`.
    """

    def __init__(self, queries: Float32s, items: Float32s) -> None:
        if queries.ndim != 3 and items.ndim != 3:
            raise EvaluationError(
                f"query vectors have shape {queries.shape}; expected [examples, interests, dim]. "
                "Use VectorScorer for one vector per example"
            )
        queries = queries if queries.ndim == 3 else queries[:, np.newaxis]
        self._examples, self._interests, width = queries.shape
        # One interest of all examples after the other: each block is then a product with a stretch of rows.
        rows = queries.transpose(1, 0, 2).reshape(-1, width)
        self._scorers = [VectorScorer(rows, own) for own in (np.moveaxis(items, 1, 0) if items.ndim == 3 else [items])]

    @property
    def item_count(self) -> int:
        """Return the size of the catalogue."""
        return self._scorers[0].item_count

    @property
    def is_finite(self) -> bool:
        """Tell whether the vectors are short enough that every inner product fits into float32."""
        return all(scorer.is_finite for scorer in self._scorers)

    def scores(self, start: int, stop: int) -> Float32s:
        """Compute the largest inner products, float32 [stop - start, items]."""
        firsts = [interest * self._examples for interest in range(self._interests)]
        parts = (scorer.scores(first + start, first + stop) for scorer in self._scorers for first in firsts)
        best = next(parts)  # [examples, items]
        for scores in parts:
            np.maximum(best, scores, out=best)
        return best


class ScorerOfSome:
    """Score the examples of another scorer from one of them on, counted from 0.

    Args:
      scorer: the other one.
      first: position of the first example.
    """

    def __init__(self, scorer: Scorer, *, first: int) -> None:
        self._scorer, self._first = scorer, first

    @property
    def item_count(self) -> int:
        """Return the size of the catalogue."""
        return self._scorer.item_count

    @property
    def is_finite(self) -> bool:
        """Tell whether all scores are known to be finite."""
        return self._scorer.is_finite

    def scores(self, start: int, stop: int) -> Float32s:
        """Score all items, float32 [stop - start, items]."""
        return self._scorer.scores(self._first + start, self._first + stop)


def vector_scorer(queries: Float32s, items: Float32s) -> Scorer:
    """Choose the scorer of the vectors of `encode_queries` and `encode_items`; either may have several per row."""
    return (MultiVectorScorer if 3 in (queries.ndim, items.ndim) else VectorScorer)(queries, items)


def repeated_rows(
    vectors: Float32s,
) -> tuple[Intps, Intps]:
    """Find the rows that equal an earlier row, and for each the first row that it equals; both [repeats]."""
    if not vectors.size:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    # Compared as bytes, which is quick; adding zero makes -0.0, equal but of other bytes, a 0.0.
    rows = np.ascontiguousarray(vectors + np.float32(0)).view(np.dtype((np.void, vectors.shape[1] * 4))).ravel()
    _, first, place = np.unique(rows, return_index=True, return_inverse=True)
    originals = first[place]  # [items]
    repeats = np.flatnonzero(originals != np.arange(len(vectors)))
    return repeats, originals[repeats]


def _require_finite(vectors: Float32s, name: str) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise EvaluationError(
            f"{name}: {len(bad):,} of {len(vectors):,} hold NaN or infinity, the first is row {bad[0]}; expected "
            "finite numbers. The model has diverged: lower training.learning_rate, or look for extreme input numbers"
        )
