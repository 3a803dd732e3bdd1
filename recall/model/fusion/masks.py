"""Leaves missing modalities out, and hides some more in training."""

from __future__ import annotations

import tensorflow as tf


def masked_softmax(scores: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """Compute the softmax over the last axis where `present`, 0 elsewhere; all 0 where nothing is present."""
    weights = tf.nn.softmax(tf.where(present, scores, scores.dtype.min), axis=-1)
    return tf.where(present, weights, 0.0)


def drop_modalities(present: tf.Tensor, rate: float, *, seed: int | None = None) -> tf.Tensor:
    """Hide each modality with probability `rate`, but never the last one of an item: bool [items, modalities].

    This is modality dropout (Neverova et al., "ModDrop", TPAMI 2016). Departure: if the draw would hide everything, the
    present modality with the largest draw stays.
    """
    draws = tf.where(present, tf.random.uniform(tf.shape(present), seed=seed), -1.0)
    count = present.shape[1]
    largest = tf.one_hot(tf.argmax(draws, axis=1), count, on_value=True, off_value=False)  # [items, modalities]
    return present & ((draws >= rate) | largest)
