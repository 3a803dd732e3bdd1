"""Joins behaviour and meta vectors into item vectors, as `model.structure` and `model.gate` ask for."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.towers.appeal import with_appeal


class JoinInputs(NamedTuple):
    """Hold what is joined with meta vectors. All but `known` are None if the structure has none."""

    behaviour: tf.Tensor  # [items, dim]
    gate: tf.Tensor  # [items, 1 or dim], the behaviour share
    appeal: tf.Tensor  # [items, 1]
    known: tf.Tensor  # bool [items], as in `ItemContent`


def join(meta: tf.Tensor, parts: JoinInputs, *, config: ModelConfig) -> tf.Tensor:
    """Join meta vectors with the other parts, for the structures with a meta tower; `ItemSide` lists the formulas.

    Args:
      meta: float32 [items, dim].
      parts: the other parts of the same items.
      config: settings of the model; structure, gate and similarity are read.

    Returns:
      float32 [items, width]; the last dimension is the appeal.
    """
    behaviour, gate, appeal, known = parts
    if config.structure == "meta_only":
        return with_appeal(meta)
    if config.structure == "base":
        return with_appeal(tf.where(known[:, tf.newaxis], scale(behaviour + meta, config), meta))
    if config.gate == "concat":
        vector = tf.concat([behaviour, (1 - gate) * meta], axis=-1)  # [items, 2 dim]
    else:
        kept = behaviour if config.gate == "residual" else gate * behaviour
        vector = scale(kept + (1 - gate) * meta, config)  # [items, dim]
    return with_appeal(vector, appeal)


def join_each_code(metas: tf.Tensor, parts: JoinInputs, *, config: ModelConfig) -> tf.Tensor:
    """Join each of several meta vectors of items: float32 [items, codes, dim] -> [items, codes, width]."""
    codes, dim = metas.shape[1:]
    repeated = JoinInputs(*(None if part is None else tf.repeat(part, codes, axis=0) for part in parts))
    vectors = join(tf.reshape(metas, [-1, dim]), repeated, config=config)  # [items * codes, width]
    return tf.reshape(vectors, [-1, codes, vectors.shape[-1]])


def scale(vectors: tf.Tensor, config: ModelConfig) -> tf.Tensor:
    """Scale vectors [..., dim] to unit length with `similarity: cosine`; with `dot` leave them as they are."""
    return tf.math.l2_normalize(vectors, axis=-1) if config.similarity == "cosine" else vectors
