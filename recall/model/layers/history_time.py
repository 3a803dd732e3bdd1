"""When the clicks of a history happened: gaps between them and ages at the moment of the query, in log buckets.

A click of a minute ago and one of last month say different things about what a user wants now; their order alone
does not tell. Buckets of durations follow TiSASRec (Li et al., "Time Interval Aware Self-Attention for Sequential
Recommendation", WSDM 2020), which clips intervals at a multiple of the user's shortest; ours double in width, as one
log holds gaps of seconds and of months and a user of two clicks has no scale of his own.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

BUCKETS = 32
"""0 is unknown; k > 0 is a duration of 2^(k-1) - 1 seconds up to 2^k - 1, the last one without end (34 years)."""

_LOWER_BOUNDS_MS = [1000.0 * (2**k - 1) for k in range(BUCKETS - 1)]
_UNKNOWN_MS = -1


def duration_buckets(duration_ms: tf.Tensor) -> tf.Tensor:
    """int64 [...] -> int32 [...] below `BUCKETS`; a negative duration is an unknown one."""
    return tf.raw_ops.Bucketize(input=duration_ms, boundaries=_LOWER_BOUNDS_MS)


class ClickTimes(NamedTuple):
    """Times of the clicks of a batch of histories, on any clock that is one row's own.

    State p of a history is asked at `next_ms[p]`: when the next click happened, or, after the last one, at the query.
    A sequence can therefore teach at every position in one pass and show at each what a query there could know.

    Attributes:
      clicked_ms: int64 [batch, time].
      next_ms: int64 [batch, time], the moment that follows: the next click or, after the last one, the query.
      known: bool [batch, time], whether the time of the click is known; True for padding.
    """

    clicked_ms: tf.Tensor
    next_ms: tf.Tensor
    known: tf.Tensor

    @classmethod
    def before_query(cls, age_ms: tf.Tensor, lengths: tf.Tensor) -> ClickTimes:
        """From int64 [batch, time], milliseconds from click to query (negative: unknown), and int [batch] lengths."""
        place = tf.range(tf.shape(age_ms)[1])[tf.newaxis, :]
        following = tf.pad(age_ms[:, 1:], [[0, 0], [0, 1]])  # [batch, time]
        following = tf.where(place + 1 < lengths[:, tf.newaxis], following, 0)
        return cls(-age_ms, -following, (age_ms >= 0) | (place >= lengths[:, tf.newaxis]))

    @classmethod
    def inside_sequences(cls, time_ms: tf.Tensor) -> ClickTimes:
        """From int64 [batch, time], rising; the state of a last position is asked by nobody."""
        following = tf.concat([time_ms[:, 1:], time_ms[:, -1:]], axis=1)
        return cls(time_ms, following, tf.ones_like(time_ms, tf.bool))

    @classmethod
    def unknown(cls, tokens: tf.Tensor) -> ClickTimes:
        """For histories, [batch, time, dim], of which nobody says when they happened."""
        zeros = tf.zeros(tf.shape(tokens)[:2], tf.int64)
        return cls(zeros, zeros, tf.zeros_like(zeros, tf.bool))

    def of_rows(self, rows: tf.Tensor, *, longest: tf.Tensor) -> ClickTimes:
        """Of int32 [rows] of the batch, cut to the `longest` of their histories."""
        return ClickTimes(*(tf.gather(part, rows)[:, :longest] for part in self))

    def hidden(self, share: float) -> ClickTimes:
        """With the times of a random share of the histories unknown."""
        kept = tf.random.uniform([tf.shape(self.known)[0], 1]) >= share
        return self._replace(known=self.known & kept)

    def gaps(self) -> tf.Tensor:
        """Bucket of the time to what follows each click, int32 [batch, time]."""
        following = tf.concat([self.known[:, 1:], tf.ones_like(self.known[:, :1])], axis=1)
        return duration_buckets(tf.where(self.known & following, self.next_ms - self.clicked_ms, _UNKNOWN_MS))

    def ages(self) -> tf.Tensor:
        """Bucket of the age of click `then` when state `now` is asked, int32 [batch, now, then]."""
        age_ms = self.next_ms[:, :, tf.newaxis] - self.clicked_ms[:, tf.newaxis, :]
        return duration_buckets(tf.where(self.known[:, tf.newaxis, :], age_ms, _UNKNOWN_MS))

    def last_ages(self, lengths: tf.Tensor) -> tf.Tensor:
        """Bucket of the age of each click when the last state is asked, int32 [batch, time]."""
        next_ms = tf.pad(self.next_ms, [[0, 0], [0, 1]])  # histories may all be empty: then there is no place 0
        query_ms = tf.gather(next_ms, tf.maximum(lengths - 1, 0), batch_dims=1)  # [batch]
        age_ms = query_ms[:, tf.newaxis] - self.clicked_ms
        return duration_buckets(tf.where(self.known, age_ms, _UNKNOWN_MS))


class GapEmbedding(tf.keras.layers.Layer):
    """A vector per gap, added to the token of the click before it; starts at zero, so that training decides."""

    def __init__(self, dim: int) -> None:
        super().__init__(name="gap")
        self.rows = self.add_weight(name="rows", shape=(BUCKETS, dim), initializer="zeros")

    def call(self, times: ClickTimes) -> tf.Tensor:
        """float32 [batch, time, dim]."""
        return tf.gather(self.rows, times.gaps())


class AgeBias(tf.keras.layers.Layer):
    """What an age adds to attention scores, per head; starts at zero.

    TiSASRec gives keys and values a vector per interval. A scalar per head is what HSTU keeps of it (Zhai et al.,
    "Actions Speak Louder than Words", ICML 2024); it needs no [batch, now, then, dim].
    """

    def __init__(self, heads: int = 1) -> None:
        super().__init__(name="age")
        self.rows = self.add_weight(name="rows", shape=(BUCKETS, heads), initializer="zeros")

    def call(self, ages: tf.Tensor) -> tf.Tensor:
        """int32 [...] -> float32 [..., heads]."""
        return tf.gather(self.rows, ages)
