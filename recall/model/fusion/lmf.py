"""Low-rank multimodal fusion: every product of modalities, at the cost of a few projections."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.fusion.contract import Joined, ModalityFusion
from recall.model.fusion.masks import masked_softmax


class LowRankFusion(ModalityFusion):
    """sum_i a_i prod_m f_mi + c with factors f_mi = W_mi [x_m; 1], i up to `model.fusion.rank`, products elementwise.

    Low-rank Multimodal Fusion (Liu et al., "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors",
    ACL 2018): a linear map of the outer product of all [x_m; 1], whose weight tensor has rank r, so that neither is
    ever formed. The 1 keeps products of fewer modalities among its terms; it is the bias of a dense layer here. The
    weights a_i of the ranks and c are in the authors' code, the paper has the plain sum.

    Departures: a gate network sees all modalities and which of them there are, and weighs these by a softmax g. Their
    factors become 1 + n g_m (f_mi - 1), with n the modalities that the item has: equal weights leave the factors as
    they are, a weight of 0 leaves 1. That is what a missing modality contributes, the neutral factor; a zero would
    take all others with it. Factors start near 1 and c at -1, which makes the sum of the modalities' projections the
    first approximation of the fused vector.
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

    def fuse(self, states: tf.Tensor, present: tf.Tensor, *, training: bool) -> Joined:
        del training
        weights = self._gate(states, present)
        factors = [factor(state) for factor, state in zip(self.factors, tf.unstack(states, axis=1), strict=True)]
        shape = [-1, len(self.names), self.rank, self.dim]
        stacked = tf.reshape(tf.stack(factors, axis=1), shape)  # [items, modalities, rank, dim]
        count = tf.reduce_sum(tf.cast(present, tf.float32), axis=1, keepdims=True)  # [items, 1]
        share = (count * weights)[..., tf.newaxis, tf.newaxis]  # [items, modalities, 1, 1]
        products = tf.reduce_prod(1.0 + share * (stacked - 1.0), axis=1)  # [items, rank, dim]
        return Joined(tf.einsum("r,ird->id", self.rank_weights, products) + self.bias, weights, states)

    def _gate(self, states: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        content = tf.reshape(states, [-1, len(self.names) * self.dim])
        inputs = tf.concat([content, tf.cast(present, tf.float32)], axis=1)
        return masked_softmax(self.gate_score(self.gate_hidden(inputs)), present)  # [items, modalities]
