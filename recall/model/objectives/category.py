"""Trains meta vectors and queries to tell their category: `model.category_head`."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from recall.config.model import CategoryHeadConfig, ModelConfig
from recall.data.features.table_encoder import EncodedColumn
from recall.data.features.vocabulary import FIRST_CODE
from recall.model.content_term.term import without_before_last
from recall.model.layers.features import Features
from recall.model.objectives.objective import Asking, EncodedBatch, Terms
from recall.model.towers.item import ItemVectors


class CategoryHead(tf.keras.layers.Layer):
    """Classify vectors of the meta tower's space by category, as a second task beside retrieval (multi-task learning).

    The content of an item contains its category, so that the classifier alone is easy. Its effect is on the space:
    items of a category and queries for them get closer, so that lists keep to the category.

    Args:
      column: the column of a `category` or `tags` feature.
      settings: weights of the two losses.
      dim: width of a meta vector.
      asking: the towers whose queries are to name the category of what is clicked.
    """

    def __init__(
        self, column: EncodedColumn, *, settings: CategoryHeadConfig, dim: int, asking: Sequence[Asking] = ("user",)
    ) -> None:
        super().__init__(name="category_head")
        self._asking = tuple(asking) if settings.query_weight else ()
        self.needs: frozenset[Asking] = frozenset(self._asking)
        self._column, self._settings, self._dim = column, settings, dim
        self._values = max(1, column.size - FIRST_CODE)
        self.logits = tf.keras.layers.Dense(self._values, name="category")

    @classmethod
    def of(
        cls, config: ModelConfig, columns: Sequence[EncodedColumn], *, asking: Sequence[Asking]
    ) -> CategoryHead | None:
        """Make the head that `model.category_head` asks for, if it does."""
        settings = config.category_head
        if settings is None:
            return None
        column = next(column for column in columns if column.name == settings.feature)
        return cls(column, settings=settings, dim=config.dim, asking=asking)

    def build_logits(self) -> None:
        """Create the weights of the classifier."""
        self.logits(tf.zeros([1, self._dim]))

    def terms(self, encoded: EncodedBatch) -> Terms:
        """Return the weighted losses of the items and of each tower's queries."""
        of_items = self.targets(encoded.features)  # [candidates, values]
        terms = self.item_terms(encoded.vectors, of_items)
        clicked = tf.gather(of_items, encoded.own)  # [targets, values]
        for asking in self._asking:
            queries, weights = encoded.asked(asking)
            if encoded.vectors.likeness is not None:
                queries = without_before_last(queries, encoded.vectors.likeness.shape[-1])
            terms |= self.query_terms(asking, queries, clicked, weights=weights)
        return terms

    def targets(self, features: Features) -> tf.Tensor:
        """Return the target distribution of items: equal parts for the values of an item, zeros for no value.

        Args:
          features: as from `FeatureTable.gather` for [items] rows; missing and out-of-vocabulary codes are no value.

        Returns:
          float32 [items, values].
        """
        codes = features[self._column.name]  # [items] of a category, [items, most tags] of tags
        codes = codes[:, tf.newaxis] if codes.shape.rank == 1 else codes
        hot = tf.one_hot(codes - FIRST_CODE, self._values)  # [items, tags, values]; zeros where the code is negative
        values = tf.reduce_max(hot, axis=1)  # a tag named twice counts once
        return tf.math.divide_no_nan(values, tf.reduce_sum(values, axis=1, keepdims=True))

    def item_terms(self, vectors: ItemVectors, targets: tf.Tensor) -> Terms:
        """Return the weighted loss of items' meta vectors, by name; empty at weight 0."""
        if not self._settings.weight:
            return {}
        return {"category": self._settings.weight * self.loss(vectors.meta, targets)}

    def query_terms(self, asked_by: str, queries: tf.Tensor, targets: tf.Tensor, *, weights: tf.Tensor) -> Terms:
        """Return the weighted loss of queries against the category of the clicked item, by name; empty at weight 0.

        Args:
          asked_by: prefix of the name.
          queries: float32 [targets, width]. The last dimension is the factor of the appeal; the `dim` dimensions before
            it are matched with the meta vector, whatever `gate` is.
          targets: float32 [targets, values], target distribution of the clicked items.
          weights: float32 [targets], weight of each click.
        """
        if not self._settings.query_weight:
            return {}
        facing_meta = queries[:, -1 - self._dim : -1]  # [targets, dim]
        return {f"{asked_by}_category": self._settings.query_weight * self.loss(facing_meta, targets, weights=weights)}

    def loss(self, vectors: tf.Tensor, targets: tf.Tensor, *, weights: tf.Tensor | None = None) -> tf.Tensor:
        """Compute the mean cross entropy over the vectors that have a target.

        Args:
          vectors: float32 [n, dim], vectors of the meta tower's space.
          targets: float32 [n, values], as from `targets`.
          weights: float32 [n], weight of each vector; default: equal weights.

        Returns:
          float32 scalar, the mean of -sum_v t_v log softmax(W x + b)_v; 0 where nothing has a target.
        """
        known = tf.cast(tf.reduce_any(targets > 0, axis=1), tf.float32)  # [n]
        weights = known if weights is None else known * weights
        entropy = tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=self.logits(vectors))  # [n]
        return tf.math.divide_no_nan(tf.reduce_sum(weights * entropy), tf.reduce_sum(weights))
