"""Fuses modalities by low-rank multimodal fusion: all products of modalities, at the cost of a few projections."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.fusion.contract import FusionOutput, ModalityFusion
from recall.model.fusion.masks import masked_softmax


class LowRankFusion(ModalityFusion):
    """Multiply low-rank factors of the modalities elementwise, and sum over the ranks.

    sum_i a_i prod_m f_mi + c with factors f_mi = W_mi [x_m; 1], i up to `model.fusion.rank`: Low-rank Multimodal Fusion
    (Liu et al., "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors", ACL 2018), a linear map of the
    outer product of all [x_m; 1]. Its weight tensor has rank r, so that neither tensor is ever formed. The 1 keeps
    products of fewer modalities among the terms; here it is the bias of a dense layer. The weights a_i of the ranks and
    c come from the authors' code, the paper has the plain sum.

    Departures: a gate network reads all modalities and which of them are present, and weighs them by a softmax g. The
    factors become 1 + n g_m (f_mi - 1), with n the number of present modalities: equal weights leave the factors as
    they are, a weight of 0 gives 1. A missing modality contributes this neutral factor; a zero would erase all others.
    Factors start near 1 and c at -1, so that the fused vector starts near the sum of the modalities' projections.
    """

    def __init__(self, names: Sequence[str], *, config: ModelConfig) -> None:
        super().__init__(names, config=config)
        self.rank, self.dim = config.fusion.rank, config.dim
        self.factors = [
            tf.keras.layers.Dense(self.rank * self.dim, bias_initializer="ones", name=f"factor_{name}")
            for name in self.names
        ]
        self.rank_weights = self.add_weight(
            name="rank_weights", shape=(self.rank,), initializer=tf.keras.initializers.Constant(1 / self.rank)
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.dim,), initializer=tf.keras.initializers.Constant(-1.0)
        )  # fmt: skip
        self.gate_hidden = tf.keras.layers.Dense(self.dim, activation="tanh", name="gate_hidden")
        self.gate_score = tf.keras.layers.Dense(len(self.names), name="gate_score")

    def fuse(self, states: tf.Tensor, present: tf.Tensor, *, training: bool) -> FusionOutput:
        """Multiply the gated factors and sum over the ranks; shapes as in the base class."""
        del training
        weights = self._gate(states, present)
        factors = [factor(state) for factor, state in zip(self.factors, tf.unstack(states, axis=1), strict=True)]
        shape = [-1, len(self.names), self.rank, self.dim]
        stacked = tf.reshape(tf.stack(factors, axis=1), shape)  # [items, modalities, rank, dim]
        count = tf.reduce_sum(tf.cast(present, tf.float32), axis=1, keepdims=True)  # [items, 1]
        share = (count * weights)[..., tf.newaxis, tf.newaxis]  # [items, modalities, 1, 1]
        products = tf.reduce_prod(1.0 + share * (stacked - 1.0), axis=1)  # [items, rank, dim]
        return FusionOutput(tf.einsum("r,ird->id", self.rank_weights, products) + self.bias, weights, states)

    def _gate(self, states: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        """Weigh the modalities of items, float32 [items, modalities]."""
        content = tf.reshape(states, [-1, len(self.names) * self.dim])
        inputs = tf.concat([content, tf.cast(present, tf.float32)], axis=1)
        return masked_softmax(self.gate_score(self.gate_hidden(inputs)), present)  # [items, modalities]
