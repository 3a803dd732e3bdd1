"""Smooths histories causally: a low-pass filter beside self-attention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from recall.model.layers.attention import LengthGroup, causal_softmax

_HALF_LIVES = (0.5, 16.0)
_MOST_GROUPS = 8


class CausalSmoothing(tf.keras.layers.Layer):
    """Keep the low frequencies of a history and a learned share of the high frequencies.

    low_t = sum_{i <= t} w_{t-i} x_i, with weights that fall by a learned factor per step back and sum to one; the
    result is low + high^2 (x - low) with a learned `high` per dimension. This is the frequency rescaler of BSARec (Shin
    et al., "An Attentive Inductive Bias for Sequential Recommendation beyond the Self-Attention", AAAI 2024).
    Departure: the low-pass filter of BSARec cuts the Fourier spectrum of the whole history, so that every state depends
    on later clicks and a sequence can be trained at its last position only; an exponential average depends on earlier
    clicks alone. Groups of dimensions have half-lives of their own, at the start from half a click to 16 clicks.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(name="smoothing")
        self.groups = next(groups for groups in range(min(dim, _MOST_GROUPS), 0, -1) if dim % groups == 0)
        keep = 0.5 ** (1 / np.geomspace(*_HALF_LIVES, self.groups))  # share of a weight that is left per step back
        self.keep_logit = self.add_weight(
            name="keep_logit",
            shape=(self.groups,),
            initializer=tf.keras.initializers.Constant(np.log(keep / (1 - keep))),
        )
        self.high = self.add_weight(name="high", shape=(dim,), initializer=tf.keras.initializers.Constant(0.5))

    def call(self, states: tf.Tensor, groups: Sequence[LengthGroup]) -> tf.Tensor:
        """Smooth each history: the real entries of all groups in a row, float32 [real, dim] -> float32 [real, dim]."""
        parts = tf.split(states, [tf.shape(group.padded)[0] for group in groups])
        low = tf.concat([self._low(part, group) for part, group in zip(parts, groups, strict=True)], axis=0)
        return low + tf.square(self.high) * (states - low)

    def _low(self, states: tf.Tensor, group: LengthGroup) -> tf.Tensor:
        rows, time = tf.unstack(group.shape)
        dim = states.shape[-1]
        padded = tf.scatter_nd(group.padded, states, [rows, time, dim])
        padded = tf.reshape(padded, [rows, time, self.groups, dim // self.groups])
        place = tf.range(time)
        age = tf.cast(place[:, tf.newaxis] - place, tf.float32)  # [now, then]
        weights = causal_softmax(age * tf.math.log_sigmoid(self.keep_logit)[:, tf.newaxis, tf.newaxis])
        low = tf.einsum("gnt,rtgw->rngw", weights, padded)  # weights: [groups of dimensions, now, then]
        return tf.gather_nd(tf.reshape(low, [rows, time, dim]), group.padded)
