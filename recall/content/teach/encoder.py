"""Encodes an item's base vectors as its content vector: a tower per modality, and a mean of the present ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from recall.content.teach.modalities import Modality
from recall.core.arrays import Float32s, Intps
from recall.model.fusion.masks import masked_softmax
from recall.model.layers.features import dense_stack

Inputs = tuple[tuple[tf.Tensor, tf.Tensor], ...]
"""For each modality the frames float32 [items, frames, width], and marks of the present ones, bool [items, frames]."""

_START_ROWS = 20_000
_BATCH = 8192


class ModalityShape(NamedTuple):
    """Describe a modality for the encoder; JSON-serialisable as a dict."""

    name: str
    features: tuple[str, ...]
    width: int


class Encoded(NamedTuple):
    """Hold the output of the encoder for some items."""

    item: tf.Tensor  # [items, dim], of unit length; zeros without any base vector
    modalities: tf.Tensor  # [items, modalities, dim], likewise
    present: tf.Tensor  # [items, modalities] bool


class ContentEncoder(tf.keras.layers.Layer):
    """Encode each item as one unit vector.

    A tower is W x + MLP(x) of a base vector x, and the MLP starts at zero. Frames of a modality share its tower and are
    averaged; modalities are averaged by learned weights that start equal (softmax over the modalities of the item).
    Missing frames and modalities are left out.

    Args:
      shapes: the modalities.
      dim: width of the vectors.
      hidden: widths of the MLPs.
      dropout: rate after each hidden layer, in training.
      input_dropout: rate of the numbers of base vectors, in training.
    """

    def __init__(
        self,
        shapes: Sequence[ModalityShape],
        *,
        dim: int,
        hidden: Sequence[int],
        dropout: float = 0.0,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__(name="content")
        self.shapes, self.dim, self.hidden = tuple(shapes), dim, tuple(hidden)
        self.hide = tf.keras.layers.Dropout(input_dropout)
        self.projections = [
            tf.keras.layers.Dense(dim, use_bias=False, kernel_initializer="orthogonal", name=f"{shape.name}_projection")
            for shape in shapes
        ]
        self.stacks = [
            dense_stack(hidden, dim, dropout=dropout, name=f"{shape.name}_stack", starts_at_zero=True)
            for shape in shapes
        ]
        self.importance = self.add_weight(name="importance", shape=(len(shapes),), initializer="zeros")
        self(tuple((tf.zeros([1, 1, shape.width]), tf.ones([1, 1], tf.bool)) for shape in shapes))  # makes the weights

    def call(self, inputs: Inputs, training: bool = False) -> Encoded:
        """Encode `Inputs`, one entry per modality, in order."""
        states, present = [], []
        for (frames, is_there), projection, stack in zip(inputs, self.projections, self.stacks, strict=True):
            frames = self.hide(frames, training=training)
            each = tf.math.l2_normalize(projection(frames) + stack(frames, training=training), axis=-1)
            each = tf.where(is_there[..., tf.newaxis], each, 0.0)  # [items, frames, dim]
            states.append(tf.math.l2_normalize(tf.reduce_sum(each, axis=1), axis=-1))  # [items, dim]
            present.append(tf.reduce_any(is_there, axis=1))  # [items]
        modalities, has = tf.stack(states, axis=1), tf.stack(present, axis=1)
        weights = masked_softmax(tf.broadcast_to(self.importance, tf.shape(has)), has)  # [items, modalities]
        item = tf.math.l2_normalize(tf.einsum("im,imd->id", weights, modalities), axis=-1)  # [items, dim]
        return Encoded(item, modalities, has)

    def start_from(self, modalities: Sequence[Modality], rows: Intps, *, seed: int) -> None:
        """Set each W so that training starts from the cosines of the base vectors.

        W maps the leading right singular vectors of the base vectors to orthonormal directions, each modality to its
        own as far as there are enough. With at least as many dimensions as numbers in all base vectors, the start has
        the cosines of `side_by_side`; with fewer, the best approximation of that width.

        Args:
          modalities: base vectors of the encoder's modalities, in order.
          rows: items to use; at most 20,000 of them are drawn.
          seed: of the draw and the directions.
        """
        rng = np.random.default_rng(seed)
        rows = rng.permutation(rows)[:_START_ROWS]
        directions = np.linalg.qr(rng.normal(size=(self.dim, self.dim)))[0]  # [dim, dim], orthonormal
        first = 0
        for modality, projection in zip(modalities, self.projections, strict=True):
            vectors = modality.frames[rows][modality.present[rows]].astype(np.float64)  # [present, width]
            leading = np.linalg.eigh(vectors.T @ vectors)[1][:, ::-1][:, : self.dim]  # [width, at most dim]
            own = directions[np.arange(first, first + leading.shape[1]) % self.dim]  # [at most dim, dim]
            projection.kernel.assign((leading @ own).astype(np.float32))
            first += leading.shape[1]

    def vectors(self, modalities: Sequence[Modality]) -> Float32s:
        """Compute the content vectors of items; float32 [items, dim], zeros where an item has no base vector."""
        count = len(modalities[0].frames)
        parts = [
            self(inputs_of(modalities, np.arange(start, min(start + _BATCH, count)))).item.numpy()
            for start in range(0, max(1, count), _BATCH)
        ]
        return np.concatenate(parts)

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `from_settings` for an encoder of the same shape; JSON-serialisable."""
        shapes = [shape._asdict() for shape in self.shapes]
        return {"modalities": shapes, "dim": self.dim, "hidden": list(self.hidden)}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> ContentEncoder:
        """Make an encoder with initial weights; set them with `set_weights`."""
        shapes = [ModalityShape(one["name"], tuple(one["features"]), one["width"]) for one in settings["modalities"]]
        return cls(shapes, dim=settings["dim"], hidden=settings["hidden"])


def inputs_of(modalities: Sequence[Modality], rows: Intps) -> Inputs:
    """Select the base vectors of some items as inputs of the encoder."""
    return tuple((tf.constant(one.frames[rows]), tf.constant(one.present[rows])) for one in modalities)
