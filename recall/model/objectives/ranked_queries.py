"""Holds the one input of every softmax: queries, their candidates, and which candidates take part.

`RankedQueries.sampled` and `RankedQueries.full` build it; `softmax.py` and `student.py` read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from recall.model.batches.seen import Seen

Mask = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""From start and stop of the queries to the candidates that take no part, bool [stop - start, candidates]."""


class RankedQueries(NamedTuple):
    """Hold queries and the candidates that each of them is ranked against.

    Attributes:
      queries: float32 [queries, dim], or [queries, interests, dim], already divided by the temperature.
      candidates: float32 [candidates, dim], or [candidates, codes, dim].
      own: int32 [queries], place of each query's own candidate; None where candidate i belongs to query i.
      is_masked: the candidates that take no part. A query's own candidate takes part all the same.
      weights: float32 [queries], >= 0, of sum 1 (or all 0).
      log_q: float32 [candidates], log of the expected number of times that a candidate is drawn; None without a
        correction.
      is_open: bool scalar, whether every candidate takes part for every query; None where it is not known.
    """

    queries: tf.Tensor
    candidates: tf.Tensor
    own: tf.Tensor | None
    is_masked: Mask
    weights: tf.Tensor
    log_q: tf.Tensor | None = None
    is_open: tf.Tensor | None = None

    @classmethod
    def sampled(
        cls,
        queries: tf.Tensor,
        candidates: tf.Tensor,
        *,
        query_items: tf.Tensor,
        candidate_items: tf.Tensor,
        seen: Seen | None = None,
        log_q: tf.Tensor | None = None,
        weights: tf.Tensor | None = None,
    ) -> RankedQueries:
        """Rank queries against drawn candidates: candidate i belongs to query i, the others are shared negatives.

        Args:
          queries: float32 [queries, dim], or [queries, interests, dim], already divided by the temperature.
          candidates: float32 [candidates, dim], or [candidates, codes, dim]; candidates >= queries.
          query_items: int [queries], the item that each query is to find.
          candidate_items: int [candidates]; other columns with the query's own item are masked (accidental hits).
          seen: candidates that are masked besides, unless they are the query's own.
          log_q: float32 [candidates], log of the expected number of times that the candidate is drawn.
          weights: float32 [queries], >= 0; losses are weighted means. Default: all one.
        """
        is_masked = _drawn_mask(query_items, candidate_items, seen)
        return cls(queries, candidates, None, is_masked, _shares(weights, tf.shape(queries)[:1]), log_q)

    @classmethod
    def full(
        cls,
        queries: tf.Tensor,
        candidates: tf.Tensor,
        *,
        targets: tf.Tensor,
        pool_sizes: tf.Tensor,
        seen: Seen | None = None,
        weights: tf.Tensor | None = None,
    ) -> RankedQueries:
        """Rank queries against all items that they could have been shown; the rest of the candidates is cut off.

        Args:
          queries: float32 [queries, dim], or [queries, interests, dim], already divided by the temperature.
          candidates: float32 [candidates, dim], or [candidates, codes, dim], in the order in which items enter the
            pool.
          targets: int32 [queries], place of the query's own item among the candidates.
          pool_sizes: int32 [queries], leading candidates that take part for the query; its target does in any case.
          seen: candidates that take no part, unless they are the target.
          weights: float32 [queries], >= 0; losses are weighted means. Default: all one.
        """
        # What no query of the batch could have been shown takes no time.
        used = tf.maximum(tf.reduce_max(pool_sizes), tf.reduce_max(targets) + 1)
        return cls(
            queries,
            candidates[:used],
            targets,
            _pool_mask(pool_sizes, used, seen),
            _shares(weights, tf.shape(targets)),
            is_open=None if seen is not None else tf.reduce_min(pool_sizes) >= used,
        )

    @property
    def places(self) -> tf.Tensor:
        """Return the place of each query's own candidate, int32 [queries]."""
        return tf.range(tf.shape(self.queries)[0]) if self.own is None else self.own

    def is_own(self, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        """Mark the own candidates of the queries from start to stop: bool [stop - start, candidates]."""
        columns = tf.range(tf.shape(self.candidates)[0])[tf.newaxis, :]  # [1, candidates]
        return columns == self.places[start:stop, tf.newaxis]

    def is_left_out(self, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        """Mark the masked candidates that are not a query's own: bool [stop - start, candidates]."""
        return self.is_masked(start, stop) & ~self.is_own(start, stop)


def _shares(weights: tf.Tensor | None, shape: tf.Tensor) -> tf.Tensor:
    """Divide weights, or ones of a shape, by their sum."""
    weights = tf.ones(shape) if weights is None else weights
    return weights / tf.maximum(tf.reduce_sum(weights), 1e-12)  # [queries]


def _drawn_mask(query_items: tf.Tensor, candidate_items: tf.Tensor, seen: Seen | None) -> Mask:
    """Mask every occurrence of the query's own item among drawn candidates, and what was seen."""

    def is_masked(start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        masked = candidate_items[tf.newaxis, :] == query_items[start:stop, tf.newaxis]  # [chunk, candidates]
        return masked if seen is None else masked | seen.columns(start, stop)

    return is_masked


def _pool_mask(pool_sizes: tf.Tensor, used: tf.Tensor, seen: Seen | None) -> Mask:
    """Mask what enters the pool after the query, and what was seen, among the leading `used` candidates."""

    def is_masked(start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        masked = tf.range(used)[tf.newaxis, :] >= pool_sizes[start:stop, tf.newaxis]  # [chunk, candidates]
        return masked if seen is None else masked | seen.columns(start, stop)[:, :used]

    return is_masked
