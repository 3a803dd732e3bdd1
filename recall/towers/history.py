"""History encoders: the user's clicked items, oldest first -> one state after each of them.

All keep one contract: `states` gives the state after every click and never looks ahead, so that a sequence
teaches at every position in one pass; `last_state` gives the state after the last one, the same value for less work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from recall.config import ModelConfig

# Nine of ten histories of public data sets are no longer.
_SHORT = 16


class HistoryEncoder(tf.keras.layers.Layer):
    """Base of the encoders. A history without clicks has a learned state."""

    def __init__(self, dim: int, *, name: str) -> None:
        super().__init__(name=name)
        self.empty = self.add_weight(name="empty", shape=(dim,), initializer="zeros")

    def states(self, tokens: tf.Tensor, lengths: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """State after each position.

        Args:
          tokens: float32 [batch, time, dim], oldest first, padded at the end.
          lengths: int [batch], entries that are real.
          training: whether dropout is on.

        Returns:
          float32 [batch, time, dim]; what stands at padded positions means nothing.
        """
        raise NotImplementedError

    def last_state(self, tokens: tf.Tensor, lengths: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """State after the last real position, the learned empty state where there is none: float32 [batch, dim]."""
        return self.select(self.states(tokens, lengths, training=training), lengths - 1)

    def select(self, states: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """The state after one position of each row ([batch, dim]); position -1 is the empty history."""
        empty = tf.broadcast_to(self.empty, [tf.shape(states)[0], 1, states.shape[-1]])
        # The empty state stands in front, not beside: in a batch of empty histories there is no position 0 to read.
        return tf.gather(tf.concat([empty, states], axis=1), positions + 1, batch_dims=1)

    def or_empty(self, states: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """`states` with the learned empty state where `positions` is negative."""
        return tf.where(positions[..., tf.newaxis] >= 0, states, self.empty)


class MeanHistory(HistoryEncoder):
    """The mean of the entries so far."""

    def __init__(self, config: ModelConfig, *, max_length: int) -> None:
        del max_length
        super().__init__(config.dim, name="mean_history")

    def states(self, tokens: tf.Tensor, lengths: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        del lengths, training
        count = tf.range(1, tf.shape(tokens)[1] + 1, dtype=tokens.dtype)
        return tf.cumsum(tokens, axis=1) / count[:, tf.newaxis]

    def last_state(self, tokens: tf.Tensor, lengths: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        del training
        mask = tf.sequence_mask(lengths, tf.shape(tokens)[1], dtype=tokens.dtype)[..., tf.newaxis]
        total = tf.reduce_sum(tokens * mask, axis=1)  # [batch, dim]
        mean = total / tf.cast(tf.maximum(lengths, 1), tokens.dtype)[:, tf.newaxis]
        return self.or_empty(mean, lengths - 1)


class AttentionHistory(HistoryEncoder):
    """Attention pooling: weights from what an entry is and how many clicks ago it was.

    softmax_i(w . tanh(W x_i) + r[age of i in clicks]), additive attention (Bahdanau et al., ICLR 2015) with a learned
    vector in place of a query, plus a bias per recency.
    """

    def __init__(self, config: ModelConfig, *, max_length: int) -> None:
        super().__init__(config.dim, name="attention_history")
        self.max_length = max_length
        self.hidden = tf.keras.layers.Dense(max(4, config.dim // 4), activation="tanh", name="attention_hidden")
        self.score = tf.keras.layers.Dense(1, use_bias=False, name="attention_score")
        self.recency = self.add_weight(name="recency", shape=(max_length,), initializer="zeros")

    def states(self, tokens: tf.Tensor, lengths: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        del lengths, training
        time = tf.range(tf.shape(tokens)[1])
        age = time[:, tf.newaxis] - time[tf.newaxis, :]  # [now, then]
        scores = tf.transpose(self.score(self.hidden(tokens)), [0, 2, 1]) + self._recency(age)  # [batch, now, then]
        scores = tf.where(age >= 0, scores, scores.dtype.min)
        return tf.matmul(tf.nn.softmax(scores, axis=-1), tokens)

    def last_state(self, tokens: tf.Tensor, lengths: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        del training
        age = lengths[:, tf.newaxis] - 1 - tf.range(tf.shape(tokens)[1])  # [batch, time]
        scores = tf.squeeze(self.score(self.hidden(tokens)), -1) + self._recency(age)
        weights = tf.nn.softmax(tf.where(age >= 0, scores, scores.dtype.min), axis=-1)
        return self.or_empty(tf.reduce_sum(weights[..., tf.newaxis] * tokens, axis=1), lengths - 1)

    def _recency(self, age: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.recency, tf.clip_by_value(age, 0, self.max_length - 1))


class TransformerHistory(HistoryEncoder):
    """A causal transformer over the ordered history (SASRec, Kang & McAuley, ICDM 2018), post-norm, GELU."""

    def __init__(self, config: ModelConfig, *, max_length: int) -> None:
        super().__init__(config.dim, name="transformer_history")
        dim = config.dim
        self.position = self.add_weight(
            name="position", shape=(max_length, dim), initializer=tf.keras.initializers.RandomNormal(stddev=0.02)
        )
        self.input_norm = tf.keras.layers.LayerNormalization(epsilon=1e-6)
        self.input_dropout = tf.keras.layers.Dropout(config.dropout)
        self.blocks = [
            _Block(dim, heads=config.transformer.heads, dropout=config.dropout, name=f"block_{index}")
            for index in range(config.transformer.layers)
        ]

    def states(self, tokens: tf.Tensor, lengths: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        groups = _by_length(lengths)
        places = tf.concat([group.places for group in groups], axis=0)  # [real, 2]
        states = tf.gather_nd(tokens, places) + tf.gather(self.position, places[:, 1])  # [real, dim]
        states = self.input_dropout(self.input_norm(states), training=training)
        for block in self.blocks:
            states = block(states, groups, training=training)
        return tf.scatter_nd(places, states, tf.shape(tokens))


class _Group(NamedTuple):
    """Histories that are padded together."""

    places: tf.Tensor  # int32 [real, 2], row of the batch and position of each real entry
    padded: tf.Tensor  # int32 [real, 2], the same with rows counted inside the group
    shape: tf.Tensor  # int32 [2], rows and longest history of the group


def _by_length(lengths: tf.Tensor) -> list[_Group]:
    """Short histories apart from long ones: attention costs the square of the longest beside which it is padded."""
    lengths = tf.cast(lengths, tf.int32)
    groups = []
    for is_member in (lengths <= _SHORT, lengths > _SHORT):
        rows = tf.cast(tf.where(is_member)[:, 0], tf.int32)  # [rows]
        members = tf.gather(lengths, rows)
        longest = tf.maximum(tf.reduce_max(members), 0)  # 0 for a group without members
        padded = tf.cast(tf.where(tf.sequence_mask(members, longest)), tf.int32)
        places = tf.stack([tf.gather(rows, padded[:, 0]), padded[:, 1]], axis=1)
        groups.append(_Group(places, padded, tf.stack([tf.size(rows), longest])))
    return groups


class _Block(tf.keras.layers.Layer):
    """Attention, then an MLP. Histories differ in length: all but the attention is computed for real entries only."""

    def __init__(self, dim: int, *, heads: int, dropout: float, name: str) -> None:
        super().__init__(name=name)
        self.heads, self.width = heads, dim // heads
        self.projection = tf.keras.layers.Dense(3 * dim)
        self.joined = tf.keras.layers.Dense(dim)
        self.attention_norm = tf.keras.layers.LayerNormalization(epsilon=1e-6)
        self.inner = tf.keras.layers.Dense(4 * dim, activation="gelu")
        self.outer = tf.keras.layers.Dense(dim)
        self.outer_norm = tf.keras.layers.LayerNormalization(epsilon=1e-6)
        self.dropout = tf.keras.layers.Dropout(dropout)

    def call(self, states: tf.Tensor, groups: Sequence[_Group], training: bool = False) -> tf.Tensor:
        """float32 [real, dim], the real entries of all groups one after the other -> float32 [real, dim]."""
        parts = tf.split(self.projection(states), [tf.shape(group.padded)[0] for group in groups])
        attended = [self._attend(part, group, training=training) for part, group in zip(parts, groups, strict=True)]
        update = self.dropout(self.joined(tf.concat(attended, axis=0)), training=training)
        states = self.attention_norm(states + update)
        inner = self.outer(self.dropout(self.inner(states), training=training))
        return self.outer_norm(states + self.dropout(inner, training=training))

    def _attend(self, projected: tf.Tensor, group: _Group, *, training: bool) -> tf.Tensor:
        rows, time = tf.unstack(group.shape)
        padded = tf.scatter_nd(group.padded, projected, [rows, time, 3 * self.heads * self.width])
        padded = tf.reshape(padded, [rows, time, 3 * self.heads, self.width])
        query, key, value = tf.split(tf.transpose(padded, [0, 2, 1, 3]), 3, axis=1)  # [rows, heads, time, width]
        scores = tf.matmul(query * self.width**-0.5, key, transpose_b=True)  # [rows, heads, now, then]
        # Padding stands at the end, where the causal mask hides it from real entries.
        now = tf.range(time)
        scores = tf.where(now[:, tf.newaxis] >= now, scores, scores.dtype.min)
        weights = self.dropout(tf.nn.softmax(scores), training=training)
        joined = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])  # [rows, time, heads, width]
        return tf.gather_nd(tf.reshape(joined, [rows, time, self.heads * self.width]), group.padded)


HISTORY_ENCODERS: dict[str, Callable[..., HistoryEncoder]] = {
    "mean": MeanHistory,
    "attention": AttentionHistory,
    "transformer": TransformerHistory,
}
