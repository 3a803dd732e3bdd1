"""The query side: user tower (u2i) and trigger tower (i2i). Both end in the space of item vectors."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.config.values import HistoryTime
from recall.data.features.table_encoder import EncodedColumn
from recall.model.layers.features import FeatureInput, Features, dense_stack
from recall.model.layers.history_time import ClickTimes, GapEmbedding
from recall.model.towers.appeal import asking_for_appeal
from recall.model.towers.history_encoders import HISTORY_ENCODERS
from recall.model.towers.history_fusion import FurtherTokens, HistoryFusion
from recall.model.towers.interests import INTEREST_EXTRACTORS, InterestExtractor


class QueryHead(tf.keras.layers.Layer):
    """State (and profile) -> query vector: a residual MLP, unit length unless `similarity: dot`, a 1 for appeal.

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
        """float32 [..., dim] and optionally [..., profile] -> float32 [..., parts * dim + 1]."""
        inputs = state if profile is None else tf.concat([state, profile], axis=-1)
        output = self.stack(self.dropout(inputs, training=training), training=training)
        output += tf.concat([state] * self.parts, axis=-1) if self.shortcut is None else self.shortcut(state)
        if self.unit_length:
            halves = tf.split(output, self.parts, axis=-1)
            output = tf.concat([tf.math.l2_normalize(half, axis=-1) for half in halves], axis=-1)
        return asking_for_appeal(output)


class UserTower(tf.keras.layers.Layer):
    """Profile and history of clicked items -> query vector, or several of them (`model.interests`)."""

    def __init__(
        self,
        columns: Sequence[EncodedColumn],
        *,
        config: ModelConfig,
        parts: int,
        max_length: int,
        history_time: HistoryTime = "none",
        fusion: HistoryFusion | None = None,
    ) -> None:
        super().__init__(name="user")
        self.profile = FeatureInput(columns, dim=config.dim, name="profile") if columns else None
        self.reads_times = history_time != "none"
        self.hidden_times = config.history_time_hidden
        self.gap = GapEmbedding(config.dim) if history_time in ("gap", "both") else None
        ages = history_time in ("age", "both")
        self.history = HISTORY_ENCODERS[config.history_encoder](config, max_length=max_length, ages=ages)
        self.fusion = fusion
        self.interests: InterestExtractor | None = None
        if config.interests and config.interest_count > 1:
            self.interests = INTEREST_EXTRACTORS[config.interests.extractor](config, max_length=max_length)
        self.head = QueryHead(config, parts=parts, name="user_head")

    def call(
        self,
        features: Features,
        tokens: tf.Tensor,
        lengths: tf.Tensor,
        times: ClickTimes | None = None,
        further: FurtherTokens | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Queries after the whole history.

        Args:
          features: of the users' `FeatureTable.gather`, [batch].
          tokens: float32 [batch, time, dim], `ItemSide.tokens` of the history, oldest first, padded at the end.
          lengths: int [batch].
          times: of the history's clicks; None where they are unknown.
          further: the user's further histories, where the model has a fusion.
          training: whether dropout is on.

        Returns:
          float32 [batch, width], or [batch, interests, width] where the configuration asks for several.
        """
        tokens, times = self._timed(tokens, times, training=training)
        profile = self.profile_of(features)
        interests = None
        if self.interests:
            states = self.history.states(tokens, lengths, times=times, training=training)  # [batch, time, dim]
            interests = self.interests.last(self.history.entries(tokens, states), lengths)
            state = self.history.select(states, lengths - 1)
        else:
            state = self.history.last_state(tokens, lengths, times=times, training=training)
        if self.fusion is not None:
            state = self.fusion(state, lengths, further, training=training)
        if interests is not None:
            return self._interest_queries(interests, state, profile, training=training)
        return self.head(state, profile, training=training)

    def at_positions(
        self,
        features: Features,
        tokens: tf.Tensor,
        lengths: tf.Tensor,
        *,
        users: tf.Tensor,
        positions: tf.Tensor,
        times: ClickTimes | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Queries inside sequences: query j is user `users[j]` after position `positions[j]` (-1: before any).

        Returns:
          float32 [queries, width], or [queries, interests, width].
        """
        tokens, times = self._timed(tokens, times, training=training)
        states = self.history.states(tokens, lengths, times=times, training=training)  # [batch, time, dim]
        places = tf.stack([users, tf.maximum(positions, 0)], axis=1)  # [queries, 2]
        chosen = self.history.or_empty(tf.gather_nd(states, places), positions)  # [queries, dim]
        profile = tf.gather(self.profile(features), users) if self.profile else None
        if self.interests:
            inside = self.interests.at_every_position(self.history.entries(tokens, states))
            interests = self.interests.or_empty(tf.gather_nd(inside, places), positions)  # [queries, interests, dim]
            return self._interest_queries(interests, chosen, profile, training=training)
        return self.head(chosen, profile, training=training)

    def profile_of(self, features: Features) -> tf.Tensor | None:
        """Features of users, [batch], as the dense input beside the history: float32 [batch, profile]."""
        return self.profile(features) if self.profile else None

    def _timed(
        self, tokens: tf.Tensor, times: ClickTimes | None, *, training: bool
    ) -> tuple[tf.Tensor, ClickTimes | None]:
        """Tokens with their gaps, and the times that the encoder may see."""
        if not self.reads_times:
            return tokens, None
        times = ClickTimes.unknown(tokens) if times is None else times
        if training and self.hidden_times:
            times = times.hidden(self.hidden_times)
        return (tokens if self.gap is None else tokens + self.gap(times)), times

    def _interest_queries(
        self, interests: tf.Tensor, state: tf.Tensor, profile: tf.Tensor | None, *, training: bool
    ) -> tf.Tensor:
        """One head for all interests; what they have in common, the history's state and the profile, stands beside."""
        shared = state if profile is None else tf.concat([state, profile], axis=-1)  # [n, shared]
        shared = tf.repeat(shared[:, tf.newaxis], interests.shape[1], axis=1)  # [n, interests, shared]
        return self.head(interests, shared, training=training)


class TriggerTower(tf.keras.layers.Layer):
    """The item just clicked -> query vector, for item-to-item recall."""

    def __init__(self, config: ModelConfig, *, parts: int) -> None:
        super().__init__(name="trigger")
        self.head = QueryHead(config, parts=parts, name="trigger_head")

    def call(self, tokens: tf.Tensor, training: bool = False) -> tf.Tensor:
        """float32 [batch, dim], `ItemSide.tokens` of the triggers -> float32 [batch, width]."""
        return self.head(tokens, training=training)
