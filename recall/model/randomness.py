"""Gives every part of a model random numbers of its own, derived from the experiment's seed and the part's name.

So a part starts with the same weights and draws the same numbers whatever other parts the model has. TensorFlow
counts otherwise: the next initialiser takes the next seed, and a random op the number of random ops before it in its
graph.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

_LARGEST = 2**31 - 1


def seed_of(part: str, *, seed: int) -> int:
    """Derive the seed of a part from the experiment's seed and the name of the part."""
    digest = hashlib.sha256(f"{seed} {part}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _LARGEST


@contextmanager
def stream_of(part: str, *, seed: int) -> Iterator[None]:
    """Seed all initialisers and op seeds that are drawn inside by the name of a part.

    Afterwards TensorFlow's global seed is the experiment's; Python's and NumPy's generators are as they were.

    Args:
      part: a name that is used once for each model.
      seed: of the experiment.
    """
    python, numpy = random.getstate(), np.random.get_state()
    tf.keras.utils.set_random_seed(seed_of(part, seed=seed))
    try:
        yield
    finally:
        tf.keras.utils.set_random_seed(seed)
        random.setstate(python)
        np.random.set_state(numpy)


def op_seed() -> int:
    """Draw the seed of one random op; inside `stream_of` it depends on the part alone."""
    return random.randint(1, _LARGEST)


def dropout_layer(rate: float) -> tf.keras.layers.Dropout:
    """Make a dropout layer with a seed of its own."""
    return tf.keras.layers.Dropout(rate, seed=op_seed())
