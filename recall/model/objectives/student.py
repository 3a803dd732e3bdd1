"""Distils the user tower: trains a student by the clicks and by the large tower.

Only the student learns from these terms: the large tower's queries, the item vectors and the temperature enter
with their gradients stopped, so that a model with a student is, but for it, the model without.
"""

from __future__ import annotations

import tensorflow as tf

from recall.config.objectives import StudentConfig
from recall.model.objectives.objective import Asking, EncodedBatch, Ranking, Terms
from recall.model.objectives.ranked_queries import RankedQueries
from recall.model.objectives.retrieval import ranked_queries, retrieval_loss
from recall.model.objectives.softmax import CHUNK, sum_over_chunks
from recall.model.towers.student import StudentTower
from recall.model.user_side import UserSide


class Distillation:
    """Train the student of a user tower: from the clicks, from the tower's queries, and from its scores.

    Args:
      student: the student tower.
      users: the user side with the large tower.
      config: weights of the terms, temperature of the divergence.
    """

    needs: frozenset[Asking] = frozenset({"user"})

    def __init__(self, student: StudentTower, users: UserSide, config: StudentConfig) -> None:
        self._student, self._users, self._config = student, users, config

    def terms(self, encoded: EncodedBatch) -> Terms:
        """Return the weighted terms of the student's loss; nothing flows back to the other parts of the model."""
        queries = self._users.batch_student_queries(
            self._student, encoded.batch, encoded.targets, encoded.history, training=encoded.training
        )
        teacher, weights = encoded.asked("user")
        return student_terms(
            queries, teacher, encoded.vectors.vector, encoded.ranking, weights=weights, config=self._config
        )


def query_distance(queries: tf.Tensor, teacher: tf.Tensor, *, weights: tf.Tensor) -> tf.Tensor:
    """Return the squared distance to the teacher's queries, in units of their mean squared length.

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


def score_divergence(ranked: RankedQueries, *, teacher: tf.Tensor, temperature: float, chunk: int = CHUNK) -> tf.Tensor:
    """Return the divergence of the student's softmax over the candidates from the teacher's.

    T^2 KL(p || q) with p = softmax(t / T - log Q) and q = softmax(s / T - log Q), logits t = teacher . v and
    s = student . v: the soft targets of Hinton et al. (2015, section 2), over candidates in place of classes as in
    ranking distillation (Tang & Wang, KDD 2018). Departures: the whole softmax instead of the teacher's top items;
    log Q stands outside the temperature, so that both sums over drawn candidates estimate those over all that they
    are drawn from, whatever T. The logits of a chunk of queries are reduced at once to their loss and gradient.

    Args:
      ranked: the student's queries and their candidates, which get no gradient; one vector each.
      teacher: float32 [queries, dim], divided by the model's temperature as the queries are; gets no gradient.
      temperature: T, > 0.
      chunk: queries whose logits are held at once.

    Returns:
      float32 scalar, >= 0, the weighted mean.
    """
    candidates, teacher = tf.stop_gradient(ranked.candidates), tf.stop_gradient(teacher)
    log_q = tf.zeros(tf.shape(candidates)[:1]) if ranked.log_q is None else ranked.log_q

    def reduce_chunk(start, queries, candidates):  # type: ignore[no-untyped-def]
        stop = tf.minimum(start + chunk, tf.shape(queries)[0])
        left_out, weight = ranked.is_left_out(start, stop), ranked.weights[start:stop]  # [chunk, candidates], [chunk]

        def log_shares(query: tf.Tensor) -> tf.Tensor:
            logits = tf.matmul(query, candidates, transpose_b=True) / temperature - log_q
            return tf.nn.log_softmax(tf.where(left_out, logits.dtype.min, logits))  # [chunk, candidates]

        own, wanted = log_shares(queries[start:stop]), log_shares(teacher[start:stop])
        divergence = tf.reduce_sum(tf.where(left_out, 0.0, tf.exp(wanted) * (wanted - own)), axis=1)  # [chunk]
        slope = (tf.exp(own) - tf.exp(wanted)) * weight[:, tf.newaxis]  # [chunk, candidates]
        loss = temperature**2 * tf.reduce_sum(weight * divergence)
        return stop, loss, temperature * tf.matmul(slope, candidates), tf.zeros_like(candidates)

    @tf.custom_gradient
    def fused(queries):  # type: ignore[no-untyped-def]
        loss, gradient, _ = sum_over_chunks(reduce_chunk, queries, candidates, chunk=chunk)
        return loss, lambda upstream: upstream * gradient

    return fused(ranked.queries)


def student_terms(
    queries: tf.Tensor,
    teacher: tf.Tensor,
    items: tf.Tensor,
    ranking: Ranking,
    *,
    weights: tf.Tensor,
    config: StudentConfig,
) -> Terms:
    """Return the weighted terms of the student's loss of a batch, by name.

    Args:
      queries: float32 [targets, width], queries of the student.
      teacher: float32 [targets, width], queries of the large tower.
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
            ranked_queries(queries, items, ranking, weights=weights),
            teacher=teacher / ranking.temperature,
            temperature=config.temperature,
        )
    return terms
