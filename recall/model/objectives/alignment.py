"""Aligns the meta vectors of items with their behaviour vectors."""

from __future__ import annotations

import tensorflow as tf

from recall.config.objectives import LossConfig
from recall.model.objectives.objective import Asking, EncodedBatch, Terms


class Alignment:
    """Align the clicked items of a batch, where the item side has both towers.

    Args:
      loss: margin and negatives of the triplet loss.
      weight: of the term.
    """

    needs: frozenset[Asking] = frozenset()

    def __init__(self, loss: LossConfig, *, weight: float) -> None:
        self._loss, self._weight = loss, weight

    def terms(self, encoded: EncodedBatch) -> Terms:
        """Return the weighted loss as `triplet`; nothing where a tower is missing."""
        behaviour, meta = encoded.vectors.behaviour, encoded.vectors.meta
        if behaviour is None or meta is None:
            return {}
        pairs = [*(tf.gather(part, encoded.own) for part in (behaviour, meta, encoded.known)), encoded.targets.items]
        # Each worker sees the pairs of all, as one worker would, and has its part of the sum.
        behaviour, meta, known, items = encoded.gathered(*pairs)
        value = triplet_alignment(
            behaviour,
            meta,
            items=items,
            known=known,
            margin=self._loss.margin,
            negatives=self._loss.triplet_negatives,
        )
        return {"triplet": self._weight / encoded.workers * value}


def triplet_alignment(
    behaviour: tf.Tensor,
    meta: tf.Tensor,
    *,
    items: tf.Tensor,
    known: tf.Tensor,
    margin: float,
    negatives: str = "all",
    limit: int = 1024,
) -> tf.Tensor:
    """Pull an item's meta vector to its behaviour vector and away from other items' behaviour vectors.

    mean_i [margin - m_i . b_i + m_i . b_j]_+ over in-batch j (FaceNet, Schroff et al., CVPR 2015, eq. 2, with the
    content side as anchor). Departure: the behaviour vector is a fixed target (stop gradient), so that content
    follows behaviour and never the other way round.

    Args:
      behaviour: float32 [batch, dim]; compared by cosine.
      meta: float32 [batch, dim]; compared by cosine.
      items: int [batch]; pairs of the same item are no negatives.
      known: bool [batch]; rows whose id was hidden have no behaviour to align with and are left out.
      margin: in cosine, >= 0.
      negatives: `all` averages over the others, `hard` takes the nearest.
      limit: at most this many rows of the batch are compared (they come shuffled).

    Returns:
      float32 scalar; 0 where the batch holds no pair.
    """
    behaviour, meta, items, known = (part[:limit] for part in (tf.stop_gradient(behaviour), meta, items, known))
    behaviour, meta = tf.math.l2_normalize(behaviour, axis=1), tf.math.l2_normalize(meta, axis=1)
    similarity = tf.matmul(meta, behaviour, transpose_b=True)  # [rows, rows]
    violation = tf.nn.relu(margin - tf.linalg.diag_part(similarity)[:, tf.newaxis] + similarity)  # [rows, rows]
    is_pair = (items[:, tf.newaxis] != items[tf.newaxis, :]) & known[:, tf.newaxis] & known[tf.newaxis, :]
    violation = tf.where(is_pair, violation, 0.0)
    if negatives == "hard":
        rows = tf.cast(tf.reduce_any(is_pair, axis=1), tf.float32)  # [rows]
        return tf.math.divide_no_nan(tf.reduce_sum(tf.reduce_max(violation, axis=1)), tf.reduce_sum(rows))
    return tf.math.divide_no_nan(tf.reduce_sum(violation), tf.reduce_sum(tf.cast(is_pair, tf.float32)))
