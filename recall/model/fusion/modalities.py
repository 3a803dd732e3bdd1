"""Encoded features -> one tensor per modality and whether it is there -> their fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from recall.data.features.table_encoder import EncodedColumn
from recall.model.fusion.contract import Fused, ModalityFusion
from recall.model.layers.features import FeatureInput, Features, is_present


class FusedModalities(tf.keras.layers.Layer):
    """A `FeatureInput` per modality, and the fusion that joins them.

    A modality is present if any of its columns is: inside a group, a missing value is read as its stand-in, the mean
    of a number or the row of a missing code.

    Args:
      groups: modality -> its columns.
      fusion: of modalities of these names, in this order.
      dim: width of embeddings and projected vectors.
      name: of the layer and, with the column's name, of its tables.
    """

    def __init__(
        self, groups: Mapping[str, Sequence[EncodedColumn]], *, fusion: ModalityFusion, dim: int, name: str
    ) -> None:
        super().__init__(name=name)
        self.modalities = tuple(groups)
        self.inputs = [FeatureInput(columns, dim=dim, name=name) for columns in groups.values()]
        self.fusion = fusion

    def fused(self, features: Features, *, training: bool = False) -> Fused:
        """Features [items] -> vectors float32 [items, dim] and weights float32 [items, modalities]."""
        return self(features, training=training)

    def call(self, features: Features, training: bool = False) -> Fused:
        """As `fused`."""
        parts = [part(features) for part in self.inputs]  # [items, width of the modality] each
        return self.fusion(parts, self.present(features), training=training)

    def present(self, features: Features) -> tf.Tensor:
        """Which modalities items have: bool [items, modalities]."""
        found = [
            tf.stack([is_present(column, features[column.name]) for column in part.columns], axis=1)
            for part in self.inputs
        ]  # [items, columns of the modality] each
        return tf.stack([tf.reduce_any(columns, axis=1) for columns in found], axis=1)
