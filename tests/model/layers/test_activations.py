"""Tests the activations against their formulas."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from recall.model.layers.activations import gelu

INPUTS = np.concatenate([np.linspace(-12, 12, 97), [-1e4, 0.0, 1e4]]).astype(np.float32)


def test_gelu_and_its_slope_are_those_of_the_normal_distribution() -> None:
    inputs = tf.constant(INPUTS)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = gelu(inputs)
    exact = INPUTS.astype(np.float64)
    share = np.asarray([0.5 * math.erfc(-number / math.sqrt(2)) for number in exact])
    density = np.exp(-0.5 * exact**2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(outputs, exact * share, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(outputs, inputs), share + exact * density, rtol=1e-6, atol=1e-6)
