"""Embeds the times of clicks: gaps between clicks and ages at the moment of the query, in logarithmic buckets.

A click of a minute ago tells more about a user's present interest than a click of last month; the order of the clicks
does not show the difference. Buckets of durations follow TiSASRec (Li et al., "Time Interval Aware Self-Attention for
Sequential Recommendation", WSDM 2020). Departure: TiSASRec clips intervals at a multiple of the user's shortest; these
buckets double in width, since one log holds gaps of seconds and of months, and two clicks give a user no scale.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

BUCKETS = 32
"""Number of buckets. 0 is unknown; k > 0 covers 2^(k-1) - 1 up to 2^k - 1 seconds; the last has no end (34 years)."""

_LOWER_BOUNDS_MS = [1000.0 * (2**k - 1) for k in range(BUCKETS - 1)]
_UNKNOWN_MS = -1


def duration_buckets(duration_ms: tf.Tensor) -> tf.Tensor:
    """Sort durations into buckets: int64 [...] milliseconds, negative if unknown -> int32 [...] below `BUCKETS`."""
    return tf.raw_ops.Bucketize(input=duration_ms, boundaries=_LOWER_BOUNDS_MS)


class ClickTimes(NamedTuple):
    """Hold the times of the clicks of a batch of histories. Each row may count from a moment of its own.

    State p of a history answers a query at `next_ms[p]`: the time of the next click or, after the last click, the time
    of the query. A sequence can therefore be trained at every position in one pass, and no position sees a later time.

    Attributes:
      clicked_ms: int64 [batch, time], time of each click.
      next_ms: int64 [batch, time], time of the next click or, after the last click, of the query.
      known: bool [batch, time], whether the time of the click is known; True for padding.
    """

    clicked_ms: tf.Tensor
    next_ms: tf.Tensor
    known: tf.Tensor

    @classmethod
    def before_query(cls, age_ms: tf.Tensor, lengths: tf.Tensor) -> ClickTimes:
        """Build times from the ages of clicks, int64 [batch, time] ms (negative: unknown), and lengths [batch]."""
        place = tf.range(tf.shape(age_ms)[1])[tf.newaxis, :]
        following = tf.pad(age_ms[:, 1:], [[0, 0], [0, 1]])  # [batch, time]
        following = tf.where(place + 1 < lengths[:, tf.newaxis], following, 0)
        return cls(-age_ms, -following, (age_ms >= 0) | (place >= lengths[:, tf.newaxis]))

    @classmethod
    def inside_sequences(cls, time_ms: tf.Tensor) -> ClickTimes:
        """Build times from rising click times, int64 [batch, time]. No query reads the state of a last position."""
        following = tf.concat([time_ms[:, 1:], time_ms[:, -1:]], axis=1)
        return cls(time_ms, following, tf.ones_like(time_ms, tf.bool))

    @classmethod
    def unknown(cls, tokens: tf.Tensor) -> ClickTimes:
        """Build unknown times for the tokens of histories, [batch, time, dim]."""
        zeros = tf.zeros(tf.shape(tokens)[:2], tf.int64)
        return cls(zeros, zeros, tf.zeros_like(zeros, tf.bool))

    def of_rows(self, rows: tf.Tensor, *, longest: tf.Tensor) -> ClickTimes:
        """Select int32 [rows] of the batch, cut to the `longest` of their histories."""
        return ClickTimes(*(tf.gather(part, rows)[:, :longest] for part in self))

    def hidden(self, share: float, *, seed: int | None = None) -> ClickTimes:
        """Return times of which a random share of the histories is unknown."""
        kept = tf.random.uniform([tf.shape(self.known)[0], 1], seed=seed) >= share
        return self._replace(known=self.known & kept)

    def gaps(self) -> tf.Tensor:
        """Return the bucket of the time from each click to `next_ms`, int32 [batch, time]."""
        following = tf.concat([self.known[:, 1:], tf.ones_like(self.known[:, :1])], axis=1)
        return duration_buckets(tf.where(self.known & following, self.next_ms - self.clicked_ms, _UNKNOWN_MS))

    def ages(self) -> tf.Tensor:
        """Return the bucket of the age of click `then` at the query of state `now`, int32 [batch, now, then]."""
        age_ms = self.next_ms[:, :, tf.newaxis] - self.clicked_ms[:, tf.newaxis, :]
        return duration_buckets(tf.where(self.known[:, tf.newaxis, :], age_ms, _UNKNOWN_MS))

    def last_ages(self, lengths: tf.Tensor) -> tf.Tensor:
        """Return the bucket of the age of each click at the query of the last state, int32 [batch, time]."""
        next_ms = tf.pad(self.next_ms, [[0, 0], [0, 1]])  # if all histories are empty, there is no position 0
        query_ms = tf.gather(next_ms, tf.maximum(lengths - 1, 0), batch_dims=1)  # [batch]
        age_ms = query_ms[:, tf.newaxis] - self.clicked_ms
        return duration_buckets(tf.where(self.known, age_ms, _UNKNOWN_MS))


class GapEmbedding(tf.keras.layers.Layer):
    """Embed gaps as vectors that are added to the token of the click before the gap. The vectors start at zero."""

    def __init__(self, dim: int) -> None:
        super().__init__(name="gap")
        self.rows = self.add_weight(name="rows", shape=(BUCKETS, dim), initializer="zeros")

    def call(self, times: ClickTimes) -> tf.Tensor:
        """Return the vector of the gap after each click, float32 [batch, time, dim]."""
        return tf.gather(self.rows, times.gaps())


class AgeBias(tf.keras.layers.Layer):
    """Add a number per age bucket and head to attention scores. The numbers start at zero.

    TiSASRec gives keys and values a vector per interval. HSTU (Zhai et al., "Actions Speak Louder than Words", ICML
    2024) reduces it to a scalar per head, as here; this needs no tensor [batch, now, then, dim].
    """

    def __init__(self, heads: int = 1) -> None:
        super().__init__(name="age")
        self.rows = self.add_weight(name="rows", shape=(BUCKETS, heads), initializer="zeros")

    def call(self, ages: tf.Tensor) -> tf.Tensor:
        """Look up the numbers of age buckets: int32 [...] -> float32 [..., heads]."""
        return tf.gather(self.rows, ages)
