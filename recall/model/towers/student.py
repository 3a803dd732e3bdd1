"""Computes query vectors by the student, a small user tower with low latency: `model.student`."""

from __future__ import annotations

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.config.objectives import StudentConfig
from recall.model.content_term.term import before_last, content_interest, interest_at, split_tokens
from recall.model.towers.history_encoders import HISTORY_ENCODERS
from recall.model.towers.query import QueryHead


class StudentTower(tf.keras.layers.Layer):
    """Pool the tokens of the clicks, and turn the state and the profile into a query vector.

    The student reads the tokens and the profile of the large tower without a gradient to them, so that it has a few
    dense layers of its own and no embedding table. It reads neither times of clicks nor further histories. Its queries
    have the width of the large tower's, including the 1 for the appeal, and search the same index.

    Args:
      config: settings of the model, for the width and the form of queries.
      student: settings of the student.
      parts: halves of a query, 2 with `gate: concat`, else 1.
      max_length: longest history.
    """

    def __init__(self, config: ModelConfig, student: StudentConfig, *, parts: int, max_length: int) -> None:
        super().__init__(name="student")
        self.dim = config.dim
        small = config.model_copy(update={"hidden": student.hidden, "dropout": student.dropout})
        self.history = HISTORY_ENCODERS[student.kind](small, max_length=max_length)
        self.head = QueryHead(small, parts=parts, name="student_head")

    def call(
        self, profile: tf.Tensor | None, tokens: tf.Tensor, lengths: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Compute queries after the whole history.

        Args:
          profile: float32 [batch, profile], `UserTower.profile_of`; None if users have no features.
          tokens: float32 [batch, time, dim], `ItemSide.tokens` of the clicks, oldest first, padded at the end.
          lengths: int [batch], number of real entries.
          training: whether dropout is on.

        Returns:
          float32 [batch, width].
        """
        tokens, contents = split_tokens(tf.stop_gradient(tokens), self.dim)
        state = self.history.last_state(tokens, lengths, training=training)  # [batch, dim]
        queries = self._query(state, profile, training=training)
        return queries if contents is None else before_last(queries, content_interest(contents, lengths))

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
        """Compute queries inside sequences: query j is user `users[j]` after position `positions[j]`.

        Args:
          profile: as in `call`.
          tokens: as in `call`.
          lengths: as in `call`.
          users: int [queries], rows of the batch.
          positions: int [queries], positions in the sequences; -1 is before the first click.
          training: whether dropout is on.

        Returns:
          float32 [queries, width].
        """
        tokens, contents = split_tokens(tf.stop_gradient(tokens), self.dim)
        states = self.history.states(tokens, lengths, training=training)  # [batch, time, dim]
        places = tf.stack([users, tf.maximum(positions, 0)], axis=1)  # [queries, 2]
        state = self.history.or_empty(tf.gather_nd(states, places), positions)  # [queries, dim]
        queries = self._query(state, None if profile is None else tf.gather(profile, users), training=training)
        if contents is None:
            return queries
        return before_last(queries, interest_at(contents, users=users, positions=positions))

    def _query(self, state: tf.Tensor, profile: tf.Tensor | None, *, training: bool) -> tf.Tensor:
        return self.head(state, None if profile is None else tf.stop_gradient(profile), training=training)
