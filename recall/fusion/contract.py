"""What every fusion promises: modalities of which some are missing -> one vector, and how much each has to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from recall.model_config import ModelConfig


class Fused(NamedTuple):
    """What becomes of the modalities of some items."""

    vector: tf.Tensor  # [items, width]
    weights: tf.Tensor | None  # [items, modalities], 0 where missing, the others sum to 1; None: nothing is weighted


class ModalityFusion(tf.keras.layers.Layer):
    """Base of the fusions: each modality is projected to `dim` numbers, a missing one is masked and never read.

    An item whose modalities are all missing has a learned vector, and weights of 0. In training, modalities are
    hidden at random (`model.fusion.modality_dropout`), so that none is relied on that a new item may lack.

    Args:
      names: of the modalities, in the order of their tensors.
      config: `dim`, `dropout` and the settings of `fusion`.
    """

    def __init__(self, names: Sequence[str], *, config: ModelConfig) -> None:
        super().__init__(name=config.fusion.kind)
        self.names = tuple(names)
        self.modality_dropout = config.fusion.dropout_rate
        self.projections = [tf.keras.layers.Dense(config.dim, name=f"project_{name}") for name in self.names]
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
          Vectors float32 [items, dim], and weights float32 [items, modalities].
        """
        if training and self.modality_dropout:
            present = drop_modalities(present, self.modality_dropout)
        projected = [project(part) for project, part in zip(self.projections, parts, strict=True)]
        states = tf.where(present[..., tf.newaxis], tf.stack(projected, axis=1), 0.0)  # [items, modalities, dim]
        fused = self.fuse(states, present, training=training)
        has_any = tf.reduce_any(present, axis=1, keepdims=True)  # [items, 1]
        return fused._replace(vector=tf.where(has_any, fused.vector, self.absent))

    def fuse(self, states: tf.Tensor, present: tf.Tensor, *, training: bool) -> Fused:
        """The fusion itself.

        Args:
          states: float32 [items, modalities, dim], 0 where missing.
          present: bool [items, modalities].
          training: whether dropout is on.

        Returns:
          Vectors float32 [items, dim], of any finite value where everything is missing, and their weights.
        """
        raise NotImplementedError


def masked_softmax(scores: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """Softmax over the last axis where `present`, 0 elsewhere; all 0 where nothing is present."""
    weights = tf.nn.softmax(tf.where(present, scores, scores.dtype.min), axis=-1)
    return tf.where(present, weights, 0.0)


def drop_modalities(present: tf.Tensor, rate: float) -> tf.Tensor:
    """Hides each modality with probability `rate`, but never the last one of an item: bool [items, modalities].

    Modality dropout (Neverova et al., "ModDrop", TPAMI 2016). Departure: where the draw would hide everything, the
    present modality with the largest draw stays.
    """
    draws = tf.where(present, tf.random.uniform(tf.shape(present)), -1.0)
    count = present.shape[1]
    largest = tf.one_hot(tf.argmax(draws, axis=1), count, on_value=True, off_value=False)  # [items, modalities]
    return present & ((draws >= rate) | largest)
