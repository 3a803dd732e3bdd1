"""Computes the content term of the score: the likeness of an item's content to the content that a user clicked.

The term is an inner product, so that it is some more dimensions of the vectors on both sides, and every index, exporter
and baseline goes on as before.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from recall.model.content_term.space import ContentSpace
from recall.model.layers.features import Features

_START_WEIGHT = 4.0


class ContentTerm(tf.keras.layers.Layer):
    """Give items a content vector, and weigh it for the score.

    score += w cos(W c_q, W c_i): c_i is the item's vector in the content space, W starts as the identity and is
    shared by both sides, and c_q is the mean of the vectors of the clicks. Before any training it ranks as the cosine
    to the mean of the history's content vectors does. The weight w is learned; it starts at 4 times the temperature.
    Of a gated model it is w times the share that the gate gives to content.

    Args:
      space: the content space of the catalogue.
      temperature: start value of what scores are divided by.
    """

    def __init__(self, space: ContentSpace, *, temperature: float = 1.0) -> None:
        super().__init__(name="content_term")
        self.dim = space.dim
        self.kernels = {name: self._fixed(f"kernel_{name}", kernel) for name, kernel in space.kernels.items()}
        self.rarity = {name: self._fixed(f"rarity_{name}", rarity) for name, rarity in space.rarity.items()}
        self.mean = self._fixed("mean", space.mean)
        self.map = self.add_weight(name="map", shape=(self.dim, self.dim), initializer="identity")
        start = tf.keras.initializers.Constant(np.log(_START_WEIGHT * temperature))
        self.log_weight = self.add_weight(name="log_weight", shape=(), initializer=start)

    def vectors(self, features: Features) -> tf.Tensor:
        """Map items into the space and through W: features of `FeatureTable.gather` -> float32 [items, dim].

        Vectors have unit length; an item without content has zeros.
        """
        blocks = []
        vectors = [(name, tf.math.l2_normalize(features[name][..., :-1], axis=-1)) for name in self._of_vectors]
        if vectors:
            blocks.append(self._block(vectors))
        named = [(name, self._hot(name, features[name])) for name in self.rarity]
        if named:
            projected = tf.add_n([tf.einsum("it,itd->id", weights, rows) for _, (weights, rows) in named])
            squares = tf.add_n([tf.reduce_sum(tf.square(weights), axis=1) for _, (weights, _) in named])
            blocks.append((projected, squares))
        has_content = tf.reduce_any(tf.stack([squares > 0 for _, squares in blocks]), axis=0)  # [items]
        unit = [block * tf.math.rsqrt(tf.maximum(squares, 1e-12))[:, tf.newaxis] for block, squares in blocks]
        joined = tf.math.l2_normalize(tf.add_n(unit) - self.mean, axis=-1)  # [items, dim]
        mapped = tf.math.l2_normalize(tf.matmul(joined, self.map), axis=-1)
        return tf.where(has_content[:, tf.newaxis], mapped, 0.0)

    def weighted(self, vectors: tf.Tensor, left: tf.Tensor | None) -> tf.Tensor:
        """Weigh content vectors, float32 [items, dim]; of a gated model by the shares of content, [items, 1], too."""
        weighted = tf.exp(self.log_weight) * vectors
        return weighted if left is None else left * weighted

    @property
    def _of_vectors(self) -> list[str]:
        return [name for name in self.kernels if name not in self.rarity]

    def _block(self, vectors: list[tuple[str, tf.Tensor]]) -> tuple[tf.Tensor, tf.Tensor]:
        """Project joined vectors: float32 [items, dim], and the squared length before, [items]."""
        projected = tf.add_n([tf.matmul(unit, self.kernels[name]) for name, unit in vectors])
        return projected, tf.add_n([tf.reduce_sum(tf.square(unit), axis=1) for _, unit in vectors])

    def _hot(self, name: str, codes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Look up codes: weights float32 [items, tags] and rows of the kernel, [items, tags, dim]."""
        codes = codes[:, tf.newaxis] if codes.shape.rank == 1 else codes
        return tf.gather(self.rarity[name], codes), tf.gather(self.kernels[name], codes)

    def _fixed(self, name: str, values: np.ndarray) -> tf.Variable:
        return self.add_weight(
            name=name, shape=values.shape, initializer=tf.keras.initializers.Constant(values), trainable=False
        )


def content_interest(contents: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Return the content interest of histories: the mean of the clicks' content vectors, of unit length.

    Args:
      contents: float32 [batch, time, dim], padded at the end.
      lengths: int [batch], real entries.

    Returns:
      float32 [batch, dim]; zeros without clicks.
    """
    mask = tf.sequence_mask(lengths, tf.shape(contents)[1], dtype=contents.dtype)  # [batch, time]
    return tf.math.l2_normalize(tf.einsum("bt,btd->bd", mask, contents), axis=-1)


def interest_at(contents: tf.Tensor, *, users: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Return the content interest inside sequences, after position `positions[j]` of user `users[j]`.

    Args:
      contents: float32 [batch, time, dim].
      users: int [queries], rows of the batch.
      positions: int [queries]; -1 is before the first click, where the interest is zeros.

    Returns:
      float32 [queries, dim].
    """
    sums = tf.cumsum(contents, axis=1)
    chosen = tf.gather_nd(sums, tf.stack([users, tf.maximum(positions, 0)], axis=1))  # [queries, dim]
    return tf.where(positions[:, tf.newaxis] >= 0, tf.math.l2_normalize(chosen, axis=-1), 0.0)


def before_last(vectors: tf.Tensor, parts: tf.Tensor) -> tf.Tensor:
    """Put parts before the last dimension, which is of the appeal.

    Args:
      vectors: float32 [n, width], or several for each, [n, several, width].
      parts: float32 [n, dim].

    Returns:
      float32 [..., width + dim].
    """
    if vectors.shape.rank == 3:
        parts = tf.repeat(parts[:, tf.newaxis], vectors.shape[1], axis=1)
    return tf.concat([vectors[..., :-1], parts, vectors[..., -1:]], axis=-1)


def without_before_last(vectors: tf.Tensor, dim: int) -> tf.Tensor:
    """Take the parts of `before_last` out again: float32 [..., width + dim] -> [..., width]."""
    return tf.concat([vectors[..., : -1 - dim], vectors[..., -1:]], axis=-1)


def split_tokens(tokens: tf.Tensor, dim: int) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Split tokens [..., dim + content dim] into tokens [..., dim] and content vectors, None where there are none."""
    return (tokens, None) if tokens.shape[-1] == dim else (tokens[..., :dim], tokens[..., dim:])
