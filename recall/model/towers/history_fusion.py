"""Fuses several histories of a user into one state: an encoder per history, and a gate that weighs them."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.data.prepared import PreparedData
from recall.model.layers.features import EmbeddingTable
from recall.model.towers.history_encoders import HISTORY_ENCODERS

FurtherTokens = Mapping[str, tuple[tf.Tensor, tf.Tensor]]
"""Name of a further history -> its tokens float32 [batch, time, dim], oldest first, and lengths int [batch]."""


class HistoryFusion(tf.keras.layers.Layer):
    """Average the states of a user's histories, weighted by the softmax of a linear score of each state.

    This is the gate of a mixture of experts (Jacobs et al., Neural Computation 1991) over histories instead of experts,
    each with an encoder of the configured kind. A history without entries has weight 0, so that the other histories
    describe the user. A user without any entries has the state of an empty click history.

    Args:
      config: settings of the model; width and kind of the encoders are read.
      lengths: name of a further history -> its maximum length.
      own: name of a history whose items are not in the catalogue -> size of its vocabulary.
    """

    def __init__(self, config: ModelConfig, *, lengths: Mapping[str, int], own: Mapping[str, int]) -> None:
        super().__init__(name="fusion")
        make = HISTORY_ENCODERS[config.history_encoder]
        self.names = tuple(sorted(lengths))
        self.encoders = {name: make(config, max_length=lengths[name]) for name in self.names}
        self.tables = {
            name: EmbeddingTable(size, config.dim, name=f"history_{name}", of=name) for name, size in own.items()
        }
        self.scores = [tf.keras.layers.Dense(1, name=f"score_{name}") for name in ("clicks", *self.names)]

    @classmethod
    def of(cls, config: ModelConfig, prepared: PreparedData) -> HistoryFusion | None:
        """Build the fusion for the further histories of the data, or return None without any."""
        if not prepared.history_lengths:
            return None
        own = {name: vocabulary.size for name, vocabulary in prepared.history_vocabularies.items()}
        return cls(config, lengths=prepared.history_lengths, own=own)

    def call(self, state: tf.Tensor, lengths: tf.Tensor, further: FurtherTokens, training: bool = False) -> tf.Tensor:
        """Fuse the state of the clicks, float32 [batch, dim], of int [batch] lengths, with the further histories."""
        states = [state]
        states += [self.encoders[name].last_state(*further[name], training=training) for name in self.names]
        others = tf.stack([further[name][1] > 0 for name in self.names], axis=1)  # [batch, histories - 1]
        clicks = (lengths > 0) | ~tf.reduce_any(others, axis=1)  # [batch]
        present = tf.concat([clicks[:, tf.newaxis], others], axis=1)  # [batch, histories]
        scores = tf.concat([score(part) for score, part in zip(self.scores, states, strict=True)], axis=1)
        weights = tf.nn.softmax(tf.where(present, scores, scores.dtype.min), axis=1)  # [batch, histories]
        return tf.reduce_sum(weights[:, :, tf.newaxis] * tf.stack(states, axis=1), axis=1)
