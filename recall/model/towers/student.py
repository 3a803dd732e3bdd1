"""The student: a user tower that costs little to ask, for the online side."""

from __future__ import annotations

import tensorflow as tf

from recall.config.model import ModelConfig, StudentConfig
from recall.model.towers.history_encoders import HISTORY_ENCODERS
from recall.model.towers.query import QueryHead


class StudentTower(tf.keras.layers.Layer):
    """One pooling layer over the tokens of the clicks, the profile beside it, and an MLP of its own.

    Tokens and profile are those that the large tower reads; nothing flows back into them, so that the student owns a
    few dense layers and no embedding table. Times of clicks and further histories it does not see. Its queries are as
    wide as the large tower's, with the 1 for appeal, and ask the same index.

    Args:
      config: the model's, for the width and the form of queries.
      student: its own settings.
      parts: halves of a query, 2 with `gate: concat`.
      max_length: longest history that it is asked about.
    """

    def __init__(self, config: ModelConfig, student: StudentConfig, *, parts: int, max_length: int) -> None:
        super().__init__(name="student")
        small = config.model_copy(update={"hidden": student.hidden, "dropout": student.dropout})
        self.history = HISTORY_ENCODERS[student.kind](small, max_length=max_length)
        self.head = QueryHead(small, parts=parts, name="student_head")

    def call(
        self, profile: tf.Tensor | None, tokens: tf.Tensor, lengths: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Queries after the whole history.

        Args:
          profile: float32 [batch, profile], `UserTower.profile_of`; None where users have no features.
          tokens: float32 [batch, time, dim], `ItemSide.tokens` of the clicks, oldest first, padded at the end.
          lengths: int [batch], clicks that are real.
          training: whether dropout is on.

        Returns:
          float32 [batch, width].
        """
        state = self.history.last_state(tf.stop_gradient(tokens), lengths, training=training)  # [batch, dim]
        return self._query(state, profile, training=training)

    def at_positions(
        self,
        profile: tf.Tensor | None,
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
        states = self.history.states(tf.stop_gradient(tokens), lengths, training=training)  # [batch, time, dim]
        places = tf.stack([users, tf.maximum(positions, 0)], axis=1)  # [queries, 2]
        state = self.history.or_empty(tf.gather_nd(states, places), positions)  # [queries, dim]
        return self._query(state, None if profile is None else tf.gather(profile, users), training=training)

    def _query(self, state: tf.Tensor, profile: tf.Tensor | None, *, training: bool) -> tf.Tensor:
        return self.head(state, None if profile is None else tf.stop_gradient(profile), training=training)
