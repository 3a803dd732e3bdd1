"""Computes query vectors: user tower (u2i) and trigger tower (i2i), both in the space of item vectors."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.config.values import HistoryTime
from recall.data.features.table_encoder import EncodedColumn
from recall.model.content_term.term import before_last, content_interest, interest_at, split_tokens
from recall.model.layers.features import FeatureInput, Features, dense_stack
from recall.model.layers.history_time import ClickTimes, GapEmbedding
from recall.model.randomness import dropout_layer, op_seed
from recall.model.towers.appeal import with_appeal_factor
from recall.model.towers.history_encoders import HISTORY_ENCODERS
from recall.model.towers.history_fusion import FurtherTokens, HistoryFusion
from recall.model.towers.interests import INTEREST_EXTRACTORS, InterestExtractor


class QueryHead(tf.keras.layers.Layer):
    """Turn a state (and a profile) into a query vector by a residual MLP; the last dimension is 1, for the appeal.

    The query has unit length unless `similarity: dot`. With parts = 2 (`gate: concat`) each half has unit length: the
    first is matched with b, the second with (1 - g) m.
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
        self.dropout = dropout_layer(config.dropout)

    def call(self, state: tf.Tensor, profile: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """Compute queries from states, float32 [..., dim], and profiles [..., profile]: [..., parts * dim + 1]."""
        inputs = state if profile is None else tf.concat([state, profile], axis=-1)
        output = self.stack(self.dropout(inputs, training=training), training=training)
        output += tf.concat([state] * self.parts, axis=-1) if self.shortcut is None else self.shortcut(state)
        if self.unit_length:
            halves = tf.split(output, self.parts, axis=-1)
            output = tf.concat([tf.math.l2_normalize(half, axis=-1) for half in halves], axis=-1)
        return with_appeal_factor(output)


class UserTower(tf.keras.layers.Layer):
    """Turn profiles and histories into query vectors, with `model.interests` several per user.

    Args:
      columns: encoded columns of the users.
      config: settings of the model.
      parts: halves of a query, 2 with `gate: concat`, else 1.
      max_length: longest history.
      history_time: which times of clicks are read: gaps, ages, both or none.
      fusion: fusion with the further histories, if there are some.
    """

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
        self.dim = config.dim
        self.profile = FeatureInput(columns, dim=config.dim, name="profile") if columns else None
        self.reads_times = history_time != "none"
        self.hidden_times = config.history_time_hidden
        self._times_seed = op_seed()
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
        """Compute queries after the whole history.

        Args:
          features: features of `FeatureTable.gather` for [batch] users.
          tokens: float32 [batch, time, dim], `ItemSide.tokens` of the history, oldest first, padded at the end; with a
            content term [batch, time, dim + content dim].
          lengths: int [batch], number of real entries.
          times: times of the clicks; None if they are unknown.
          further: further histories of the users, if the model has a fusion.
          training: whether dropout is on.

        Returns:
          float32 [batch, width], or [batch, interests, width] with several interests.
        """
        tokens, contents = split_tokens(tokens, self.dim)
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
            queries = self._interest_queries(interests, state, profile, training=training)
        else:
            queries = self.head(state, profile, training=training)
        return queries if contents is None else before_last(queries, content_interest(contents, lengths))

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
        """Compute queries inside sequences: query j is user `users[j]` after position `positions[j]`.

        Args:
          features: as in `call`.
          tokens: as in `call`.
          lengths: as in `call`.
          users: int [queries], rows of the batch.
          positions: int [queries], positions in the sequences; -1 is before the first click.
          times: as in `call`.
          training: whether dropout is on.

        Returns:
          float32 [queries, width], or [queries, interests, width].
        """
        tokens, contents = split_tokens(tokens, self.dim)
        tokens, times = self._timed(tokens, times, training=training)
        states = self.history.states(tokens, lengths, times=times, training=training)  # [batch, time, dim]
        places = tf.stack([users, tf.maximum(positions, 0)], axis=1)  # [queries, 2]
        chosen = self.history.or_empty(tf.gather_nd(states, places), positions)  # [queries, dim]
        profile = tf.gather(self.profile(features), users) if self.profile else None
        if self.interests:
            inside = self.interests.at_every_position(self.history.entries(tokens, states))
            interests = self.interests.or_empty(tf.gather_nd(inside, places), positions)  # [queries, interests, dim]
            queries = self._interest_queries(interests, chosen, profile, training=training)
        else:
            queries = self.head(chosen, profile, training=training)
        if contents is None:
            return queries
        return before_last(queries, interest_at(contents, users=users, positions=positions))

    def profile_of(self, features: Features) -> tf.Tensor | None:
        """Convert features of users, [batch], to the dense input beside the history: float32 [batch, profile]."""
        return self.profile(features) if self.profile else None

    def _timed(
        self, tokens: tf.Tensor, times: ClickTimes | None, *, training: bool
    ) -> tuple[tf.Tensor, ClickTimes | None]:
        """Add the vectors of gaps to the tokens, and return the times that the encoder reads."""
        if not self.reads_times:
            return tokens, None
        times = ClickTimes.unknown(tokens) if times is None else times
        if training and self.hidden_times:
            times = times.hidden(self.hidden_times, seed=self._times_seed)
        return (tokens if self.gap is None else tokens + self.gap(times)), times

    def _interest_queries(
        self, interests: tf.Tensor, state: tf.Tensor, profile: tf.Tensor | None, *, training: bool
    ) -> tf.Tensor:
        """Apply the head to each interest, with the state of the history and the profile as further inputs."""
        shared = state if profile is None else tf.concat([state, profile], axis=-1)  # [n, shared]
        shared = tf.repeat(shared[:, tf.newaxis], interests.shape[1], axis=1)  # [n, interests, shared]
        return self.head(interests, shared, training=training)


class TriggerTower(tf.keras.layers.Layer):
    """Turn the item just clicked into a query vector, for item-to-item recall."""

    def __init__(self, config: ModelConfig, *, parts: int) -> None:
        super().__init__(name="trigger")
        self.dim = config.dim
        self.head = QueryHead(config, parts=parts, name="trigger_head")

    def call(self, tokens: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Compute queries of triggers: `ItemSide.tokens`, float32 [batch, dim] -> float32 [batch, width]."""
        tokens, contents = split_tokens(tokens, self.dim)
        queries = self.head(tokens, training=training)
        return queries if contents is None else before_last(queries, contents)
