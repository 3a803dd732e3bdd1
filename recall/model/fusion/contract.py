"""What every fusion promises: modalities of which some are missing -> one vector, and how much each has to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.fusion.codes import CodeAttention
from recall.model.fusion.masks import drop_modalities


class Fused(NamedTuple):
    """What becomes of the modalities of some items."""

    vector: tf.Tensor  # [items, width], or [items, codes, width] with `model.item_codes`
    weights: tf.Tensor | None  # [items, modalities], 0 where missing, the others sum to 1; None: nothing is weighted


class Joined(NamedTuple):
    """What a fusion makes of modalities, before missing ones and codes are seen to."""

    vector: tf.Tensor  # [items, dim], of any finite value where everything is missing
    weights: tf.Tensor  # [items, modalities]
    tokens: tf.Tensor  # [items, modalities, dim], the modalities as the fusion has read them, for codes to look at


class ModalityFusion(tf.keras.layers.Layer):
    """Base of the fusions: each modality is projected to `dim` numbers, a missing one is masked and never read.

    An item whose modalities are all missing has a learned vector, and weights of 0. In training, modalities are
    hidden at random (`model.fusion.modality_dropout`), so that none is relied on that a new item may lack. With
    `model.item_codes` an item has a vector for each code, see `CodeAttention`.

    Args:
      names: of the modalities, in the order of their tensors.
      config: `dim`, `dropout`, `item_codes` and the settings of `fusion`.
    """

    def __init__(self, names: Sequence[str], *, config: ModelConfig) -> None:
        super().__init__(name=config.fusion.kind)
        self.names = tuple(names)
        self.modality_dropout = config.fusion.dropout_rate
        self.projections = [tf.keras.layers.Dense(config.dim, name=f"project_{name}") for name in self.names]
        self.codes = CodeAttention(config.item_codes.count, config.dim) if config.item_codes else None
        # Not zeros: `l2_normalize` has no useful gradient there.
        self.absent = self.add_weight(
            name="absent", shape=(config.dim,), initializer=tf.keras.initializers.RandomNormal(stddev=0.05)
        )

    def call(self, parts: Sequence[tf.Tensor], present: tf.Tensor, training: bool = False) -> Fused:
        """Joins the modalities of items.

        Args:
          parts: per modality float32 [items, its width]; what stands where it is missing means nothing.
          present: bool [items, modalities].
          training: whether modalities are dropped.

        Returns:
          Vectors float32 [items, dim], of each code [items, codes, dim], and weights float32 [items, modalities].
        """
        if training and self.modality_dropout:
            present = drop_modalities(present, self.modality_dropout)
        projected = [project(part) for project, part in zip(self.projections, parts, strict=True)]
        states = tf.where(present[..., tf.newaxis], tf.stack(projected, axis=1), 0.0)  # [items, modalities, dim]
        joined = self.fuse(states, present, training=training)
        has_any = tf.reduce_any(present, axis=1, keepdims=True)  # [items, 1]
        vector = tf.where(has_any, joined.vector, self.absent)
        if self.codes is None:
            return Fused(vector, joined.weights)
        vectors, read = self.codes(vector, joined.tokens, present)
        return Fused(vectors, (joined.weights + read) / 2)  # half of a mean vector is the fusion's, half the codes'

    def fuse(self, states: tf.Tensor, present: tf.Tensor, *, training: bool) -> Joined:
        """The fusion itself.

        Args:
          states: float32 [items, modalities, dim], 0 where missing.
          present: bool [items, modalities].
          training: whether dropout is on.
        """
        raise NotImplementedError
