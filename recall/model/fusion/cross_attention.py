"""Cross-modal attention: each modality is read in the light of the others, then they are pooled."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.fusion.attention import TokenAttention
from recall.model.fusion.contract import Joined, ModalityFusion
from recall.model.fusion.masks import masked_softmax


class CrossAttentionFusion(ModalityFusion):
    """y_m = norm(x_m + attention of x_m to the other modalities); the mean of the y_m by softmax_m(v . tanh(U y_m)).

    Cross-modal attention with its residual connection is that of the Multimodal Transformer (Tsai et al., ACL 2019),
    the pooling additive attention (Bahdanau et al., ICLR 2015) with a learned vector in place of a query. Departures: a
    modality is one vector instead of a sequence and looks at all others at once, not in one network per pair; there is
    one layer and no feed-forward part, for which the meta tower stands. A modality that is alone stays as it is.
    """

    def __init__(self, names: Sequence[str], *, config: ModelConfig) -> None:
        super().__init__(names, config=config)
        self.attention = TokenAttention(config.fusion.heads, config.dim)
        self.norm = tf.keras.layers.LayerNormalization(epsilon=1e-6, name="norm")
        self.dropout = tf.keras.layers.Dropout(config.dropout)
        self.hidden = tf.keras.layers.Dense(config.dim, activation="tanh", name="pool_hidden")
        self.score = tf.keras.layers.Dense(1, use_bias=False, name="pool_score")

    def fuse(self, states: tf.Tensor, present: tf.Tensor, *, training: bool) -> Joined:
        others = present[:, tf.newaxis] & ~tf.eye(len(self.names), dtype=tf.bool)  # [items, from, to]
        attended, _ = self.attention(states, others)
        states = self.norm(states + self.dropout(attended, training=training))  # [items, modalities, dim]
        weights = masked_softmax(tf.squeeze(self.score(self.hidden(states)), -1), present)
        return Joined(tf.einsum("im,imd->id", weights, states), weights, states)
