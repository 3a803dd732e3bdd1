"""Distillation of the user tower: what a student is trained for beside the clicks, and all of it that a batch adds.

Only the student learns from these terms: the large tower's queries, the item vectors and the temperature enter as
they are (stop gradient), so that a model with a student is, but for it, the model without.
"""

from __future__ import annotations

import tensorflow as tf

from recall.config.model import StudentConfig
from recall.model.objectives.retrieval import Ranking, retrieval_loss
from recall.model.objectives.softmax import CHUNK, Mask, drawn_mask, pool_mask, sum_over_chunks


def query_distance(queries: tf.Tensor, teacher: tf.Tensor, *, weights: tf.Tensor) -> tf.Tensor:
    """Squared distance to the teacher's queries, in units of their mean squared length.

    sum_i w_i |s_i - t_i|^2 / sum_i w_i |t_i|^2, regression on the teacher's output (FitNets, Romero et al., ICLR 2015,
    eq. 3, without a regressor, as the widths are equal). Departure: the unit, which gives one weight the same meaning
    with `similarity: dot` as with `cosine`, where it is the mean of 2 - 2 cos.

    Args:
      queries: float32 [queries, dim].
      teacher: float32 [queries, dim]; gets no gradient.
      weights: float32 [queries], >= 0.

    Returns:
      float32 scalar.
    """
    teacher = tf.stop_gradient(teacher)
    distance = tf.reduce_sum(tf.math.squared_difference(queries, teacher), axis=1)  # [queries]
    length = tf.reduce_sum(tf.square(teacher), axis=1)  # [queries]
    return tf.reduce_sum(weights * distance) / tf.maximum(tf.reduce_sum(weights * length), 1e-12)


def score_divergence(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    *,
    teacher: tf.Tensor,
    is_masked: Mask,
    temperature: float,
    log_q: tf.Tensor | None = None,
    weights: tf.Tensor | None = None,
    chunk: int = CHUNK,
) -> tf.Tensor:
    """Divergence of the student's softmax over the candidates from the teacher's.

    T^2 KL(p || q) with p = softmax(t / T - log Q) and q = softmax(s / T - log Q), logits t = teacher . v and
    s = student . v: the soft targets of Hinton et al. (2015, section 2), over candidates in place of classes as in
    ranking distillation (Tang & Wang, KDD 2018). Departures: the whole softmax instead of the teacher's top items;
    log Q stands outside the temperature, so that both sums over drawn candidates estimate those over all that they
    are drawn from, whatever T. The logits of a chunk of queries are reduced at once to their loss and gradient.

    Args:
      queries: float32 [queries, dim], already divided by the model's temperature.
      candidates: float32 [candidates, dim]; get no gradient.
      teacher: float32 [queries, dim], likewise divided; gets no gradient.
      is_masked: which candidates take no part: (start, stop) of the queries -> bool [stop - start, candidates]. Each
        query keeps one at least.
      temperature: T, > 0.
      log_q: float32 [candidates], log of the expected number of times that the candidate is drawn.
      weights: float32 [queries], >= 0; the loss is the weighted mean. Default: all one.
      chunk: queries whose logits are held at once.

    Returns:
      float32 scalar, >= 0.
    """
    count = tf.shape(queries)[0]
    log_q = tf.zeros(tf.shape(candidates)[:1]) if log_q is None else log_q
    weights = tf.ones([count]) if weights is None else weights
    weights = weights / tf.maximum(tf.reduce_sum(weights), 1e-12)  # [queries]

    def reduce_chunk(start, queries, candidates):  # type: ignore[no-untyped-def]
        stop = tf.minimum(start + chunk, count)
        masked, weight = is_masked(start, stop), weights[start:stop]  # [chunk, candidates], [chunk]

        def log_shares(query: tf.Tensor) -> tf.Tensor:
            logits = tf.matmul(query, candidates, transpose_b=True) / temperature - log_q
            return tf.nn.log_softmax(tf.where(masked, logits.dtype.min, logits))  # [chunk, candidates]

        own, wanted = log_shares(queries[start:stop]), log_shares(teacher[start:stop])
        divergence = tf.reduce_sum(tf.where(masked, 0.0, tf.exp(wanted) * (wanted - own)), axis=1)  # [chunk]
        slope = (tf.exp(own) - tf.exp(wanted)) * weight[:, tf.newaxis]  # [chunk, candidates]
        loss = temperature**2 * tf.reduce_sum(weight * divergence)
        return stop, loss, temperature * tf.matmul(slope, candidates), tf.zeros_like(candidates)

    @tf.custom_gradient
    def fused(queries):  # type: ignore[no-untyped-def]
        loss, gradient, _ = sum_over_chunks(reduce_chunk, queries, candidates, chunk=chunk)
        return loss, lambda upstream: upstream * gradient

    candidates, teacher = tf.stop_gradient(candidates), tf.stop_gradient(teacher)
    return fused(queries)


def student_terms(
    queries: tf.Tensor,
    teacher: tf.Tensor,
    items: tf.Tensor,
    ranking: Ranking,
    *,
    weights: tf.Tensor,
    config: StudentConfig,
) -> dict[str, tf.Tensor]:
    """Weighted terms of the student's loss of a batch, by name.

    Args:
      queries: float32 [targets, width], the student's.
      teacher: float32 [targets, width], the large tower's.
      items: float32 [candidates, width], vectors as they are served.
      ranking: the candidates.
      weights: float32 [targets], how much each click counts.
      config: weights of the terms, temperature of the divergence.
    """
    teacher, items = tf.stop_gradient(teacher), tf.stop_gradient(items)
    ranking = ranking._replace(temperature=tf.stop_gradient(ranking.temperature))
    loss, terms = config.loss, {}
    if loss.item:
        terms["student_item"] = loss.item * retrieval_loss(queries, items, ranking, weights=weights)
    if loss.query:
        # Both end in the same 1 for appeal.
        terms["student_query"] = loss.query * query_distance(queries[:, :-1], teacher[:, :-1], weights=weights)
    if loss.scores:
        terms["student_scores"] = loss.scores * score_divergence(
            queries / ranking.temperature,
            items,
            teacher=teacher / ranking.temperature,
            is_masked=_masked_as_in_retrieval(ranking),
            temperature=config.temperature,
            log_q=ranking.candidates.log_q,
            weights=weights,
        )
    return terms


def _masked_as_in_retrieval(ranking: Ranking) -> Mask:
    """What takes no part in `retrieval_loss`; the target does in any case."""
    candidates = ranking.candidates
    columns = tf.range(tf.size(candidates.rows))[tf.newaxis, :]  # [1, candidates]
    if ranking.config.loss.softmax == "full":
        is_masked = pool_mask(candidates.pool_sizes, tf.size(candidates.rows), ranking.seen)
    else:
        is_masked = drawn_mask(tf.gather(candidates.rows, candidates.own), candidates.rows, ranking.seen)
    return lambda start, stop: is_masked(start, stop) & (columns != candidates.own[start:stop, tf.newaxis])
