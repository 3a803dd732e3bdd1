"""Computes logQ, the correction of a sampled softmax for how often its candidates are drawn."""

from __future__ import annotations

import tensorflow as tf


def log_expected_draws(
    frequency: tf.Tensor, *, batch_size: tf.Tensor, ranks: tf.Tensor, pool_sizes: tf.Tensor
) -> tf.Tensor:
    """Return logQ of candidates from both sources: in-batch positives and uniform negatives.

    An item is expected batch_size * count / total times among the positives of a batch, and 1 / n times in each uniform
    draw from a pool of n items that holds it (mixed negative sampling, Yang et al., WWW 2020 companion). One
    correction for both sources keeps a popular and a never-clicked item on one scale. Counts are exact;
    Yi et al. (RecSys 2019) estimate them from the stream.

    Args:
      frequency: float32 [candidates], training examples that have the candidate as target, divided by all
        training examples.
      batch_size: int scalar, in-batch positives.
      ranks: int [candidates], place of the candidate in the order in which items enter the pool.
      pool_sizes: int [draws], size of the pool of each uniform draw; an empty pool counts as its first item alone.

    Returns:
      float32 [candidates]. A candidate that no source can draw gets the smallest positive float's log.
    """
    in_batch = frequency * tf.cast(batch_size, tf.float32)  # [candidates]
    # The first item serves an empty pool. Not counted, its logQ could be that of an impossible candidate: a bonus
    # of 85 on its logits, which would drown every other candidate of the batch.
    sizes = tf.sort(tf.maximum(pool_sizes, 1))  # [draws]
    inverse = 1.0 / tf.cast(sizes, tf.float32)  # [draws]
    suffix = tf.concat([tf.cumsum(inverse, reverse=True), [0.0]], axis=0)  # [draws + 1]
    uniform = tf.gather(suffix, tf.searchsorted(sizes, ranks, side="right"))  # [candidates]: sum of 1/n over n > rank
    return tf.math.log(tf.maximum(in_batch + uniform, 1e-37))
