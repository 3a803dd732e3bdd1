"""Computes activations together with their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf


@tf.custom_gradient
def gelu(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Compute x Phi(x), the exact Gaussian error linear unit (Hendrycks & Gimpel, 2016): float32 [...] -> the same.

    Gives the values of `tf.nn.gelu` with fewer passes over the numbers. `tf.nn.gelu` uses erfc, which TensorFlow does
    not vectorise on a CPU, and its gradient is a chain of products. Here the slope Phi(x) + x phi(x) is computed
    beforehand and kept.
    """
    share = 0.5 + 0.5 * tf.math.erf(inputs * math.sqrt(0.5))  # Phi
    slope = share + inputs * tf.exp(-0.5 * tf.square(inputs) - 0.5 * math.log(2 * math.pi))
    return inputs * share, lambda upstream: upstream * slope
