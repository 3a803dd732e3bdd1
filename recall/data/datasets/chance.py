"""Draws random numbers that depend on nothing but the thing they are drawn for.

Experiments that show the same item to the same user at the same moment then see the same outcome, however their other
decisions differ: common random numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recall.core.arrays import AnyInts, Float64s

_STEP = np.uint64(0x9E3779B97F4A7C15)


def chance(seed: int, *what: AnyInts | int) -> Float64s:
    """Draw uniform numbers from [0, 1), one for each combination of whole numbers.

    A chain of SplitMix64 steps (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), one for each
    number of the combination.

    Args:
      seed: of the experiment, >= 0.
      what: whole numbers >= 0, or int arrays that broadcast, e.g. hour, users and items.

    Returns:
      float64 of the broadcast shape.
    """
    parts = [np.asarray(part, np.uint64) for part in what]
    shape = np.broadcast_shapes(*(part.shape for part in parts))
    state = np.asarray([seed], np.uint64)  # at least one dimension: scalars of NumPy warn of each overflow
    for part in parts:
        state = _mixed(state ^ _mixed(np.atleast_1d(part)))
    return np.asarray(state >> np.uint64(11), np.float64).reshape(shape) / 2.0**53


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble the bits of numbers, one to one."""
    values = values + _STEP  # arrays of uint64 wrap around
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
