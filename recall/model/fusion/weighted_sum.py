"""Weighted sum: the mean of the modalities, by a softmax of learned scores."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.fusion.contract import Joined, ModalityFusion
from recall.model.fusion.masks import masked_softmax


class WeightedSum(ModalityFusion):
    """softmax_m(b_m + s_m . x_m) over the modalities that an item has; sum of the x_m by it.

    b_m says what a modality is worth in general, s_m reads from its own content what it is worth for this item. The
    gate of a mixture of experts (Jacobs et al., Neural Computation 1991), where each expert's score sees its own
    output alone. Both start at zero: all weights are then equal.
    """

    def __init__(self, names: Sequence[str], *, config: ModelConfig) -> None:
        super().__init__(names, config=config)
        self.score = self.add_weight(name="score", shape=(len(names), config.dim), initializer="zeros")
        self.bias = self.add_weight(name="bias", shape=(len(names),), initializer="zeros")

    def fuse(self, states: tf.Tensor, present: tf.Tensor, *, training: bool) -> Joined:
        del training
        scores = tf.reduce_sum(states * self.score, axis=-1) + self.bias  # [items, modalities]
        weights = masked_softmax(scores, present)
        return Joined(tf.einsum("im,imd->id", weights, states), weights, states)
