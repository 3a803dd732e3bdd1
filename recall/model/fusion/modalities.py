"""Turns encoded features into one tensor per modality, and fuses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from recall.data.features.table_encoder import EncodedColumn
from recall.model.fusion.contract import Fused, ModalityFusion
from recall.model.layers.features import FeatureInput, Features, is_present


class FusedModalities(tf.keras.layers.Layer):
    """Embed each modality by a `FeatureInput`, and fuse them.

    A modality is present if any of its columns is. Inside a present modality a missing value has its replacement: the
    mean of a number, or the row of a missing code.

    Attributes:
      modalities: names of the modalities.

    Args:
      groups: modality -> its columns.
      fusion: the fusion of these modalities, in this order.
      dim: width of embeddings and projected vectors.
      name: name of the layer and, with the name of a column, of its tables.
    """

    def __init__(
        self, groups: Mapping[str, Sequence[EncodedColumn]], *, fusion: ModalityFusion, dim: int, name: str
    ) -> None:
        super().__init__(name=name)
        self.modalities = tuple(groups)
        self.inputs = [FeatureInput(columns, dim=dim, name=name) for columns in groups.values()]
        self.fusion = fusion

    def fused(self, features: Features, *, training: bool = False) -> Fused:
        """Fuse features [items]: vectors float32 [items, dim] and weights float32 [items, modalities]."""
        return self(features, training=training)

    def call(self, features: Features, training: bool = False) -> Fused:
        """Fuse features, see `fused`."""
        parts = [part(features) for part in self.inputs]  # [items, width of the modality] each
        return self.fusion(parts, self.present(features), training=training)

    def present(self, features: Features) -> tf.Tensor:
        """Mark the modalities that items have: bool [items, modalities]."""
        found = [
            tf.stack([is_present(column, features[column.name]) for column in part.columns], axis=1)
            for part in self.inputs
        ]  # [items, columns of the modality] each
        return tf.stack([tf.reduce_any(columns, axis=1) for columns in found], axis=1)
