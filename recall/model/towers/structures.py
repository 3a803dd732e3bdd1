"""Joins behaviour and meta vectors into item vectors, as `model.structure` and `model.gate` ask for."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.towers.appeal import with_appeal
from recall.model.towers.audience import Shares


class JoinInputs(NamedTuple):
    """Hold what is joined with meta vectors. All but `known` are None if the structure has none."""

    behaviour: tf.Tensor  # [items, dim]
    shares: Shares | None  # of the gate
    appeal: tf.Tensor  # [items, 1]
    known: tf.Tensor  # bool [items], as in `ItemContent`
    audience: tf.Tensor | None = None  # [items, dim]

    def repeated(self, times: int) -> JoinInputs:
        """Repeat each item."""

        def of(part: tf.Tensor | None) -> tf.Tensor | None:
            return None if part is None else tf.repeat(part, times, axis=0)

        shares = None if self.shares is None else Shares(*map(of, self.shares))
        return JoinInputs(of(self.behaviour), shares, of(self.appeal), of(self.known), of(self.audience))


def join(meta: tf.Tensor, parts: JoinInputs, *, config: ModelConfig) -> tf.Tensor:
    """Join meta vectors with the other parts, for the structures with a meta tower; `ItemSide` lists the formulas.

    Args:
      meta: float32 [items, dim].
      parts: the other parts of the same items.
      config: settings of the model; structure, gate and similarity are read.

    Returns:
      float32 [items, width]; the last dimension is the appeal.
    """
    behaviour, shares, appeal, known, audience = parts
    if config.structure == "meta_only":
        return with_appeal(meta)
    if config.structure == "base":
        known = known[:, tf.newaxis]
        if appeal is not None:  # each tower is trained with it, and their scores are added
            appeal = tf.where(known, 2 * appeal, appeal)
        return with_appeal(tf.where(known, scale(behaviour + meta, config), meta), appeal)
    assert shares is not None
    others = shares.content * meta
    if audience is not None:
        others += shares.audience * audience
    if config.gate == "concat":
        vector = tf.concat([behaviour, others], axis=-1)  # [items, 2 dim]
    else:
        kept = behaviour if config.gate == "residual" else shares.behaviour * behaviour
        vector = scale(kept + others, config)  # [items, dim]
    return with_appeal(vector, appeal)


def join_each_code(metas: tf.Tensor, parts: JoinInputs, *, config: ModelConfig) -> tf.Tensor:
    """Join each of several meta vectors of items: float32 [items, codes, dim] -> [items, codes, width]."""
    codes, dim = metas.shape[1:]
    vectors = join(tf.reshape(metas, [-1, dim]), parts.repeated(codes), config=config)  # [items * codes, width]
    return tf.reshape(vectors, [-1, codes, vectors.shape[-1]])


def scale(vectors: tf.Tensor, config: ModelConfig) -> tf.Tensor:
    """Scale vectors [..., dim] to unit length with `similarity: cosine`; with `dot` leave them as they are."""
    return tf.math.l2_normalize(vectors, axis=-1) if config.similarity == "cosine" else vectors
