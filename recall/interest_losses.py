"""Training objectives of several query vectors per example: which of them is asked."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from recall.losses import CHUNK, Seen, sum_over_chunks


def best_interest(queries: tf.Tensor, positives: tf.Tensor) -> tf.Tensor:
    """The interest of each example that scores its positive highest; the others get no gradient.

    Hard attention as in ComiRec (Cen et al., KDD 2020, eq. 10), the limit of MIND's label-aware attention for a large
    power (Li et al., CIKM 2019, section 4.3).

    Args:
      queries: float32 [examples, interests, width].
      positives: float32 [examples, width], vectors of the items that were clicked.

    Returns:
      float32 [examples, width].
    """
    scores = tf.einsum("eiw,ew->ei", queries, positives)
    return tf.gather(queries, tf.argmax(scores, axis=1), batch_dims=1)


def best_interest_softmax(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    *,
    query_items: tf.Tensor,
    candidate_items: tf.Tensor,
    seen: Seen | None = None,
    log_q: tf.Tensor | None = None,
    weights: tf.Tensor | None = None,
    chunk: int = CHUNK,
) -> tf.Tensor:
    """`sampled_softmax` of the scores that are served: each candidate's by the interest that scores it highest.

    With `best_interest` a negative meets only the interest that won the positive, so that nothing keeps the other
    interests from scoring it higher, which the search then finds. Here the positive has to beat every candidate under
    every interest. A positive and a negative may move different interests.

    Args:
      queries: float32 [examples, interests, dim], already divided by the temperature.
      candidates: as all that follow, of `sampled_softmax`.
      query_items: int [examples].
      candidate_items: int [candidates].
      seen: candidates that are masked.
      log_q: float32 [candidates].
      weights: float32 [examples].
      chunk: rows of scores, one per example and interest, that are held at once.

    Returns:
      float32 scalar.
    """
    count = tf.shape(queries)[0]

    def is_masked(start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        masked = candidate_items[tf.newaxis, :] == query_items[start:stop, tf.newaxis]  # [chunk, candidates]
        return masked if seen is None else masked | seen.columns(start, stop)

    own, weights = tf.range(count), tf.ones([count]) if weights is None else weights
    return _best_interest_softmax(queries, candidates, own, is_masked, log_q=log_q, weights=weights, chunk=chunk)


def best_interest_full_softmax(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    *,
    targets: tf.Tensor,
    pool_sizes: tf.Tensor,
    seen: Seen | None = None,
    weights: tf.Tensor | None = None,
    chunk: int = CHUNK,
) -> tf.Tensor:
    """`full_softmax` of the scores that are served, as `best_interest_softmax` is `sampled_softmax` of them.

    Args:
      queries: float32 [examples, interests, dim], already divided by the temperature.
      candidates: as all that follow, of `full_softmax`.
      targets: int32 [examples].
      pool_sizes: int32 [examples].
      seen: candidates that take no part.
      weights: float32 [examples].
      chunk: rows of scores, one per example and interest, that are held at once.

    Returns:
      float32 scalar.
    """
    # What no query of the batch could have been shown takes no time.
    used = tf.maximum(tf.reduce_max(pool_sizes), tf.reduce_max(targets) + 1)

    def is_masked(start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        masked = tf.range(used)[tf.newaxis, :] >= pool_sizes[start:stop, tf.newaxis]  # [chunk, candidates]
        return masked if seen is None else masked | seen.columns(start, stop)[:, :used]

    weights = tf.ones(tf.shape(targets)) if weights is None else weights
    return _best_interest_softmax(
        queries, candidates[:used], targets, is_masked, log_q=None, weights=weights, chunk=chunk
    )


def _best_interest_softmax(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    places: tf.Tensor,
    is_masked: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    *,
    log_q: tf.Tensor | None,
    weights: tf.Tensor,
    chunk: int,
) -> tf.Tensor:
    """Both of the above: int [examples] places of the positives, which take part also where they are masked."""
    interests = queries.shape[1]
    log_q = tf.zeros(tf.shape(candidates)[:1]) if log_q is None else log_q
    weights = weights / tf.maximum(tf.reduce_sum(weights), 1e-12)  # [examples]
    columns = tf.range(tf.shape(candidates)[0])[tf.newaxis, :]  # [1, candidates]
    size = max(1, chunk // interests)

    def reduce_chunk(start, queries, candidates):  # type: ignore[no-untyped-def]
        stop = tf.minimum(start + size, tf.shape(queries)[0])
        query, weight = queries[start:stop], weights[start:stop]  # [chunk, interests, dim], [chunk]
        own = columns == places[start:stop, tf.newaxis]  # [chunk, candidates]
        scores = tf.einsum("qid,cd->qic", query, candidates)  # [chunk, interests, candidates]
        logits = tf.reduce_max(scores, axis=1) - log_q  # [chunk, candidates]
        logits = tf.where(is_masked(start, stop) & ~own, logits.dtype.min, logits)
        positive = tf.boolean_mask(logits, own)  # [chunk]
        loss = tf.reduce_sum(weight * (tf.reduce_logsumexp(logits, axis=1) - positive))
        slope = tf.nn.softmax(logits, axis=1) - tf.cast(own, tf.float32)  # [chunk, candidates]
        # The gradient of a score goes to the interest that made it; of equal ones to the first.
        winner = tf.one_hot(tf.argmax(scores, axis=1), interests, axis=1)  # [chunk, interests, candidates]
        routed = winner * (slope * weight[:, tf.newaxis])[:, tf.newaxis]
        return stop, loss, tf.einsum("qic,cd->qid", routed, candidates), tf.einsum("qic,qid->cd", routed, query)

    @tf.custom_gradient
    def fused(queries, candidates):  # type: ignore[no-untyped-def]
        loss, query_gradient, candidate_gradient = sum_over_chunks(reduce_chunk, queries, candidates, chunk=size)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return upstream * query_gradient, upstream * candidate_gradient

        return loss, gradient

    return fused(queries, candidates)
