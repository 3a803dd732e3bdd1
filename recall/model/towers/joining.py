"""The structures: how a behaviour and a meta vector become the item vector."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.towers.appeal import with_appeal


class Parts(NamedTuple):
    """What a meta vector is joined with; but for `known`, None where the structure has none."""

    behaviour: tf.Tensor  # [items, dim]
    gate: tf.Tensor  # [items, 1 or dim], the behaviour share
    appeal: tf.Tensor  # [items, 1]
    known: tf.Tensor  # [items] bool, as in `ItemContent`


def joined(meta: tf.Tensor, parts: Parts, *, config: ModelConfig) -> tf.Tensor:
    """Item vectors of the structures with a meta tower, as `ItemSide` lists them.

    Args:
      meta: float32 [items, dim].
      parts: of the same items.
      config: structure, gate and similarity.

    Returns:
      float32 [items, width], the last dimension being the appeal.
    """
    behaviour, gate, appeal, known = parts
    if config.structure == "meta_only":
        return with_appeal(meta)
    if config.structure == "base":
        return with_appeal(tf.where(known[:, tf.newaxis], scaled(behaviour + meta, config), meta))
    if config.gate == "concat":
        vector = tf.concat([behaviour, (1 - gate) * meta], axis=-1)  # [items, 2 dim]
    else:
        kept = behaviour if config.gate == "residual" else gate * behaviour
        vector = scaled(kept + (1 - gate) * meta, config)  # [items, dim]
    return with_appeal(vector, appeal)


def joined_apart(metas: tf.Tensor, parts: Parts, *, config: ModelConfig) -> tf.Tensor:
    """`joined` for each of several meta vectors of items: float32 [items, codes, dim] -> [items, codes, width]."""
    codes, dim = metas.shape[1:]
    repeated = Parts(*(None if part is None else tf.repeat(part, codes, axis=0) for part in parts))
    vectors = joined(tf.reshape(metas, [-1, dim]), repeated, config=config)  # [items * codes, width]
    return tf.reshape(vectors, [-1, codes, vectors.shape[-1]])


def scaled(vectors: tf.Tensor, config: ModelConfig) -> tf.Tensor:
    """Vectors [..., dim] at the length that `similarity` gives them: 1, or their own."""
    return tf.math.l2_normalize(vectors, axis=-1) if config.similarity == "cosine" else vectors
