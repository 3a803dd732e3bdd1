"""Defines the base class of the fusions: modalities, some of them missing, -> one vector and a weight per modality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.fusion.codes import CodeAttention
from recall.model.fusion.masks import drop_modalities
from recall.model.randomness import op_seed


class Fused(NamedTuple):
    """Hold the fused modalities of items."""

    vector: tf.Tensor  # [items, width], or [items, codes, width] with `model.item_codes`
    weights: tf.Tensor | None  # [items, modalities], 0 where missing, else they sum to 1; None without weights


class FusionOutput(NamedTuple):
    """Hold the result of one fusion, before items without modalities and codes are handled."""

    vector: tf.Tensor  # [items, dim], any finite value where everything is missing
    weights: tf.Tensor  # [items, modalities]
    tokens: tf.Tensor  # [items, modalities, dim], the modalities inside the fusion, which codes attend to


class ModalityFusion(tf.keras.layers.Layer):
    """Project each modality to `dim` numbers, mask the missing ones, and fuse them; base of the fusions.

    An item whose modalities are all missing has a learned vector, and weights of 0. In training, modalities are hidden
    at random (`model.fusion.modality_dropout`), so that the model does not depend on a modality that a new item may
    lack. With `model.item_codes` an item has a vector for each code, see `CodeAttention`.

    Args:
      names: names of the modalities, in the order of their tensors.
      config: settings of the model: `dim`, `dropout`, `item_codes` and `fusion` are read.
    """

    def __init__(self, names: Sequence[str], *, config: ModelConfig) -> None:
        super().__init__(name=config.fusion.kind)
        self.names = tuple(names)
        self.modality_dropout = config.fusion.dropout_rate
        self._seed = op_seed()
        self.projections = [tf.keras.layers.Dense(config.dim, name=f"project_{name}") for name in self.names]
        self.codes = CodeAttention(config.item_codes.count, config.dim) if config.item_codes else None
        # Not zeros: `l2_normalize` has no useful gradient there.
        self.absent = self.add_weight(
            name="absent", shape=(config.dim,), initializer=tf.keras.initializers.RandomNormal(stddev=0.05)
        )

    def call(self, parts: Sequence[tf.Tensor], present: tf.Tensor, training: bool = False) -> Fused:
        """Fuse the modalities of items.

        Args:
          parts: per modality float32 [items, its width]; the values of missing modalities are ignored.
          present: bool [items, modalities].
          training: whether modalities are dropped.

        Returns:
          Vectors float32 [items, dim], with codes [items, codes, dim], and weights float32 [items, modalities].
        """
        if training and self.modality_dropout:
            present = drop_modalities(present, self.modality_dropout, seed=self._seed)
        projected = [project(part) for project, part in zip(self.projections, parts, strict=True)]
        states = tf.where(present[..., tf.newaxis], tf.stack(projected, axis=1), 0.0)  # [items, modalities, dim]
        joined = self.fuse(states, present, training=training)
        has_any = tf.reduce_any(present, axis=1, keepdims=True)  # [items, 1]
        vector = tf.where(has_any, joined.vector, self.absent)
        if self.codes is None:
            return Fused(vector, joined.weights)
        vectors, read = self.codes(vector, joined.tokens, present)
        return Fused(vectors, (joined.weights + read) / 2)  # the fusion and the codes have equal parts of a mean vector

    def fuse(self, states: tf.Tensor, present: tf.Tensor, *, training: bool) -> FusionOutput:
        """Fuse projected modalities; each fusion implements it.

        Args:
          states: float32 [items, modalities, dim], 0 where missing.
          present: bool [items, modalities].
          training: whether dropout is on.
        """
        raise NotImplementedError
