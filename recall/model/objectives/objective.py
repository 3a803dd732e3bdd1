"""Defines an objective: it reads an encoded batch and gives weighted terms of the loss.

`listed.py` lists the objectives of a model; `retrieval.py`, `alignment.py`, `category.py`, `student.py` each hold one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.batches.dataset import Batch
from recall.model.batches.seen import Seen
from recall.model.batches.targets import RankedAgainst, Targets
from recall.model.layers.features import Features
from recall.model.towers.item import ItemVectors

Asking = Literal["user", "trigger"]
"""The tower whose queries an objective reads."""
Terms = dict[str, tf.Tensor]


class Ranking(NamedTuple):
    """Hold what queries are trained to rank, and how scores become logits."""

    candidates: RankedAgainst
    seen: Seen | None  # of the queries' users, where the model masks it
    temperature: tf.Tensor  # float32 scalar, what inner products are divided by
    config: ModelConfig
    # Of several workers: the part of the loss that queries of some weights, [targets], have; a worker alone has all.
    share: Callable[[tf.Tensor], tf.Tensor] | None = None


class OwnNegatives(NamedTuple):
    """Hold negatives of each target alone, as of its moment."""

    vectors: tf.Tensor  # float32 [targets, most, width]
    is_there: tf.Tensor  # bool [targets, most]
    log_q: tf.Tensor  # float32 [targets, most], up to a constant
    target_log_q: tf.Tensor  # float32 [targets], likewise


class EncodedBatch(NamedTuple):
    """Hold a batch with everything that objectives read of it; each item and each query is encoded once.

    Attributes:
      batch: the batch itself, of either layout.
      targets: the clicks to predict.
      features: of the items that the targets are ranked against, as the catalogue has them, [candidates, ...].
      known: bool [candidates], whether the id of an item is trained and was not hidden.
      vectors: of the same items, as the step shows them.
      candidates: these items, of this worker.
      own: int32 [targets], place of each target among these items.
      ranking: the candidates of all workers, which begin with the items above.
      ranked: vectors of the candidates of all workers.
      history: float32 [batch, time, dim], tokens of the click histories; None where no user tower reads them.
      user_queries: float32 [targets, width], or [targets, interests, width]; None where no objective needs them.
      trigger_queries: float32 [targets, width]; None where no objective needs them.
      refused: what was shown beside the targets and not clicked; None where no objective needs it.
      training: whether dropout is on.
      gathered: rows of this worker -> rows of all workers, for any number of tensors.
      workers: how many workers train together.
    """

    batch: Batch
    targets: Targets
    features: Features
    known: tf.Tensor
    vectors: ItemVectors
    candidates: RankedAgainst
    own: tf.Tensor
    ranking: Ranking
    ranked: ItemVectors
    history: tf.Tensor | None
    user_queries: tf.Tensor | None
    trigger_queries: tf.Tensor | None
    refused: OwnNegatives | None
    training: bool
    gathered: Callable[..., list[tf.Tensor]]
    workers: int

    def asked(self, asking: Asking) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the queries of a tower, and the weight of each, float32 [targets]: 0 where a trigger is missing."""
        targets = self.targets
        if asking == "user":
            return self.user_queries, targets.weights
        return self.trigger_queries, tf.where(targets.triggers >= 0, targets.weights, 0.0)


class Objective(Protocol):
    """Give terms of the loss of an encoded batch.

    Attributes:
      needs: the towers whose queries it reads; an encoded batch holds only needed queries.
    """

    needs: frozenset[Asking]

    def terms(self, encoded: EncodedBatch) -> Terms:
        """Return weighted terms of the loss by name, float32 scalars; terms of one name add up."""
