"""Fuses modalities by a weighted sum, with a softmax of learned scores as weights."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.fusion.contract import FusionOutput, ModalityFusion
from recall.model.fusion.masks import masked_softmax


class WeightedSum(ModalityFusion):
    """Sum the modalities x_m of an item with the weights softmax_m(b_m + s_m . x_m).

    b_m is the weight of a modality in general, s_m . x_m depends on its content in this item. This is the gate of a
    mixture of experts (Jacobs et al., Neural Computation 1991), where the score of each expert depends on its own
    output alone. b and s start at zero: all weights are then equal.
    """

    def __init__(self, names: Sequence[str], *, config: ModelConfig) -> None:
        super().__init__(names, config=config)
        self.score = self.add_weight(name="score", shape=(len(names), config.dim), initializer="zeros")
        self.bias = self.add_weight(name="bias", shape=(len(names),), initializer="zeros")

    def fuse(self, states: tf.Tensor, present: tf.Tensor, *, training: bool) -> FusionOutput:
        """Sum the weighted modalities of items; shapes as in the base class."""
        del training
        scores = tf.reduce_sum(states * self.score, axis=-1) + self.bias  # [items, modalities]
        weights = masked_softmax(scores, present)
        return FusionOutput(tf.einsum("im,imd->id", weights, states), weights, states)
