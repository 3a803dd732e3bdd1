"""Training objectives of several query vectors per example: which of them is asked."""

from __future__ import annotations

import tensorflow as tf

from recall.model.objectives.pooled_softmax import pooled_full_softmax, pooled_softmax
from recall.model.objectives.softmax import CHUNK, Seen


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
    return pooled_softmax(
        queries,
        candidates,
        score=_best_score,
        query_items=query_items,
        candidate_items=candidate_items,
        seen=seen,
        log_q=log_q,
        weights=weights,
        chunk=_examples(queries, chunk),
    )


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
    return pooled_full_softmax(
        queries,
        candidates,
        score=_best_score,
        targets=targets,
        pool_sizes=pool_sizes,
        seen=seen,
        weights=weights,
        chunk=_examples(queries, chunk),
    )


def _examples(queries: tf.Tensor, rows: int) -> int:
    return max(1, rows // queries.shape[1])


def _best_score(query, candidates):  # type: ignore[no-untyped-def]
    """Scores of interests [chunk, interests, dim] and candidates [candidates, dim], as `pooled_softmax` takes them."""
    scores = tf.einsum("qid,cd->qic", query, candidates)  # [chunk, interests, candidates]

    def pulled(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # The gradient of a score goes to the interest that made it; of equal ones to the first.
        winner = tf.one_hot(tf.argmax(scores, axis=1), query.shape[1], axis=1)  # [chunk, interests, candidates]
        routed = winner * gradient[:, tf.newaxis]
        return tf.einsum("qic,cd->qid", routed, candidates), tf.einsum("qic,qid->cd", routed, query)

    return tf.reduce_max(scores, axis=1), pulled
