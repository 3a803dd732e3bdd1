"""Tests the gathering of rows of a batch: values as from `tf.gather`, gradients summed per row."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from recall.model.layers.gathering import gather_rows


def test_values_are_the_rows_and_each_row_gets_the_sum_of_its_gradients() -> None:
    rows = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    with tf.GradientTape() as tape:
        tape.watch(rows)
        found = gather_rows(rows, tf.constant([[2, 0], [2, 2]]))
        loss = tf.reduce_sum(found * tf.constant([[[1.0], [10.0]], [[100.0], [1000.0]]]))
    gradient = tape.gradient(loss, rows)
    np.testing.assert_array_equal(found, [[[5, 6], [1, 2]], [[5, 6], [5, 6]]])
    assert isinstance(gradient, tf.Tensor)  # not a list of slices, of which each layer below would make its own sum
    np.testing.assert_array_equal(gradient, [[10, 10], [0, 0], [1101, 1101]])


def test_rows_that_are_no_numbers_are_gathered_too() -> None:
    np.testing.assert_array_equal(gather_rows(tf.constant([True, False]), tf.constant([1, 0, 1])), [False, True, False])
