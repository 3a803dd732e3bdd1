"""The moving average of weights, beside the recursion in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from recall.model.averaging import WeightAverage

VALUES = np.random.default_rng(3).normal(size=(30, 2, 3)).astype(np.float32)  # [steps, rows, dim]


def averaged(steps: int, *, decay: float) -> tuple[WeightAverage, tf.Variable, np.ndarray]:
    """An average after some steps, its variable, and what the recursion gives: early steps count for more."""
    variable = tf.Variable(tf.zeros([2, 3]))
    average, expected = WeightAverage([variable], decay=decay), np.zeros((2, 3))
    for step in range(1, steps + 1):
        variable.assign(VALUES[step - 1])
        average.update()
        kept = min(decay, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * VALUES[step - 1]
    return average, variable, expected


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_the_average_is_exponential_and_forgets_the_start_quickly(decay: float) -> None:
    average, variable, expected = averaged(30, decay=decay)
    with average.applied():
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_after_use_the_weights_are_those_of_the_last_step_even_after_an_error() -> None:
    average, variable, expected = averaged(4, decay=0.9)
    with pytest.raises(RuntimeError, match="in between"), average.applied():
        raise RuntimeError("in between")
    np.testing.assert_array_equal(variable.numpy(), VALUES[3])
    with average.applied():
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5)


def test_an_average_continues_from_a_checkpoint(tmp_path: Path) -> None:
    average, _, _ = averaged(7, decay=0.9)
    path = tf.train.Checkpoint(average=average).write(str(tmp_path / "state"))
    other, variable, _ = averaged(2, decay=0.9)
    tf.train.Checkpoint(average=other).read(path).assert_existing_objects_matched()
    variable.assign(VALUES[7])
    other.update()
    *_, expected = averaged(8, decay=0.9)
    with other.applied():
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5)
