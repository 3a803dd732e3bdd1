"""Finds the candidates that a query's user had clicked before."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Seen(NamedTuple):
    """Hold the earlier clicks of each query's user: candidates that the evaluation would not rank either."""

    places: tf.Tensor  # int32 [queries, most], of items among the distinct ones; -1 is padding
    count: tf.Tensor  # int32 scalar, distinct items
    of_candidates: tf.Tensor | None  # int32 [candidates], places among the distinct items; None: they are the distinct

    def columns(self, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        """Mark the seen candidates of the queries from start to stop: bool [stop - start, candidates]."""
        places = self.places[start:stop]
        pairs = tf.where(places >= 0)  # [pairs, 2]
        pairs = tf.stack([tf.cast(pairs[:, 0], tf.int32), tf.gather_nd(places, pairs)], axis=1)
        shape = tf.stack([tf.shape(places)[0], self.count])
        is_seen = tf.scatter_nd(pairs, tf.ones(tf.shape(pairs)[:1], tf.int32), shape) > 0  # [chunk, distinct]
        return is_seen if self.of_candidates is None else tf.gather(is_seen, self.of_candidates, axis=1)
