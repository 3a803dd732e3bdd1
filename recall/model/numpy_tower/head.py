"""Turns the state of a history and a profile into a query vector: the last part of the user tower, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import erf

from recall.core.arrays import Float32s

_HALF, _ROOT_HALF = np.float32(0.5), np.float32(np.sqrt(0.5))
_TINY = np.float32(1e-12)  # of tf.math.l2_normalize


class NumpyQueryHead:
    """Apply dense layers with GELU between them, and add a shortcut.

    For one user the calls cost more than the arithmetic, so there are few of them: the first layer and the shortcut are
    one product, and the factor 1/2 of GELU is part of the kernels.

    Args:
      weights: state_kernel [dim, units], kernel_i and bias_i of the following layers, and shortcut [dim, parts * dim],
        unless the state itself is added.
      layers: number of dense layers, including the linear one.
      unit_length: whether vectors have unit length, each of the `parts` by itself.
      parts: 2 if the query is twice as wide as the state, else 1.
    """

    def __init__(self, weights: Mapping[str, Float32s], *, layers: int, unit_length: bool, parts: int) -> None:
        self._unit_length, self._parts = unit_length, parts
        first = np.asarray(weights["state_kernel"])
        dim, self._units = first.shape
        own = np.tile(np.eye(dim, dtype=np.float32), parts)
        column = np.zeros((dim, 1), np.float32)  # where queries have a 1, the factor of the appeal
        self._first = np.concatenate([first, weights.get("shortcut", own), column], axis=1)
        self._others = [(_HALF * weights[f"kernel_{layer}"], weights[f"bias_{layer}"]) for layer in range(1, layers)]

    def queries(self, states: Float32s, profiles: Float32s) -> Float32s:
        """Return queries [users, width] of states [users, dim] and products with profiles [users, units]."""
        both = states @ self._first  # [users, units + parts * dim + 1]
        hidden, queries = both[:, : self._units], both[:, self._units :]
        hidden += profiles
        for kernel, bias in self._others:
            gate = erf(hidden * _ROOT_HALF)
            gate += 1
            gate *= hidden  # twice GELU
            hidden = gate @ kernel
            hidden += bias
        output = queries[:, :-1]
        output += hidden
        if self._unit_length:
            parts = output.reshape(len(output), self._parts, -1)
            squares = np.einsum("upd,upd->up", parts, parts)[..., np.newaxis]
            output[...] = (parts / np.sqrt(np.maximum(squares, _TINY))).reshape(output.shape)
        queries[:, -1] = 1
        return np.ascontiguousarray(queries)
