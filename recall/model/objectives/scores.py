"""Scores candidates for queries where one side has several vectors: several interests, or several codes.

A `Score` brings its own gradient, so that `softmax.py` can reduce chunks of scores at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import tensorflow as tf

_Pulled = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
Score = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, _Pulled]]
"""From the vectors of a chunk of queries and of all candidates to scores [chunk, candidates], and the way back: from
the gradient of the scores to the gradients of both."""


def score_of(queries: tf.Tensor, candidates: tf.Tensor, *, pick: str) -> Score | None:
    """Choose the score that fits the vectors; None where one inner product is the score.

    Several interests of a query, s_i = q_i . v: max_i s_i, the score that is served. A positive has to beat every
    candidate under every interest, and may move another interest than a negative. (With `best_interest` a negative
    meets only the interest that won the positive: nothing keeps the other interests from scoring it higher, which the
    search then finds.)

    Several codes of a candidate, s_j = q . v_j, of which a query takes its pick:
      highest: max_j s_j, the score that search gives an item with several entries in an index. It is the limit of
        attention for sharp weights. Only the vector that wins gets a gradient.
      attention: sum_j a_j s_j with a = softmax(s), which is q . sum_j a_j v_j: the attention of Poly-encoders (Humeau
        et al., ICLR 2020, section 4.4) with the sides swapped. Departure: the weights have the temperature of the
        loss. No inner product gives this score, so that search, which takes the highest, only comes near it.

    Args:
      queries: float32 [queries, dim], or [queries, interests, dim].
      candidates: float32 [candidates, dim], or [candidates, codes, dim].
      pick: `highest` or `attention`.
    """
    if queries.shape.rank == 3:
        return _score_of_best_interest
    if candidates.shape.rank == 3:
        return partial(_score_of_codes, pool={"highest": _highest, "attention": _attended}[pick])
    return None


def best_interest(queries: tf.Tensor, positives: tf.Tensor) -> tf.Tensor:
    """Select the interest of each example that scores its positive highest; the others get no gradient.

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


def _score_of_best_interest(query: tf.Tensor, candidates: tf.Tensor) -> tuple[tf.Tensor, _Pulled]:
    """Score candidates [candidates, dim] by the best of interests [chunk, interests, dim]."""
    scores = tf.einsum("qid,cd->qic", query, candidates)  # [chunk, interests, candidates]

    def pulled(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # The gradient of a score goes to the interest that made it; of equal ones to the first.
        winner = tf.one_hot(tf.argmax(scores, axis=1), query.shape[1], axis=1)  # [chunk, interests, candidates]
        routed = winner * gradient[:, tf.newaxis]
        return tf.einsum("qic,cd->qid", routed, candidates), tf.einsum("qic,qid->cd", routed, query)

    return tf.reduce_max(scores, axis=1), pulled


def _score_of_codes(
    query: tf.Tensor, candidates: tf.Tensor, *, pool: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
) -> tuple[tf.Tensor, _Pulled]:
    """Score candidates [candidates, codes, dim] by a pool of the scores of their codes."""
    _, codes, dim = candidates.shape
    flat = tf.reshape(candidates, [-1, dim])  # [candidates * codes, dim]
    scores = tf.matmul(query, flat, transpose_b=True)  # [chunk, candidates * codes]
    shape = tf.shape(scores)
    pooled, slopes = pool(tf.reshape(scores, [shape[0], -1, codes]))  # [chunk, candidates], [.., .., codes]

    def pulled(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        routed = tf.reshape(slopes * gradient[..., tf.newaxis], shape)  # [chunk, candidates * codes]
        to_candidates = tf.matmul(routed, query, transpose_a=True)
        return tf.matmul(routed, flat), tf.reshape(to_candidates, tf.shape(candidates))

    return pooled, pulled


def _highest(scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the largest of [chunk, candidates, codes], and its slopes; of equal ones the first gets all."""
    return tf.reduce_max(scores, axis=2), tf.one_hot(tf.argmax(scores, axis=2), scores.shape[2])


def _attended(scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return sum_j a_j s_j with a = softmax(s), and its slopes a_j (1 + s_j - sum_i a_i s_i)."""
    weights = tf.nn.softmax(scores, axis=2)
    pooled = tf.reduce_sum(weights * scores, axis=2)  # [chunk, candidates]
    return pooled, weights * (1 + scores - pooled[..., tf.newaxis])
