"""Encodes histories of clicked items, oldest first, to one state after each click.

All encoders keep one contract. `states` gives the state after every click, and no state depends on later clicks, so
that a sequence can be trained at every position in one pass. `last_state` gives the state after the last click, the
same value for less work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from recall.config.model import ModelConfig, TransformerConfig
from recall.model.layers.activations import gelu
from recall.model.layers.attention import CausalSelfAttention, LengthGroup, causal_softmax, group_by_length
from recall.model.layers.history_time import AgeBias, ClickTimes
from recall.model.layers.smoothing import CausalSmoothing
from recall.model.randomness import dropout_layer

Times = ClickTimes | None


def lengths_of(rows: tf.Tensor) -> tf.Tensor:
    """Count the real entries of histories: int [batch, time], padded with -1 -> int32 [batch]."""
    return tf.reduce_sum(tf.cast(rows >= 0, tf.int32), axis=1)


class HistoryEncoder(tf.keras.layers.Layer):
    """Encode histories; base of the encoders. A history without clicks has a learned state.

    Encoders built with `ages` read the times of the clicks.
    """

    def __init__(self, dim: int, *, name: str) -> None:
        super().__init__(name=name)
        self.empty = self.add_weight(name="empty", shape=(dim,), initializer="zeros")

    def states(
        self, tokens: tf.Tensor, lengths: tf.Tensor, *, times: Times = None, training: bool = False
    ) -> tf.Tensor:
        """Return the state after each position.

        Args:
          tokens: float32 [batch, time, dim], oldest first, padded at the end.
          lengths: int [batch], number of real entries.
          times: times of the entries.
          training: whether dropout is on.

        Returns:
          float32 [batch, time, dim]; the values at padded positions are undefined.
        """
        raise NotImplementedError

    def last_state(
        self, tokens: tf.Tensor, lengths: tf.Tensor, *, times: Times = None, training: bool = False
    ) -> tf.Tensor:
        """Return the state after the last click, or the empty state without clicks: float32 [batch, dim]."""
        return self.select(self.states(tokens, lengths, times=times, training=training), lengths - 1)

    def entries(self, tokens: tf.Tensor, states: tf.Tensor) -> tf.Tensor:
        """Return one vector per click for the interest extractors, float32 [batch, time, dim].

        These are the tokens, unless the encoder puts each click into context. The states of a pooling encoder will not
        do: each mixes all clicks so far, so that all interests would be made of the same mixture.
        """
        del states
        return tokens

    def select(self, states: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """Select the state after one position of each row, [batch, dim]; position -1 is the empty history."""
        empty = tf.broadcast_to(self.empty, [tf.shape(states)[0], 1, states.shape[-1]])
        # The empty state is put in front, since a batch of empty histories has no position 0 to read.
        return tf.gather(tf.concat([empty, states], axis=1), positions + 1, batch_dims=1)

    def or_empty(self, states: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """Replace `states` by the learned empty state where `positions` is negative."""
        return tf.where(positions[..., tf.newaxis] >= 0, states, self.empty)


class MeanHistory(HistoryEncoder):
    """Average the entries so far; with `ages`, weighted by the softmax of a learned number per age."""

    def __init__(self, config: ModelConfig, *, max_length: int, ages: bool = False) -> None:
        del max_length
        super().__init__(config.dim, name="mean_history")
        self.age_bias = AgeBias() if ages else None

    def states(
        self, tokens: tf.Tensor, lengths: tf.Tensor, *, times: Times = None, training: bool = False
    ) -> tf.Tensor:
        """Average the entries up to each position; see the base class."""
        del lengths, training
        if self.age_bias is not None and times is not None:
            return tf.matmul(causal_softmax(tf.squeeze(self.age_bias(times.ages()), -1)), tokens)
        count = tf.range(1, tf.shape(tokens)[1] + 1, dtype=tokens.dtype)
        return tf.cumsum(tokens, axis=1) / count[:, tf.newaxis]

    def last_state(
        self, tokens: tf.Tensor, lengths: tf.Tensor, *, times: Times = None, training: bool = False
    ) -> tf.Tensor:
        """Average all entries; see the base class."""
        del training
        if self.age_bias is not None and times is not None:
            scores = tf.squeeze(self.age_bias(times.last_ages(lengths)), -1)  # [batch, time]
            return self.or_empty(softmax_pool(tokens, scores, lengths), lengths - 1)
        mask = tf.sequence_mask(lengths, tf.shape(tokens)[1], dtype=tokens.dtype)
        weights = mask / tf.cast(tf.maximum(lengths, 1), tokens.dtype)[:, tf.newaxis]  # [batch, time]
        return self.or_empty(weighted_sum(tokens, weights), lengths - 1)


class AttentionHistory(HistoryEncoder):
    """Pool the entries by attention, with weights from their content and their recency.

    The weights are softmax_i(w . tanh(W x_i) + r[age of i in clicks]): additive attention (Bahdanau et al., ICLR 2015)
    with a learned vector in place of a query, plus a bias per recency and, with `ages`, a bias per age in time.
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
        """Pool the entries up to each position; see the base class."""
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
        """Pool all entries; see the base class."""
        del training
        age = lengths[:, tf.newaxis] - 1 - tf.range(tf.shape(tokens)[1])  # [batch, time]
        scores = tf.squeeze(self.score(self.hidden(tokens)), -1) + self._recency(age)
        if self.age_bias is not None and times is not None:
            scores += tf.squeeze(self.age_bias(times.last_ages(lengths)), -1)
        return self.or_empty(softmax_pool(tokens, scores, lengths), lengths - 1)

    def _recency(self, age: tf.Tensor) -> tf.Tensor:
        """Look up the bias of ages, counted in clicks."""
        return tf.gather(self.recency, tf.clip_by_value(age, 0, self.max_length - 1))


