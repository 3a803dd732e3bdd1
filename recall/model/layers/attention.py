"""Computes causal self-attention over histories of different lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from recall.model.layers.history_time import AgeBias, ClickTimes
from recall.model.randomness import dropout_layer

# Nine of ten histories of public data sets have at most so many clicks.
_SHORT = 16


class LengthGroup(NamedTuple):
    """Hold the places of histories that are padded together."""

    places: tf.Tensor  # int32 [real, 2], row of the batch and position of each real entry
    padded: tf.Tensor  # int32 [real, 2], the same with rows counted inside the group
    shape: tf.Tensor  # int32 [2], rows and longest history of the group
    ages: tf.Tensor | None  # int32 [rows, now, then], buckets of `ClickTimes.ages`


def group_by_length(lengths: tf.Tensor, times: ClickTimes | None = None) -> list[LengthGroup]:
    """Separate short histories from long ones, since attention costs the square of the longest history in a group.

    Args:
      lengths: int [batch], number of real entries.
      times: times of the entries, [batch, time], if attention reads their ages.

    Returns:
      Two groups that together hold each history once. A group may be empty.
    """
    lengths = tf.cast(lengths, tf.int32)
    groups = []
    for is_member in (lengths <= _SHORT, lengths > _SHORT):
        rows = tf.cast(tf.where(is_member)[:, 0], tf.int32)  # [rows]
        members = tf.gather(lengths, rows)
        longest = tf.maximum(tf.reduce_max(members), 0)  # 0 for a group without members
        padded = tf.cast(tf.where(tf.sequence_mask(members, longest)), tf.int32)
        places = tf.stack([tf.gather(rows, padded[:, 0]), padded[:, 1]], axis=1)
        ages = None if times is None else times.of_rows(rows, longest=longest).ages()
        groups.append(LengthGroup(places, padded, tf.stack([tf.size(rows), longest]), ages))
    return groups


class CausalSelfAttention(tf.keras.layers.Layer):
    """Apply multi-head self-attention to real entries only; with `ages` an `AgeBias` is added to the scores."""

    def __init__(self, heads: int, dim: int, *, dropout: float, ages: bool = False) -> None:
        super().__init__(name="attention")
        self.heads, self.width = heads, dim // heads
        self.inputs = tf.keras.layers.Dense(3 * dim, name="query_key_value")
        self.outputs = tf.keras.layers.Dense(dim, name="output")
        self.age_bias = AgeBias(heads) if ages else None
        self.dropout = dropout_layer(dropout)

    def call(self, states: tf.Tensor, groups: Sequence[LengthGroup], training: bool = False) -> tf.Tensor:
        """Attend inside each history: the real entries of all groups in a row, float32 [real, dim] -> [real, dim]."""
        parts = tf.split(self.inputs(states), [tf.shape(group.padded)[0] for group in groups])
        attended = [self._attend(part, group, training=training) for part, group in zip(parts, groups, strict=True)]
        return self.outputs(tf.concat(attended, axis=0))

    def _attend(self, projected: tf.Tensor, group: LengthGroup, *, training: bool) -> tf.Tensor:
        rows, time = tf.unstack(group.shape)
        padded = tf.scatter_nd(group.padded, projected, [rows, time, 3 * self.heads * self.width])
        padded = tf.reshape(padded, [rows, time, 3 * self.heads, self.width])
        query, key, value = tf.split(tf.transpose(padded, [0, 2, 1, 3]), 3, axis=1)  # [rows, heads, time, width]
        scores = tf.matmul(query * self.width**-0.5, key, transpose_b=True)  # [rows, heads, now, then]
        if self.age_bias is not None and group.ages is not None:
            scores += tf.transpose(self.age_bias(group.ages), [0, 3, 1, 2])
        # Padding stands at the end, where the causal mask hides it from real entries.
        weights = self.dropout(causal_softmax(scores), training=training)
        joined = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])  # [rows, time, heads, width]
        return tf.gather_nd(tf.reshape(joined, [rows, time, self.heads * self.width]), group.padded)


def causal_softmax(scores: tf.Tensor) -> tf.Tensor:
    """Compute the softmax over positions `then` up to `now`: float32 [..., now, then] -> the same shape."""
    place = tf.range(tf.shape(scores)[-1])
    scores = tf.where(place[:, tf.newaxis] >= place, scores, scores.dtype.min)
    return tf.nn.softmax(scores, axis=-1)
