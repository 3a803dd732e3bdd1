"""Sparse updates beside the same formulas in NumPy, row by row, and beside Keras where both must agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from recall.model.optimizers import LazyAdam, RowwiseAdagrad, TableOptimizer, sum_duplicate_rows, table_optimizer

Array = np.ndarray
Step = tuple[Array, Array]  # indices [n], which may repeat, and values [n, dim]

OPTIMIZERS: dict[str, Callable[[list[tf.Variable]], TableOptimizer]] = {
    "adagrad": lambda tables: RowwiseAdagrad(tables, learning_rate=0.3, initial=0.05),
    "lazy_adam": lambda tables: LazyAdam(tables, learning_rate=0.02, beta_1=0.8, beta_2=0.95, epsilon=1e-4),
}
every_optimizer = pytest.mark.parametrize("kind", list(OPTIMIZERS))


def start(rows: int = 8, dim: int = 3) -> Array:
    return np.random.default_rng(1).normal(size=(rows, dim)).astype(np.float32)


def steps(count: int = 6, *, rows: int = 8, dim: int = 3) -> list[Step]:
    """Five of the first rows - 2 rows per step, usually some of them twice; the last two are never touched."""
    random = np.random.default_rng(2)
    return [
        (random.integers(0, rows - 2, 5), random.normal(size=(5, dim)).astype(np.float32) * 2) for _ in range(count)
    ]


def sparse(step: Step, rows: int = 8) -> tf.IndexedSlices:
    indices, values = step
    return tf.IndexedSlices(tf.constant(values), tf.constant(indices), dense_shape=[rows, values.shape[1]])


def gradient_of_row(step: Step, row: int) -> Array:
    return step[1][step[0] == row].astype(np.float64).sum(axis=0)


def slow_adagrad(table: Array, taken: list[Step]) -> Array:
    table, accumulator = table.astype(np.float64), np.full(len(table), 0.05)
    for step in taken:
        for row in set(step[0].tolist()):
            gradient = gradient_of_row(step, row)
            accumulator[row] += np.mean(gradient**2)
            table[row] -= 0.3 * gradient / np.sqrt(accumulator[row])
    return table


def slow_lazy_adam(table: Array, taken: list[Step]) -> Array:
    table, first, second = (table.astype(np.float64), np.zeros(table.shape), np.zeros(table.shape))
    for t, step in enumerate(taken, start=1):
        for row in set(step[0].tolist()):
            gradient = gradient_of_row(step, row)
            first[row] = 0.8 * first[row] + 0.2 * gradient
            second[row] = 0.95 * second[row] + 0.05 * gradient**2
            rate = 0.02 * np.sqrt(1 - 0.95**t) / (1 - 0.8**t)
            table[row] -= rate * first[row] / (np.sqrt(second[row]) + 1e-4)
    return table


SLOW = {"adagrad": slow_adagrad, "lazy_adam": slow_lazy_adam}


def state_of(optimizer: TableOptimizer, table: int = 0) -> list[Array]:
    """Whatever the optimizer keeps per row of a table."""
    rows = optimizer.tables[table].shape[0]
    others = {variable.ref() for variable in optimizer.tables}
    per_row = [v for v in optimizer.variables if v.ref() not in others and v.shape.rank and v.shape[0] == rows]
    assert per_row
    return [variable.numpy() for variable in per_row]


def test_duplicate_rows_are_summed() -> None:
    gradient = tf.IndexedSlices(
        values=tf.constant([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0], [0.5, 0.5]]),
        indices=tf.constant([4, 0, 4, 2]),
        dense_shape=[5, 2],
    )
    rows, sums = sum_duplicate_rows(gradient)
    found = dict(zip(rows.numpy().tolist(), sums.numpy().tolist(), strict=True))
    assert found == {4: [101.0, 202.0], 0: [10.0, 20.0], 2: [0.5, 0.5]}


def test_dense_gradient_stands_for_every_row() -> None:
    rows, values = sum_duplicate_rows(tf.constant([[1.0], [2.0], [3.0]]))
    assert rows.numpy().tolist() == [0, 1, 2]
    assert values.numpy().tolist() == [[1.0], [2.0], [3.0]]


@every_optimizer
@pytest.mark.parametrize("in_graph", [False, True])
def test_steps_follow_the_formula(kind: str, in_graph: bool) -> None:
    table = tf.Variable(start())
    optimizer = OPTIMIZERS[kind]([table])

    def apply(values: tf.Tensor, indices: tf.Tensor) -> None:
        optimizer.apply([tf.IndexedSlices(values, indices)])

    step = tf.function(apply) if in_graph else apply
    for indices, values in steps():
        step(tf.constant(values), tf.constant(indices))
    np.testing.assert_allclose(table.numpy(), SLOW[kind](start(), steps()), rtol=1e-4, atol=1e-5)


@every_optimizer
def test_rows_that_no_gradient_touches_stay_as_they_are_bit_for_bit(kind: str) -> None:
    table = tf.Variable(start())
    optimizer = OPTIMIZERS[kind]([table])
    fresh = state_of(optimizer)
    for step in steps():
        optimizer.apply([sparse(step)])
    np.testing.assert_array_equal(table.numpy()[6:], start()[6:])
    for before, after in zip(fresh, state_of(optimizer), strict=True):
        np.testing.assert_array_equal(after[6:], before[6:])
    # A row that was touched before and not in this step keeps its value and its state as well.
    touched, state = table.numpy(), state_of(optimizer)
    optimizer.apply([sparse((np.array([1, 1]), np.ones((2, 3), np.float32)))])
    np.testing.assert_array_equal(np.delete(table.numpy(), 1, axis=0), np.delete(touched, 1, axis=0))
    assert not np.array_equal(table.numpy()[1], touched[1])
    for before, after in zip(state, state_of(optimizer), strict=True):
        np.testing.assert_array_equal(np.delete(after, 1, axis=0), np.delete(before, 1, axis=0))


@every_optimizer
def test_dense_gradient_does_what_the_same_gradient_does_in_rows(kind: str) -> None:
    dense, by_rows = tf.Variable(start()), tf.Variable(start())
    one, other = OPTIMIZERS[kind]([dense]), OPTIMIZERS[kind]([by_rows])
    for seed in range(3):
        values = np.random.default_rng(seed).normal(size=(8, 3)).astype(np.float32)
        one.apply([tf.constant(values)])
        order = np.random.default_rng(seed).permutation(8)
        other.apply([sparse((order, values[order]))])
    np.testing.assert_allclose(dense.numpy(), by_rows.numpy(), rtol=1e-6)


@every_optimizer
def test_table_without_a_gradient_is_left_alone(kind: str) -> None:
    tables = [tf.Variable(start()), tf.Variable(start(4, 2)), tf.Variable(start())]
    optimizer = OPTIMIZERS[kind](tables)
    for step in steps(2):
        optimizer.apply([None, None, sparse(step)])
    np.testing.assert_array_equal(tables[0].numpy(), start())
    np.testing.assert_array_equal(tables[1].numpy(), start(4, 2))
    # Neither values nor bias correction of one table depend on the steps of another.
    optimizer.apply([sparse(steps(3)[2]), None, sparse(steps(3)[2])])
    np.testing.assert_allclose(tables[0].numpy(), SLOW[kind](start(), steps(3)[2:]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(tables[2].numpy(), SLOW[kind](start(), steps(3)), rtol=1e-4, atol=1e-5)


def test_lazy_adam_that_touches_every_row_is_keras_adam() -> None:
    ours, theirs = tf.Variable(start()), tf.Variable(start())
    optimizer = LazyAdam([ours], learning_rate=0.01)
    keras = tf.keras.optimizers.legacy.Adam(0.01)
    for seed in range(8):
        gradient = np.random.default_rng(seed).normal(size=(8, 3)).astype(np.float32)
        optimizer.apply([sparse((np.arange(8), gradient))])
        keras.apply_gradients([(tf.constant(gradient), theirs)])
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_adagrad_keeps_one_number_per_row() -> None:
    optimizer = RowwiseAdagrad([tf.Variable(tf.zeros([1000, 64]))])
    assert [variable.shape for variable in optimizer.accumulators] == [(1000,)]


@every_optimizer
def test_gradient_of_lookups_lowers_a_loss(kind: str) -> None:
    table = tf.Variable(start())
    optimizer = OPTIMIZERS[kind]([table])
    target = tf.constant(start(4) + 1)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(tf.gather(table, [[0, 1], [1, 5]]) - tf.reshape(target, [2, 2, 3])))
        gradient = tape.gradient(loss, table)
        assert isinstance(gradient, tf.IndexedSlices)
        optimizer.apply([gradient])
        return loss

    losses = [step().numpy() for _ in range(30)]
    assert losses[-1] < 0.75 * losses[0]
    np.testing.assert_array_equal(table.numpy()[[2, 3, 4, 6, 7]], start()[[2, 3, 4, 6, 7]])


@every_optimizer
def test_restored_optimizer_goes_on_where_the_saved_one_stopped(kind: str, tmp_path: Path) -> None:
    table = tf.Variable(start())
    optimizer = OPTIMIZERS[kind]([table])
    for step in steps(3):
        optimizer.apply([sparse(step)])
    path = tf.train.Checkpoint(optimizer=optimizer, table=table).save(str(tmp_path / "checkpoint"))
    later = tf.Variable(tf.zeros([8, 3]))
    restored = OPTIMIZERS[kind]([later])
    tf.train.Checkpoint(optimizer=restored, table=later).restore(path).assert_consumed()
    for step in steps(6)[3:]:
        restored.apply([sparse(step)])
    np.testing.assert_allclose(later.numpy(), SLOW[kind](start(), steps(6)), rtol=1e-4, atol=1e-5)


def test_optimizer_is_chosen_by_its_name_in_the_experiment_file() -> None:
    table = tf.Variable(start())
    assert type(table_optimizer("adagrad", [table], learning_rate=0.5)) is RowwiseAdagrad
    lazy_adam = table_optimizer("lazy_adam", [table], learning_rate=0.5)
    assert type(lazy_adam) is LazyAdam
    assert lazy_adam.learning_rate == 0.5
