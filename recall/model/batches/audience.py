"""Looks up audiences inside the graph, as of the moment of each candidate."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from recall.data.audience import NOBODY, AudienceHistory


class AsOfAudience:
    """Look up the last sources of any item at any moment, as `AudienceHistory.as_of` does.

    Args:
      history: the clicks.
      last: sources of an item at most.
    """

    def __init__(self, history: AudienceHistory, *, last: int) -> None:
        self._history, self._last = history, last
        buckets, keys = history.lookup
        self._stride = len(buckets) + 1
        self._buckets, self._keys = tf.constant(buckets, tf.int64), tf.constant(keys, tf.int64)
        self._sources = tf.constant(np.r_[NOBODY, history.source], tf.int32)

    def __call__(self, rows: tf.Tensor, times_ms: tf.Tensor) -> tf.Tensor:
        """Look up int32 [n] items at int64 [n] moments: int32 [n, last], -1 after the end."""
        until = (times_ms - self._history.delay_ms) // self._history.bucket_ms
        visible = tf.searchsorted(self._buckets, until, side="left", out_type=tf.int64)
        sought = tf.cast(rows, tf.int64) * self._stride
        first, end = (tf.searchsorted(self._keys, key, side="left") for key in (sought, sought + visible))
        places = end[:, tf.newaxis] - 1 - tf.range(self._last)
        is_there = places >= first[:, tf.newaxis]
        return tf.gather(self._sources, tf.where(is_there, places + 1, 0))
