"""The category head: meta vectors that can be told apart by category, and queries that say which one they are after."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from recall.config.model import CategoryHeadConfig, ModelConfig
from recall.data.features.table_encoder import EncodedColumn
from recall.data.features.vocabulary import FIRST_CODE
from recall.model.layers.features import Features
from recall.model.towers.item import ItemVectors


class CategoryHead(tf.keras.layers.Layer):
    """A linear classifier over vectors of the meta tower's space, trained beside retrieval (multi-task learning).

    An item's content holds its category, so that the classifier is easily satisfied; what it does is to shape the
    space: items of a category come to lie on one side, and queries for them too, which makes lists keep to it.

    Args:
      column: of a `category` or `tags` feature.
      settings: weights of the two losses.
      dim: width of a meta vector.
    """

    def __init__(self, column: EncodedColumn, *, settings: CategoryHeadConfig, dim: int) -> None:
        super().__init__(name="category_head")
        self._column, self._settings, self._dim = column, settings, dim
        self._values = max(1, column.size - FIRST_CODE)
        self.logits = tf.keras.layers.Dense(self._values, name="category")

    @classmethod
    def of(cls, config: ModelConfig, columns: Sequence[EncodedColumn]) -> CategoryHead | None:
        """The one that `model.category_head` asks for, if it does."""
        settings = config.category_head
        if settings is None:
            return None
        column = next(column for column in columns if column.name == settings.feature)
        return cls(column, settings=settings, dim=config.dim)

    def targets(self, features: Features) -> tf.Tensor:
        """What the head is to say of items: their values in equal parts, or zeros for none.

        Args:
          features: of `FeatureTable.gather` for [items] rows; missing and out-of-vocabulary codes are no value.

        Returns:
          float32 [items, values].
        """
        codes = features[self._column.name]  # [items] of a category, [items, most tags] of tags
        codes = codes[:, tf.newaxis] if codes.shape.rank == 1 else codes
        hot = tf.one_hot(codes - FIRST_CODE, self._values)  # [items, tags, values]; a negative place is all zeros
        values = tf.reduce_max(hot, axis=1)  # a tag named twice counts once
        return tf.math.divide_no_nan(values, tf.reduce_sum(values, axis=1, keepdims=True))

    def item_terms(self, vectors: ItemVectors, targets: tf.Tensor) -> dict[str, tf.Tensor]:
        """The weighted loss of items' meta vectors, by name; nothing at weight 0."""
        if not self._settings.weight:
            return {}
        return {"category": self._settings.weight * self.loss(vectors.meta, targets)}

    def query_terms(
        self, asked_by: str, queries: tf.Tensor, targets: tf.Tensor, *, weights: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The weighted loss of queries, which are to name the category of what is clicked; nothing at weight 0.

        Args:
          asked_by: goes into the name.
          queries: float32 [targets, width], of which the last dimension is the appeal and the `dim` before it face
            the meta vector, whatever `gate` is.
          targets: float32 [targets, values], of what is clicked.
          weights: float32 [targets].
        """
        if not self._settings.query_weight:
            return {}
        facing_meta = queries[:, -1 - self._dim : -1]  # [targets, dim]
        return {f"{asked_by}_category": self._settings.query_weight * self.loss(facing_meta, targets, weights=weights)}

    def loss(self, vectors: tf.Tensor, targets: tf.Tensor, *, weights: tf.Tensor | None = None) -> tf.Tensor:
        """Mean cross entropy over the vectors that have a target.

        Args:
          vectors: float32 [n, dim], of the meta tower's space.
          targets: float32 [n, values], of `targets`.
          weights: float32 [n], how much each counts; default: all alike.

        Returns:
          float32 scalar, the mean of -sum_v t_v log softmax(W x + b)_v; 0 where nothing has a target.
        """
        known = tf.cast(tf.reduce_any(targets > 0, axis=1), tf.float32)  # [n]
        weights = known if weights is None else known * weights
        entropy = tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=self.logits(vectors))  # [n]
        return tf.math.divide_no_nan(tf.reduce_sum(weights * entropy), tf.reduce_sum(weights))
