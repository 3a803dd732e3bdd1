"""The softmax of scores that are a choice among several inner products, in chunks, sampled or full."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from recall.model.objectives.softmax import CHUNK, Mask, Seen, drawn_mask, pool_mask, sum_over_chunks

_Pulled = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
Score = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, _Pulled]]
"""Vectors of a chunk of examples and of all candidates -> scores [chunk, candidates], and the way back: from the
gradient of the scores to those of both."""


def pooled_softmax(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    *,
    score: Score,
    query_items: tf.Tensor,
    candidate_items: tf.Tensor,
    seen: Seen | None = None,
    log_q: tf.Tensor | None = None,
    weights: tf.Tensor | None = None,
    chunk: int = CHUNK,
) -> tf.Tensor:
    """`sampled_softmax` with another score.

    Args:
      queries: float32 [examples, ...], already divided by the temperature.
      candidates: float32 [candidates, ...].
      score: of both.
      query_items: as all that follow, of `sampled_softmax`; int [examples].
      candidate_items: int [candidates].
      seen: candidates that are masked.
      log_q: float32 [candidates].
      weights: float32 [examples].
      chunk: examples that are scored at once.

    Returns:
      float32 scalar.
    """
    count, is_masked = tf.shape(queries)[0], drawn_mask(query_items, candidate_items, seen)
    own, weights = tf.range(count), tf.ones([count]) if weights is None else weights
    log_q = tf.zeros(tf.shape(candidates)[:1]) if log_q is None else log_q
    return _softmax(queries, candidates, own, is_masked, score=score, log_q=log_q, weights=weights, chunk=chunk)


def pooled_full_softmax(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    *,
    score: Score,
    targets: tf.Tensor,
    pool_sizes: tf.Tensor,
    seen: Seen | None = None,
    weights: tf.Tensor | None = None,
    chunk: int = CHUNK,
) -> tf.Tensor:
    """`full_softmax` with another score.

    Args:
      queries: float32 [examples, ...], already divided by the temperature.
      candidates: float32 [candidates, ...].
      score: of both.
      targets: as all that follow, of `full_softmax`; int32 [examples].
      pool_sizes: int32 [examples].
      seen: candidates that take no part.
      weights: float32 [examples].
      chunk: examples that are scored at once.

    Returns:
      float32 scalar.
    """
    # What no query of the batch could have been shown takes no time.
    used = tf.maximum(tf.reduce_max(pool_sizes), tf.reduce_max(targets) + 1)
    is_masked = pool_mask(pool_sizes, used, seen)
    weights, log_q = tf.ones(tf.shape(targets)) if weights is None else weights, tf.zeros([used])
    return _softmax(
        queries, candidates[:used], targets, is_masked, score=score, log_q=log_q, weights=weights, chunk=chunk
    )


def _softmax(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    places: tf.Tensor,
    is_masked: Mask,
    *,
    score: Score,
    log_q: tf.Tensor,
    weights: tf.Tensor,
    chunk: int,
) -> tf.Tensor:
    """Both of the above: int [examples] places of the positives, which take part also where they are masked."""
    weights = weights / tf.maximum(tf.reduce_sum(weights), 1e-12)  # [examples]
    columns = tf.range(tf.shape(candidates)[0])[tf.newaxis, :]  # [1, candidates]

    def reduce_chunk(start, queries, candidates):  # type: ignore[no-untyped-def]
        stop = tf.minimum(start + chunk, tf.shape(queries)[0])
        weight = weights[start:stop]  # [chunk]
        own = columns == places[start:stop, tf.newaxis]  # [chunk, candidates]
        scores, pulled = score(queries[start:stop], candidates)  # [chunk, candidates]
        logits = scores - log_q
        logits = tf.where(is_masked(start, stop) & ~own, logits.dtype.min, logits)
        positive = tf.boolean_mask(logits, own)  # [chunk]
        loss = tf.reduce_sum(weight * (tf.reduce_logsumexp(logits, axis=1) - positive))
        slope = tf.nn.softmax(logits, axis=1) - tf.cast(own, tf.float32)  # [chunk, candidates]
        return stop, loss, *pulled(slope * weight[:, tf.newaxis])

    @tf.custom_gradient
    def fused(queries, candidates):  # type: ignore[no-untyped-def]
        loss, query_gradient, candidate_gradient = sum_over_chunks(reduce_chunk, queries, candidates, chunk=chunk)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return upstream * query_gradient, upstream * candidate_gradient

        return loss, gradient

    return fused(queries, candidates)
