"""Shares candidates: each worker encodes its own, and ranks its clicks against the candidates of all workers."""

from __future__ import annotations

import tensorflow as tf

from recall.config.objectives import LossConfig
from recall.model.batches.negatives import ABSENT, NegativeSampler
from recall.model.batches.seen import Seen
from recall.model.batches.targets import Targets
from recall.model.distributed.workers import Workers
from recall.model.objectives.objective import Ranking
from recall.model.towers.item import ItemVectors


def of_one_worker(loss: LossConfig, workers: Workers) -> LossConfig:
    """Return the settings of one worker: it draws its part of the uniform negatives, and logQ waits for all draws."""
    draws = len(workers.cluster.part_of(loss.uniform_negatives))
    return loss.model_copy(update={"uniform_negatives": draws, "logq": False})


def of_all_workers(
    ranking: Ranking, vectors: ItemVectors, targets: Targets, *, past: tf.Tensor, sampler: NegativeSampler,
    workers: Workers,
) -> tuple[Ranking, ItemVectors]:  # fmt: skip
    """Return the ranking against the candidates of all workers, and their vectors, this worker's own first.

    Gradients of the vectors go back to the worker that made them.

    Args:
      ranking: of this worker's clicks against its own candidates.
      vectors: of these.
      targets: this worker's clicks.
      past: int32 [batch, time], what the users had clicked, where the loss masks it.
      sampler: knows the logQ of the candidates.
      workers: that train together.
    """
    candidates, loss = ranking.candidates, ranking.config.loss
    rows, frequency, is_there = workers.own_first(  # [candidates of all]
        candidates.rows, candidates.frequency, tf.cast(candidates.is_there, tf.int32)
    )
    pool_sizes = candidates.pool_sizes
    if loss.negatives != "none" and loss.uniform_negatives:  # TensorFlow crashes where nobody has anything to send
        (pool_sizes,) = workers.gathered(pool_sizes)
    is_there = is_there > 0
    log_q = tf.where(is_there, 0.0, ABSENT)
    if loss.logq:
        clicks = workers.total(tf.size(targets.items))
        log_q = sampler.log_q(rows, frequency, is_there=is_there, batch_size=clicks, pool_sizes=pool_sizes)
    there = {name: part for name, part in vectors._asdict().items() if part is not None and name != "shares"}
    vectors = vectors._replace(**dict(zip(there, workers.own_first(*there.values()), strict=True)))
    seen = None
    if ranking.seen is not None:
        distinct, places = tf.unique(tf.concat([rows, tf.reshape(tf.maximum(past, 0), [-1])], axis=0))
        place, of_past = places[: tf.size(rows)], tf.reshape(places[tf.size(rows) :], tf.shape(past))
        seen = Seen(targets.past(tf.where(past >= 0, of_past, -1)), tf.size(distinct), place)
    candidates = candidates._replace(rows=rows, pool_sizes=pool_sizes, is_there=is_there, log_q=log_q)
    return ranking._replace(candidates=candidates, seen=seen, share=workers.share), vectors
