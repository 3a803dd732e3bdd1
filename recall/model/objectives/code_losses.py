"""Training objectives of several vectors per candidate (`model.item_codes`): which of them a query meets."""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow as tf

from recall.model.objectives.pooled_softmax import Score, pooled_full_softmax, pooled_softmax
from recall.model.objectives.softmax import CHUNK


def code_softmax(
    queries: tf.Tensor, candidates: tf.Tensor, *, pick: str, chunk: int = CHUNK, **settings: Any
) -> tf.Tensor:
    """`sampled_softmax` where each query takes its pick of a candidate's vectors s_j = q . v_j.

    highest: max_j s_j, the score that search gives an item with several entries in an index. It is the limit of
      attention for sharp weights. Only the vector that wins gets a gradient.
    attention: sum_j a_j s_j with a = softmax(s), which is q . sum_j a_j v_j: the attention of Poly-encoders (Humeau et
      al., ICLR 2020, section 4.4) with the sides swapped. Departure: the weights have the temperature of the loss.
      No inner product gives this score, so that search, which takes the highest, only comes near it.

    Args:
      queries: float32 [examples, dim], already divided by the temperature.
      candidates: float32 [candidates, codes, dim].
      pick: `highest` or `attention`.
      chunk: rows of scores, one per example and code, that are held at once: several vectors take no more memory.
      **settings: the other arguments of `sampled_softmax`.

    Returns:
      float32 scalar.
    """
    return pooled_softmax(queries, candidates, score=_score(pick), chunk=_examples(candidates, chunk), **settings)


def code_full_softmax(
    queries: tf.Tensor, candidates: tf.Tensor, *, pick: str, chunk: int = CHUNK, **settings: Any
) -> tf.Tensor:
    """`full_softmax` with the scores of `code_softmax`.

    Args:
      queries: float32 [examples, dim], already divided by the temperature.
      candidates: float32 [candidates, codes, dim].
      pick: as in `code_softmax`.
      chunk: as in `code_softmax`.
      **settings: the other arguments of `full_softmax`.

    Returns:
      float32 scalar.
    """
    return pooled_full_softmax(queries, candidates, score=_score(pick), chunk=_examples(candidates, chunk), **settings)


def _examples(candidates: tf.Tensor, rows: int) -> int:
    return max(1, rows // candidates.shape[1])


def _score(pick: str) -> Score:
    return partial(_pooled, pool={"highest": _highest, "attention": _attended}[pick])


def _pooled(query, candidates, *, pool):  # type: ignore[no-untyped-def]
    """Scores [chunk, candidates] by a pool of the scores of codes, as `pooled_softmax` takes them."""
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
    """The largest of [chunk, candidates, codes], and its slopes; of equal ones the first gets all."""
    return tf.reduce_max(scores, axis=2), tf.one_hot(tf.argmax(scores, axis=2), scores.shape[2])


def _attended(scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """sum_j a_j s_j with a = softmax(s), and its slopes a_j (1 + s_j - sum_i a_i s_i)."""
    weights = tf.nn.softmax(scores, axis=2)
    pooled = tf.reduce_sum(weights * scores, axis=2)  # [chunk, candidates]
    return pooled, weights * (1 + scores - pooled[..., tf.newaxis])
