"""Extracts several interest vectors of a user from a history: `model.interests`.

The mean of chess and cooking describes neither interest of a user who watches both. The extractors read the entries of
the history encoder (`HistoryEncoder.entries`) and pool them several times with different weights. The score of an item
is the largest score over the interests.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from recall.config.model import ModelConfig

_ROUTING_ITERATIONS = 3  # as in MIND and ComiRec


class InterestExtractor(tf.keras.layers.Layer):
    """Extract interests; base of the extractors. Without clicks each interest is a learned vector.

    Attributes:
      count: interests per user.
    """

    def __init__(self, count: int, dim: int, *, name: str) -> None:
        super().__init__(name=name)
        self.count = count
        # Not zeros: equal interests would tie, and only the first of them would ever be trained.
        self.empty = self.add_weight(
            name="empty", shape=(count, dim), initializer=tf.keras.initializers.RandomNormal(stddev=0.05)
        )

    def last(self, entries: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Return the interests after the whole history.

        Args:
          entries: float32 [batch, time, dim], oldest first, padded at the end.
          lengths: int [batch], number of real entries.

        Returns:
          float32 [batch, interests, dim].
        """
        raise NotImplementedError

    def at_every_position(self, entries: tf.Tensor) -> tf.Tensor:
        """Return the interests after each position, from earlier entries alone: float32 [batch, time, interests, dim].

        The values at padded positions are undefined. Only attention implements it; the configuration refuses routing
        where it would be needed.
        """
        raise NotImplementedError

    def or_empty(self, interests: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """Replace `interests`, [n, interests, dim], by the learned empty ones where `positions`, [n], is negative."""
        return tf.where(positions[:, tf.newaxis, tf.newaxis] >= 0, interests, self.empty)


class AttentionInterests(InterestExtractor):
    """Pool the entries by self-attention, with weights from their content and their recency.

    The weights of interest k are softmax_i(w_k . tanh(W x_i) + r_k[age of i in clicks]): the structured self-attention
    of Lin et al. (ICLR 2017, eq. 6) as in ComiRec-SA (Cen et al., KDD 2020, eq. 7). Departures: the order enters as a
    bias per recency, as in `AttentionHistory`, and not as position vectors added to the entries, so that a window of a
    longer history has the same weights as the whole; the hidden layer is as wide as the entries, not four times.
    """

    def __init__(self, config: ModelConfig, *, max_length: int) -> None:
        count = config.interest_count
        super().__init__(count, config.dim, name="attention_interests")
        self.max_length = max_length
        self.hidden = tf.keras.layers.Dense(config.dim, use_bias=False, activation="tanh", name="interest_hidden")
        self.score = tf.keras.layers.Dense(count, use_bias=False, name="interest_score")
        self.recency = self.add_weight(name="recency", shape=(max_length, count), initializer="zeros")

    def last(self, entries: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Pool the entries of the whole history per interest; see the base class."""
        age = lengths[:, tf.newaxis] - 1 - tf.range(tf.shape(entries)[1])  # [batch, time]
        scores = self.score(self.hidden(entries)) + self._recency(age)  # [batch, time, interests]
        weights = tf.nn.softmax(tf.where(age[..., tf.newaxis] >= 0, scores, scores.dtype.min), axis=1)
        return self.or_empty(tf.einsum("bti,btd->bid", weights, entries), lengths - 1)

    def at_every_position(self, entries: tf.Tensor) -> tf.Tensor:
        """Pool the entries up to each position per interest; see the base class."""
        time = tf.range(tf.shape(entries)[1])
        age = time[:, tf.newaxis] - time[tf.newaxis, :]  # [now, then]
        scores = self.score(self.hidden(entries))[:, tf.newaxis] + self._recency(age)  # [batch, now, then, interests]
        weights = tf.nn.softmax(tf.where(age[..., tf.newaxis] >= 0, scores, scores.dtype.min), axis=2)
        return tf.einsum("bnti,btd->bnid", weights, entries)

    def _recency(self, age: tf.Tensor) -> tf.Tensor:
        """Look up the biases of ages, counted in clicks: [..., interests]."""
        return tf.gather(self.recency, tf.clip_by_value(age, 0, self.max_length - 1))


class RoutingInterests(InterestExtractor):
    """Assign entries to interests by dynamic routing: by their agreement with the interests of the iteration before.

    These are the behaviour-to-interest capsules of MIND (Li et al., CIKM 2019, section 4.2): one bilinear map shared by
    all pairs, three iterations, squash, and logits that start at random numbers which are never trained. As in the code
    of ComiRec only the last iteration has a gradient. Departures: every user has the same number of interests (MIND:
    log2 of the clicks), and the random numbers are drawn once per position of the history and stored with the weights
    (MIND and ComiRec: anew for every batch), so that the vectors of a user do not change from request to request.
    """

    def __init__(self, config: ModelConfig, *, max_length: int) -> None:
        count = config.interest_count
        super().__init__(count, config.dim, name="routing_interests")
        self.bilinear = tf.keras.layers.Dense(config.dim, use_bias=False, name="interest_bilinear")
        self.start = self.add_weight(
            name="start",
            shape=(max_length, count),
            initializer=tf.keras.initializers.RandomNormal(stddev=1.0),
            trainable=False,
        )

    def last(self, entries: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Route the entries of the whole history to the interests; see the base class."""
        is_real = tf.sequence_mask(lengths, tf.shape(entries)[1])[..., tf.newaxis]  # [batch, time, 1]
        mapped = self.bilinear(entries)  # [batch, time, dim]
        fixed = tf.stop_gradient(mapped)
        logits = self.start[tf.newaxis, : tf.shape(entries)[1]]  # [1, time, interests]
        for _ in range(_ROUTING_ITERATIONS - 1):
            logits += tf.einsum("btd,bid->bti", fixed, _capsules(logits, fixed, is_real))  # [batch, time, interests]
        return self.or_empty(_capsules(logits, mapped, is_real), lengths - 1)


def _capsules(logits: tf.Tensor, mapped: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
    """Sum the entries per interest by a softmax over the interests, and squash: float32 [batch, interests, dim]."""
    shares = tf.where(is_real, tf.nn.softmax(logits, axis=-1), 0.0)  # [batch, time, interests]
    total = tf.einsum("bti,btd->bid", shares, mapped)
    square = tf.reduce_sum(tf.square(total), axis=-1, keepdims=True)  # [batch, interests, 1]
    return total * tf.sqrt(square + 1e-9) / (1.0 + square)


INTEREST_EXTRACTORS: dict[str, Callable[..., InterestExtractor]] = {
    "attention": AttentionInterests,
    "routing": RoutingInterests,
}
"""Value of `model.interests.extractor` -> class."""
