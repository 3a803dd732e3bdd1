"""Keys of earlier batches as negatives, made by an encoder that moves slowly (MoCo)."""

from __future__ import annotations

import tensorflow as tf


class KeyQueue(tf.Module):
    """The last `size` keys of a modality and whose they are.

    The dictionary of He et al., "Momentum Contrast for Unsupervised Visual Representation Learning" (CVPR 2020): the
    oldest keys make room for the new ones.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self._keys = tf.Variable(tf.zeros([size, dim]), trainable=False, name="keys")
        self._items = tf.Variable(tf.fill([size], -1), trainable=False, name="items")
        self._pushed = tf.Variable(0, trainable=False, dtype=tf.int64, name="pushed")

    def entries(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Keys float32 [kept, dim] and their items int32 [kept]; kept grows from 0 to `size`."""
        kept = tf.minimum(self._pushed, self.size)
        return self._keys[:kept], self._items[:kept]

    def push(self, keys: tf.Tensor, items: tf.Tensor) -> None:
        """Takes in keys float32 [rows, dim] of items int32 [rows]; rows <= size."""
        rows = tf.shape(items, tf.int64)[0]
        places = (self._pushed + tf.range(rows)) % self.size  # [rows]
        self._keys.scatter_update(tf.IndexedSlices(keys, places))
        self._items.scatter_update(tf.IndexedSlices(items, places))
        self._pushed.assign_add(rows)


def follow(slow: tf.keras.layers.Layer, fast: tf.keras.layers.Layer, *, momentum: float) -> None:
    """Moves the weights of one layer towards those of another of the same shape: s <- m s + (1 - m) f (eq. 2)."""
    for behind, ahead in zip(slow.weights, fast.weights, strict=True):
        behind.assign_sub((1 - momentum) * (behind - ahead))
