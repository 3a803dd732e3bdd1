"""Fuses modalities by a transformer: modalities are tokens, and a learned summary token reads them."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.fusion.contract import FusionOutput, ModalityFusion
from recall.model.fusion.cross_attention import TokenAttention
from recall.model.layers.activations import gelu
from recall.model.randomness import dropout_layer


class TransformerFusion(ModalityFusion):
    """Run a transformer over [summary; x_m + e_m], with a learned vector e_m per modality, and return the summary.

    This is the encoder of Vaswani et al. (NIPS 2017) with the normalisation before each part (Xiong et al., ICML 2020)
    and an additional token for the result, as in BERT (Devlin et al., NAACL 2019). Departure: no token attends to the
    summary, not even the summary itself; its residual connection keeps its state. The weights of the modalities are the
    attention weights of the summary in the last layer, averaged over heads; in earlier layers the modalities have
    attended to each other.
    """

    def __init__(self, names: Sequence[str], *, config: ModelConfig) -> None:
        super().__init__(names, config=config)
        # Two initializers, since one that is used twice draws the same numbers again.
        first, second = (tf.keras.initializers.RandomNormal(stddev=0.05) for _ in range(2))
        self.summary = self.add_weight(name="summary", shape=(config.dim,), initializer=first)
        self.embeddings = self.add_weight(name="modality", shape=(len(names), config.dim), initializer=second)
        settings = config.fusion
        self.blocks = [
            _FusionBlock(settings.heads, config.dim, dropout=config.dropout, name=f"block_{number}")
            for number in range(settings.layers)
        ]
        self.norm = tf.keras.layers.LayerNormalization(epsilon=1e-6, name="norm")

    def fuse(self, states: tf.Tensor, present: tf.Tensor, *, training: bool) -> FusionOutput:
        """Run the transformer over the modalities of items; shapes as in the base class."""
        items = tf.shape(states)[0]
        summary = tf.broadcast_to(self.summary, [items, 1, states.shape[-1]])
        tokens = tf.concat([summary, states + self.embeddings], axis=1)  # [items, 1 + modalities, dim]
        visible = tf.concat([tf.zeros([items, 1], tf.bool), present], axis=1)  # [items, to]
        allowed = tf.repeat(visible[:, tf.newaxis], tokens.shape[1], axis=1)  # [items, from, to]
        weights = tf.zeros([])
        for block in self.blocks:
            tokens, weights = block(tokens, allowed, training=training)
        weights = tf.reduce_mean(weights[:, :, 0, 1:], axis=1)  # [items, modalities]
        modalities = self.norm(tf.reshape(tokens[:, 1:], [-1, states.shape[-1]]))  # [items * modalities, dim]
        return FusionOutput(self.norm(tokens[:, 0]), weights, tf.reshape(modalities, tf.shape(states)))


class _FusionBlock(tf.keras.layers.Layer):
    """Apply attention and a GELU layer twice as wide, each after a normalisation and with a residual connection."""

    def __init__(self, heads: int, dim: int, *, dropout: float, name: str) -> None:
        super().__init__(name=name)
        self.attention = TokenAttention(heads, dim)
        self.attention_norm = tf.keras.layers.LayerNormalization(epsilon=1e-6, name="attention_norm")
        self.inner = tf.keras.layers.Dense(2 * dim, activation=gelu, name="inner")
        self.outer = tf.keras.layers.Dense(dim, name="outer")
        self.inner_norm = tf.keras.layers.LayerNormalization(epsilon=1e-6, name="inner_norm")
        self.dropout = dropout_layer(dropout)

    def call(self, tokens: tf.Tensor, allowed: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Return tokens of the same shape and the attention weights; arguments as in `TokenAttention.call`."""
        attended, weights = self.attention(self.attention_norm(tokens), allowed)
        tokens += self.dropout(attended, training=training)
        inner = self.dropout(self.inner(self.inner_norm(tokens)), training=training)
        return tokens + self.dropout(self.outer(inner), training=training), weights
