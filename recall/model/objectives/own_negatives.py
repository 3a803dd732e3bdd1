"""Ranks each click above negatives that are its own: what was refused beside it, or what the model ranks high."""

from __future__ import annotations

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.objectives.objective import Asking, EncodedBatch, Terms


class RefusedItems:
    """Train the queries of one tower to rank a click above what was shown beside it and not clicked.

    Args:
      config: of the model; `loss.refused` has the weight.
      asking: the tower.
    """

    def __init__(self, config: ModelConfig, *, asking: Asking) -> None:
        self._asking, self._settings, self._has_appeal = asking, config.loss.refused, config.has_appeal
        self.needs: frozenset[Asking] = frozenset({asking})

    def terms(self, encoded: EncodedBatch) -> Terms:
        """Return the weighted loss as `refused`."""
        negatives = encoded.refused
        assert negatives is not None
        queries, weights = encoded.asked(self._asking)
        targets = tf.gather(encoded.vectors.vector, encoded.own)
        positives = tf.reduce_sum(queries * targets, axis=1) / encoded.ranking.temperature  # [targets]
        scores = tf.einsum("td,tnd->tn", queries, negatives.vectors) / encoded.ranking.temperature  # [targets, most]
        if self._settings.logq:
            positives, scores = positives - negatives.target_log_q, scores - negatives.log_q
        loss = own_softmax(positives, scores, is_there=negatives.is_there, weights=weights)
        share = encoded.ranking.share
        return {"refused": self._settings.weight * (loss if share is None else share(weights) * loss)}


class HardNegatives:
    """Train the queries of one tower once more against the uniform negatives that they score highest.

    With the logQ of the whole softmax: without it a query is taught to score popular items lower than it should.

    Args:
      config: of the model; `loss.hard_negatives` has their number and the weight.
      asking: the tower.
    """

    def __init__(self, config: ModelConfig, *, asking: Asking) -> None:
        self._asking, self._settings = asking, config.loss.hard_negatives
        self.needs: frozenset[Asking] = frozenset({asking})

    def terms(self, encoded: EncodedBatch) -> Terms:
        """Return the weighted loss as `hard`."""
        settings, candidates, temperature = self._settings, encoded.candidates, encoded.ranking.temperature
        queries, weights = encoded.asked(self._asking)
        vectors = encoded.vectors.vector
        pool = tf.shape(vectors)[0] - tf.size(candidates.pool_sizes)
        rows, drawn = candidates.rows[pool:], vectors[pool:]
        scores = tf.stop_gradient(tf.matmul(queries, drawn, transpose_b=True))  # [targets, draws]
        count = tf.minimum(settings.count + settings.skip, tf.shape(scores)[1])
        places = tf.math.top_k(scores, count, sorted=settings.skip > 0).indices[:, settings.skip :]
        found = tf.gather(rows, places)  # [targets, n]
        past = encoded.batch["history"] if "history" in encoded.batch else encoded.batch["items"]
        past = encoded.targets.past(past)  # [targets, time]
        is_there = found != encoded.targets.items[:, tf.newaxis]
        is_there &= ~tf.reduce_any(found[:, :, tf.newaxis] == past[:, tf.newaxis, :], axis=2)
        positives = tf.reduce_sum(queries * tf.gather(vectors, encoded.own), axis=1) / temperature
        hard = tf.einsum("td,tnd->tn", queries, tf.gather(drawn, places)) / temperature
        log_q = encoded.ranking.candidates.log_q  # of all workers, this one's first
        assert log_q is not None, "candidates are drawn, which the config checks"
        log_q = log_q[: tf.size(candidates.rows)]
        positives, hard = positives - tf.gather(log_q, encoded.own), hard - tf.gather(log_q[pool:], places)
        loss = own_softmax(positives, hard, is_there=is_there, weights=weights)
        share = encoded.ranking.share
        return {"hard": settings.weight * (loss if share is None else share(weights) * loss)}


def own_softmax(positives: tf.Tensor, negatives: tf.Tensor, *, is_there: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return the softmax cross-entropy of each positive among its own negatives.

    sum_i w_i log(1 + sum_n exp(s_in - s_i)) / sum_i w_i. With one negative it is BPR (Rendle et al., UAI 2009, section
    4.1, without regularisation).

    Args:
      positives: float32 [targets], scores.
      negatives: float32 [targets, most], scores.
      is_there: bool [targets, most]; a target without negatives has no loss.
      weights: float32 [targets], >= 0.

    Returns:
      float32 scalar.
    """
    leads = tf.where(is_there, negatives - positives[:, tf.newaxis], tf.float32.min)
    losses = tf.math.softplus(tf.reduce_logsumexp(leads, axis=1))  # [targets]
    return tf.reduce_sum(weights * losses) / tf.maximum(tf.reduce_sum(weights), 1e-12)