class TransformerHistory(HistoryEncoder):
    """Run a causal transformer over the ordered history (SASRec, Kang & McAuley, ICDM 2018), post-norm, GELU.

    With `ages`, the attention scores of every head and layer have an `AgeBias`. With `transformer.smoothing` a share of
    every layer's self-attention is replaced by a `CausalSmoothing` of its inputs.
    """

    def __init__(self, config: ModelConfig, *, max_length: int, ages: bool = False) -> None:
        super().__init__(config.dim, name="transformer_history")
        dim = config.dim
        self.position = self.add_weight(
            name="position", shape=(max_length, dim), initializer=tf.keras.initializers.RandomNormal(stddev=0.02)
        )
        self.input_norm = tf.keras.layers.LayerNormalization(epsilon=1e-6)
        self.input_dropout = dropout_layer(config.dropout)
        self.blocks = [
            _HistoryBlock(dim, config.transformer, dropout=config.dropout, ages=ages, name=f"block_{index}")
            for index in range(config.transformer.layers)
        ]
        self.needs_ages = ages

    def states(
        self, tokens: tf.Tensor, lengths: tf.Tensor, *, times: Times = None, training: bool = False
    ) -> tf.Tensor:
        """Run the transformer over the real entries; see the base class."""
        groups = group_by_length(lengths, times if self.needs_ages else None)
        places = tf.concat([group.places for group in groups], axis=0)  # [real, 2]
        states = tf.gather_nd(tokens, places) + tf.gather(self.position, places[:, 1])  # [real, dim]
        states = self.input_dropout(self.input_norm(states), training=training)
        for block in self.blocks:
            states = block(states, groups, training=training)
        return tf.scatter_nd(places, states, tf.shape(tokens))

    def entries(self, tokens: tf.Tensor, states: tf.Tensor) -> tf.Tensor:
        """Return the states: each is its click in the context of the clicks before."""
        del tokens
        return states


class _HistoryBlock(tf.keras.layers.Layer):
    """Apply attention, then an MLP. Only attention is padded; everything else is computed for real entries alone."""

    def __init__(self, dim: int, config: TransformerConfig, *, dropout: float, ages: bool, name: str) -> None:
        super().__init__(name=name)
        self.attention = CausalSelfAttention(config.heads, dim, dropout=dropout, ages=ages)
        self.share = config.smoothing
        self.smoothing = CausalSmoothing(dim) if config.smoothing else None
        self.attention_norm = tf.keras.layers.LayerNormalization(epsilon=1e-6)
        self.inner = tf.keras.layers.Dense(4 * dim, activation=gelu)
        self.outer = tf.keras.layers.Dense(dim)
        self.outer_norm = tf.keras.layers.LayerNormalization(epsilon=1e-6)
        self.dropout = dropout_layer(dropout)

    def call(self, states: tf.Tensor, groups: Sequence[LengthGroup], training: bool = False) -> tf.Tensor:
        """Transform the real entries of all groups in a row: float32 [real, dim] -> float32 [real, dim]."""
        attended = self.attention(states, groups, training=training)
        if self.smoothing is not None:
            attended = self.share * self.smoothing(states, groups) + (1 - self.share) * attended
        states = self.attention_norm(states + self.dropout(attended, training=training))
        inner = self.outer(self.dropout(self.inner(states), training=training))
        return self.outer_norm(states + self.dropout(inner, training=training))


def softmax_pool(tokens: tf.Tensor, scores: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Average the real entries, [batch, time, dim], by the softmax of their scores, [batch, time]: [batch, dim]."""
    is_real = tf.sequence_mask(lengths, tf.shape(tokens)[1])
    return weighted_sum(tokens, tf.nn.softmax(tf.where(is_real, scores, scores.dtype.min), axis=-1))


def weighted_sum(tokens: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Sum entries by weights: [batch, time, dim] and [batch, time] -> [batch, dim]."""
    return tf.squeeze(tf.matmul(weights[:, tf.newaxis], tokens), axis=1)


HISTORY_ENCODERS: dict[str, Callable[..., HistoryEncoder]] = {
    "mean": MeanHistory,
    "attention": AttentionHistory,
    "transformer": TransformerHistory,
}
"""Value of `model.history_encoder` -> class."""
