"""History encoders: the user's clicked items, oldest first -> one state after each of them.

All keep one contract: `states` gives the state after every click and never looks ahead, so that a sequence
teaches at every position in one pass; `last_state` gives the state after the last one, the same value for less work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from recall.config.model import ModelConfig, TransformerConfig
from recall.model.layers.activations import gelu
from recall.model.layers.attention import CausalSelfAttention, Group, by_length, causal_softmax
from recall.model.layers.history_time import AgeBias, ClickTimes
from recall.model.layers.smoothing import CausalSmoothing

Times = ClickTimes | None


def lengths_of(rows: tf.Tensor) -> tf.Tensor:
    """How many entries of histories are real: int [batch, time], padded with -1 -> int32 [batch]."""
    return tf.reduce_sum(tf.cast(rows >= 0, tf.int32), axis=1)


class HistoryEncoder(tf.keras.layers.Layer):
    """Base of the encoders. A history without clicks has a learned state.

    Encoders made with `ages` need the times of the clicks; others do without.
    """

    def __init__(self, dim: int, *, name: str) -> None:
        super().__init__(name=name)
        self.empty = self.add_weight(name="empty", shape=(dim,), initializer="zeros")

    def states(
        self, tokens: tf.Tensor, lengths: tf.Tensor, *, times: Times = None, training: bool = False
    ) -> tf.Tensor:
        """State after each position.

        Args:
          tokens: float32 [batch, time, dim], oldest first, padded at the end.
          lengths: int [batch], entries that are real.
          times: of the entries.
          training: whether dropout is on.

        Returns:
          float32 [batch, time, dim]; what stands at padded positions means nothing.
        """
        raise NotImplementedError

    def last_state(
        self, tokens: tf.Tensor, lengths: tf.Tensor, *, times: Times = None, training: bool = False
    ) -> tf.Tensor:
        """State after the last real position, the learned empty state where there is none: float32 [batch, dim]."""
        return self.select(self.states(tokens, lengths, times=times, training=training), lengths - 1)

    def entries(self, tokens: tf.Tensor, states: tf.Tensor) -> tf.Tensor:
        """One vector per click that is still about that click, float32 [batch, time, dim]: what interests are made of.

        The tokens themselves, unless an encoder puts them into context: states that pool all clicks so far would hand
        the same mixture to every interest.
        """
        del states
        return tokens

    def select(self, states: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """The state after one position of each row ([batch, dim]); position -1 is the empty history."""
        empty = tf.broadcast_to(self.empty, [tf.shape(states)[0], 1, states.shape[-1]])
        # The empty state stands in front, not beside: in a batch of empty histories there is no position 0 to read.
        return tf.gather(tf.concat([empty, states], axis=1), positions + 1, batch_dims=1)

    def or_empty(self, states: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """`states` with the learned empty state where `positions` is negative."""
        return tf.where(positions[..., tf.newaxis] >= 0, states, self.empty)


class MeanHistory(HistoryEncoder):
    """The mean of the entries so far; with `ages`, each weighted by the softmax of a number per age."""

    def __init__(self, config: ModelConfig, *, max_length: int, ages: bool = False) -> None:
        del max_length
        super().__init__(config.dim, name="mean_history")
        self.age_bias = AgeBias() if ages else None

    def states(
        self, tokens: tf.Tensor, lengths: tf.Tensor, *, times: Times = None, training: bool = False
    ) -> tf.Tensor:
        del lengths, training
        if self.age_bias is not None and times is not None:
            return tf.matmul(causal_softmax(tf.squeeze(self.age_bias(times.ages()), -1)), tokens)
        count = tf.range(1, tf.shape(tokens)[1] + 1, dtype=tokens.dtype)
        return tf.cumsum(tokens, axis=1) / count[:, tf.newaxis]

    def last_state(
        self, tokens: tf.Tensor, lengths: tf.Tensor, *, times: Times = None, training: bool = False
    ) -> tf.Tensor:
        del training
        if self.age_bias is not None and times is not None:
            scores = tf.squeeze(self.age_bias(times.last_ages(lengths)), -1)  # [batch, time]
            return self.or_empty(pool(tokens, scores, lengths), lengths - 1)
        mask = tf.sequence_mask(lengths, tf.shape(tokens)[1], dtype=tokens.dtype)
        weights = mask / tf.cast(tf.maximum(lengths, 1), tokens.dtype)[:, tf.newaxis]  # [batch, time]
        return self.or_empty(weighted(tokens, weights), lengths - 1)


class AttentionHistory(HistoryEncoder):
    """Attention pooling: weights from what an entry is and how many clicks ago it was.

    softmax_i(w . tanh(W x_i) + r[age of i in clicks]), additive attention (Bahdanau et al., ICLR 2015) with a learned
    vector in place of a query, plus a bias per recency and, with `ages`, one per age on the clock.
    """

    def __init__(self, config: ModelConfig, *, max_length: int, ages: bool = False) -> None:
        super().__init__(config.dim, name="attention_history")
        self.age_bias = AgeBias() if ages else None
        self.max_length = max_length
        self.hidden = tf.keras.layers.Dense(max(4, config.dim // 4), activation="tanh", name="attention_hidden")
        self.score = tf.keras.layers.Dense(1, use_bias=False, name="attention_score")
        self.recency = self.add_weight(name="recency", shape=(max_length,), initializer="zeros")

    def states(
        self, tokens: tf.Tensor, lengths: tf.Tensor, *, times: Times = None, training: bool = False
    ) -> tf.Tensor:
        del lengths, training
        time = tf.range(tf.shape(tokens)[1])
        age = time[:, tf.newaxis] - time[tf.newaxis, :]  # [now, then]
        scores = tf.transpose(self.score(self.hidden(tokens)), [0, 2, 1]) + self._recency(age)  # [batch, now, then]
        if self.age_bias is not None and times is not None:
            scores += tf.squeeze(self.age_bias(times.ages()), -1)
        return tf.matmul(causal_softmax(scores), tokens)

    def last_state(
        self, tokens: tf.Tensor, lengths: tf.Tensor, *, times: Times = None, training: bool = False
    ) -> tf.Tensor:
        del training
        age = lengths[:, tf.newaxis] - 1 - tf.range(tf.shape(tokens)[1])  # [batch, time]
        scores = tf.squeeze(self.score(self.hidden(tokens)), -1) + self._recency(age)
        if self.age_bias is not None and times is not None:
            scores += tf.squeeze(self.age_bias(times.last_ages(lengths)), -1)
        return self.or_empty(pool(tokens, scores, lengths), lengths - 1)

    def _recency(self, age: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.recency, tf.clip_by_value(age, 0, self.max_length - 1))


class TransformerHistory(HistoryEncoder):
    """A causal transformer over the ordered history (SASRec, Kang & McAuley, ICDM 2018), post-norm, GELU.

    With `ages`, every head of every layer also weighs by the time that has passed. With `transformer.smoothing` a share
    of every layer's self-attention is replaced by a `CausalSmoothing` of its inputs.
    """

    def __init__(self, config: ModelConfig, *, max_length: int, ages: bool = False) -> None:
        super().__init__(config.dim, name="transformer_history")
        dim = config.dim
        self.position = self.add_weight(
            name="position", shape=(max_length, dim), initializer=tf.keras.initializers.RandomNormal(stddev=0.02)
        )
        self.input_norm = tf.keras.layers.LayerNormalization(epsilon=1e-6)
        self.input_dropout = tf.keras.layers.Dropout(config.dropout)
        self.blocks = [
            _Block(dim, config.transformer, dropout=config.dropout, ages=ages, name=f"block_{index}")
            for index in range(config.transformer.layers)
        ]
        self.needs_ages = ages

    def states(
        self, tokens: tf.Tensor, lengths: tf.Tensor, *, times: Times = None, training: bool = False
    ) -> tf.Tensor:
        groups = by_length(lengths, times if self.needs_ages else None)
        places = tf.concat([group.places for group in groups], axis=0)  # [real, 2]
        states = tf.gather_nd(tokens, places) + tf.gather(self.position, places[:, 1])  # [real, dim]
        states = self.input_dropout(self.input_norm(states), training=training)
        for block in self.blocks:
            states = block(states, groups, training=training)
        return tf.scatter_nd(places, states, tf.shape(tokens))

    def entries(self, tokens: tf.Tensor, states: tf.Tensor) -> tf.Tensor:
        del tokens
        return states


class _Block(tf.keras.layers.Layer):
    """Attention, then an MLP. Histories differ in length: all but the attention is computed for real entries only."""

    def __init__(self, dim: int, config: TransformerConfig, *, dropout: float, ages: bool, name: str) -> None:
        super().__init__(name=name)
        self.attention = CausalSelfAttention(config.heads, dim, dropout=dropout, ages=ages)
        self.share = config.smoothing
        self.smoothing = CausalSmoothing(dim) if config.smoothing else None
        self.attention_norm = tf.keras.layers.LayerNormalization(epsilon=1e-6)
        self.inner = tf.keras.layers.Dense(4 * dim, activation=gelu)
        self.outer = tf.keras.layers.Dense(dim)
        self.outer_norm = tf.keras.layers.LayerNormalization(epsilon=1e-6)
        self.dropout = tf.keras.layers.Dropout(dropout)

    def call(self, states: tf.Tensor, groups: Sequence[Group], training: bool = False) -> tf.Tensor:
        """float32 [real, dim], the real entries of all groups one after the other -> float32 [real, dim]."""
        attended = self.attention(states, groups, training=training)
        if self.smoothing is not None:
            attended = self.share * self.smoothing(states, groups) + (1 - self.share) * attended
        states = self.attention_norm(states + self.dropout(attended, training=training))
        inner = self.outer(self.dropout(self.inner(states), training=training))
        return self.outer_norm(states + self.dropout(inner, training=training))


def pool(tokens: tf.Tensor, scores: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Mean of the real entries [batch, time, dim] by the softmax of their scores [batch, time]: [batch, dim]."""
    is_real = tf.sequence_mask(lengths, tf.shape(tokens)[1])
    return weighted(tokens, tf.nn.softmax(tf.where(is_real, scores, scores.dtype.min), axis=-1))


def weighted(tokens: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighted sums of entries, [batch, time, dim] and [batch, time] -> [batch, dim]."""
    return tf.squeeze(tf.matmul(weights[:, tf.newaxis], tokens), axis=1)


HISTORY_ENCODERS: dict[str, Callable[..., HistoryEncoder]] = {
    "mean": MeanHistory,
    "attention": AttentionHistory,
    "transformer": TransformerHistory,
}
