"""Finds the negatives of each example alone: what was shown beside its click and not clicked."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from recall.data.examples import REFUSED
from recall.model.batches.dataset import Batch
from recall.model.batches.targets import Targets
from recall.model.towers.evidence import TOTALS


class Refused(NamedTuple):
    """Hold refused items, each as of the click that it was shown beside."""

    rows: tf.Tensor  # int32 [targets, most], 0 where there is none
    times_ms: tf.Tensor  # int64 [targets, most]
    is_there: tf.Tensor  # bool [targets, most]

    @classmethod
    def of(cls, batch: Batch, targets: Targets, *, most: int) -> Refused:
        """Take the nearest `most` refusals of a batch of layout click; without room for any there are none."""
        rows = batch[REFUSED][:, :most]
        times_ms = tf.repeat(targets.times_ms[:, tf.newaxis], tf.shape(rows)[1], axis=1)
        # Padding points at the target: the optimizer of the tables would move a row that only padding names.
        return cls(tf.where(rows >= 0, rows, targets.items[:, tf.newaxis]), times_ms, rows >= 0)


def log_exposures(posterior: tf.Tensor) -> tf.Tensor:
    """Return the log of 1 + exposures of items, float32 [items]: how often a session draws them, up to a constant.

    Of the half-lives of the fresh evidence the middle one counts, and without fresh evidence the totals.

    Args:
      posterior: float32 [items, width], as `AsOfPosterior` gives it.
    """
    half_lives = (posterior.shape[1] - TOTALS) // 3
    column = TOTALS + 3 * (half_lives // 2) if half_lives else 0
    return tf.math.log1p(posterior[:, column])
