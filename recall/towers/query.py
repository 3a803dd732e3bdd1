"""The query side: user tower (u2i) and trigger tower (i2i). Both end in the space of item vectors."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from recall.config import ModelConfig
from recall.encoding import EncodedColumn
from recall.towers.features import FeatureInput, Features, dense_stack
from recall.towers.history import HISTORY_ENCODERS


class QueryHead(tf.keras.layers.Layer):
    """State (and profile) -> query vector: a residual MLP, then unit length unless `similarity: dot`.

    With parts = 2 (`gate: concat`) each half has unit length: one is matched with b, the other with (1 - g) m.
    """

    def __init__(self, config: ModelConfig, *, parts: int, name: str) -> None:
        super().__init__(name=name)
        width = parts * config.dim
        self.parts, self.unit_length = parts, config.similarity == "cosine"
        self.stack = dense_stack(
            config.hidden, width, dropout=config.dropout, name=f"{name}_stack", starts_at_zero=config.shared_space
        )
        self.shortcut = None
        if not config.shared_space:
            self.shortcut = tf.keras.layers.Dense(width, use_bias=False, name=f"{name}_shortcut")
        self.dropout = tf.keras.layers.Dropout(config.dropout)

    def call(self, state: tf.Tensor, profile: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """float32 [..., dim] and optionally [..., profile] -> float32 [..., parts * dim]."""
        inputs = state if profile is None else tf.concat([state, profile], axis=-1)
        output = self.stack(self.dropout(inputs, training=training), training=training)
        output += tf.concat([state] * self.parts, axis=-1) if self.shortcut is None else self.shortcut(state)
        if not self.unit_length:
            return output
        halves = tf.split(output, self.parts, axis=-1)
        return tf.concat([tf.math.l2_normalize(half, axis=-1) for half in halves], axis=-1)


class UserTower(tf.keras.layers.Layer):
    """Profile and history of clicked items -> query vector."""

    def __init__(self, columns: Sequence[EncodedColumn], *, config: ModelConfig, parts: int, max_length: int) -> None:
        super().__init__(name="user")
        self.profile = FeatureInput(columns, dim=config.dim, name="profile") if columns else None
        self.history = HISTORY_ENCODERS[config.history_encoder](config, max_length=max_length)
        self.head = QueryHead(config, parts=parts, name="user_head")

    def call(self, features: Features, tokens: tf.Tensor, lengths: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Queries after the whole history.

        Args:
          features: of the users' `FeatureTable.gather`, [batch].
          tokens: float32 [batch, time, dim], `ItemSide.tokens` of the history, oldest first, padded at the end.
          lengths: int [batch].
          training: whether dropout is on.

        Returns:
          float32 [batch, width].
        """
        state = self.history.last_state(tokens, lengths, training=training)
        return self.head(state, self.profile(features) if self.profile else None, training=training)

    def at_positions(
        self,
        features: Features,
        tokens: tf.Tensor,
        lengths: tf.Tensor,
        *,
        users: tf.Tensor,
        positions: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """Queries inside sequences: query j is user `users[j]` after position `positions[j]` (-1: before any).

        Returns:
          float32 [queries, width].
        """
        states = self.history.states(tokens, lengths, training=training)  # [batch, time, dim]
        chosen = tf.gather_nd(states, tf.stack([users, tf.maximum(positions, 0)], axis=1))  # [queries, dim]
        chosen = self.history.or_empty(chosen, positions)
        profile = tf.gather(self.profile(features), users) if self.profile else None
        return self.head(chosen, profile, training=training)


class TriggerTower(tf.keras.layers.Layer):
    """The item just clicked -> query vector, for item-to-item recall."""

    def __init__(self, config: ModelConfig, *, parts: int) -> None:
        super().__init__(name="trigger")
        self.head = QueryHead(config, parts=parts, name="trigger_head")

    def call(self, tokens: tf.Tensor, training: bool = False) -> tf.Tensor:
        """float32 [batch, dim], `ItemSide.tokens` of the triggers -> float32 [batch, width]."""
        return self.head(tokens, training=training)
