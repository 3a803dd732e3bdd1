"""Asks the user tower: for the clicks of a training batch, and for users at serving time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from recall.data.further_histories import PREFIX
from recall.model.batches.dataset import Batch
from recall.model.batches.targets import Targets
from recall.model.content_term.term import split_tokens
from recall.model.layers.features import Features, FeatureTable
from recall.model.layers.history_time import ClickTimes
from recall.model.towers.history_encoders import lengths_of
from recall.model.towers.history_fusion import FurtherTokens
from recall.model.towers.query import UserTower
from recall.model.towers.student import StudentTower


class UserSide:
    """Join a user tower with the table of users and the further histories.

    Args:
      tower: makes the queries.
      table: features of users, with a row for unknown ones.
      vocabularies: names of the further histories whose items are not the catalogue's.
    """

    def __init__(self, tower: UserTower, table: FeatureTable, *, vocabularies: Sequence[str]) -> None:
        self.tower, self.table = tower, table
        self.further: tuple[str, ...] = tower.fusion.names if tower.fusion else ()
        self.shared = tuple(name for name in self.further if name not in vocabularies)

    def features(self, users: tf.Tensor | Features) -> Features:
        """Return features of users: of int32 [batch] rows of the table, or the given features."""
        return users if isinstance(users, dict) else self.table.gather(users)

    def queries(
        self,
        users: tf.Tensor | Features,
        tokens: tf.Tensor,
        lengths: tf.Tensor,
        *,
        times: ClickTimes | None,
        rows: Mapping[str, tf.Tensor],
        shared: Mapping[str, tf.Tensor],
        training: bool = False,
    ) -> tf.Tensor:
        """Return queries after whole histories.

        Args:
          users: int32 [batch], rows of the table, or features of users.
          tokens: float32 [batch, time, dim] of the clicked items, oldest first, padded at the end.
          lengths: int32 [batch], clicks that are real.
          times: when they were clicked; None where that is unknown.
          rows: by name of each further history, int32 [batch, time] item rows or codes, padded with -1.
          shared: by name of each history of the catalogue's items, float32 [batch, time, dim] tokens.
          training: whether dropout is on.

        Returns:
          float32 [batch, width], or [batch, interests, width].
        """
        further = self._further_tokens(rows, shared)
        return self.tower(self.features(users), tokens, lengths, times=times, further=further, training=training)

    def batch_queries(
        self,
        batch: Batch,
        targets: Targets,
        tokens: tf.Tensor,
        shared: Mapping[str, tf.Tensor],
        *,
        training: bool,
    ) -> tf.Tensor:
        """Return a query for each target of a batch of either layout, which sees only earlier clicks."""
        if "history" in batch:
            lengths = lengths_of(batch["history"])
            times = ClickTimes.before_query(batch["time_ms"][:, tf.newaxis] - batch["history_time_ms"], lengths)
            rows = {name: batch[PREFIX + name] for name in self.further}
            return self.queries(
                batch["user"], tokens, lengths, times=times, rows=rows, shared=shared, training=training
            )
        return self.tower.at_positions(
            self.table.gather(batch["user"]),
            tokens,
            lengths_of(batch["items"]),
            users=targets.owners,
            positions=targets.before,
            times=ClickTimes.inside_sequences(batch["time_ms"]),
            training=training,
        )

    def student_queries(
        self, student: StudentTower, users: tf.Tensor | Features, tokens: tf.Tensor, lengths: tf.Tensor
    ) -> tf.Tensor:
        """Return the queries of a student after whole histories, float32 [batch, width]; arguments as of `queries`."""
        return student(self.tower.profile_of(self.features(users)), tokens, lengths)

    def batch_student_queries(
        self, student: StudentTower, batch: Batch, targets: Targets, tokens: tf.Tensor, *, training: bool
    ) -> tf.Tensor:
        """Return the query of a student for each target of a batch of either layout, float32 [targets, width]."""
        profile = self.tower.profile_of(self.table.gather(batch["user"]))
        if "history" in batch:
            return student(profile, tokens, lengths_of(batch["history"]), training=training)
        return student.at_positions(
            profile,
            tokens,
            lengths_of(batch["items"]),
            users=targets.owners,
            positions=targets.before,
            training=training,
        )

    def _further_tokens(self, rows: Mapping[str, tf.Tensor], shared: Mapping[str, tf.Tensor]) -> FurtherTokens | None:
        """Return tokens and lengths of all further histories: of the catalogue's items, and of own vocabularies."""
        if self.tower.fusion is None:
            return None
        own = {name: table(tf.maximum(rows[name], 0)) for name, table in self.tower.fusion.tables.items()}
        found = {name: split_tokens(tokens, self.tower.dim)[0] for name, tokens in (*shared.items(), *own.items())}
        return {name: (tokens, lengths_of(rows[name])) for name, tokens in found.items()}
