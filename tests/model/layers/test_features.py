"""Tests each kind of column from the encoded table to the dense input, missing values included."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from recall.data.features.table_encoder import EncodedColumn
from recall.model.layers.features import EmbeddingTable, FeatureInput, FeatureTable, dense_stack

AUTHOR = EncodedColumn("author", "author", "behaviour", "code", 5)
TAGS = EncodedColumn("tags", "tags", "meta", "codes", 7)
LENGTH = EncodedColumn("length", "length", "meta", "number", 1)
TEXT = EncodedColumn("text", "text", "meta", "vector", 2)
COLUMNS = (AUTHOR, TAGS, LENGTH, TEXT)

VECTOR = pa.list_(pa.float32(), 2)
ROWS = pa.table(
    {
        "author": pa.array([2, 0, 1, 4], pa.int32()),  # 0 is missing, 1 out of vocabulary
        "tags": pa.array([[3, 2, 6], [], [5], None], pa.list_(pa.int32())),
        "length": pa.array([-0.5, None, 0.0, 2.0], pa.float32()),
        "text": pa.array([[3.0, 4.0], [0.6, 0.8], None, [-1.0, 0.0]], VECTOR),
        "spare": pa.array(["not", "a", "feature", "of it"]),
    }
)


@pytest.fixture(autouse=True)
def seed() -> None:
    tf.keras.utils.set_random_seed(11)


def one(column: EncodedColumn, values: pa.Array, *, dim: int = 3) -> tuple[FeatureInput, np.ndarray]:
    """Build a layer for one column, and its output for all rows of a table of that column."""
    layer = FeatureInput([column], dim=dim, name="input")
    table = FeatureTable([column], pa.table({column.name: values}))
    return layer, layer(table.gather(tf.range(table.size))).numpy()


# The table


def test_table_holds_every_kind_of_column() -> None:
    features = FeatureTable(COLUMNS, ROWS).gather(tf.range(4))
    assert set(features) == {"author", "tags", "length", "text"}
    assert features["author"].numpy().tolist() == [2, 0, 1, 4]
    assert features["tags"].numpy().tolist() == [[3, 2, 6], [0, 0, 0], [5, 0, 0], [0, 0, 0]]
    # The last column says whether the value is missing.
    assert features["length"].numpy().tolist() == [[-0.5, 0], [0, 1], [0, 0], [2, 0]]
    np.testing.assert_allclose(features["text"], [[3, 4, 0], [0.6, 0.8, 0], [0, 0, 1], [-1, 0, 0]])


def test_table_gathers_rows_in_any_order_shape_and_number() -> None:
    table = FeatureTable(COLUMNS, ROWS)
    assert table.size == 4
    features = table.gather(tf.constant([[3, 0, 3], [1, 1, 2]]))
    assert features["author"].numpy().tolist() == [[4, 2, 4], [0, 0, 1]]
    assert {name: tuple(values.shape) for name, values in features.items()} == {
        "author": (2, 3),
        "tags": (2, 3, 3),
        "length": (2, 3, 2),
        "text": (2, 3, 3),
    }
    assert all(values.shape[0] == 0 for values in table.gather(tf.zeros([0], tf.int32)).values())


def test_table_reads_chunks_and_slices_like_the_whole() -> None:
    whole = FeatureTable(COLUMNS, ROWS).gather(tf.constant([1, 2, 3]))
    in_chunks = pa.concat_tables([ROWS.slice(0, 1), ROWS.slice(1, 2), ROWS.slice(3)])
    for table, rows in ((in_chunks, [1, 2, 3]), (in_chunks.slice(1), [0, 1, 2])):
        features = FeatureTable(COLUMNS, table).gather(tf.constant(rows))
        for name in ("author", "length", "text"):
            np.testing.assert_array_equal(features[name], whole[name])
        shortest = features["tags"].shape[1]  # the slice has lost the row with the most tags
        np.testing.assert_array_equal(features["tags"], whole["tags"][:, :shortest])


def test_table_of_nothing_but_missing_values_can_be_built() -> None:
    columns = {
        "author": pa.array([0, 0], pa.int32()),
        "tags": pa.array([None, []], pa.list_(pa.int32())),
        "length": pa.array([None, None], pa.float32()),
        "text": pa.array([None, None], VECTOR),
    }
    features = FeatureTable(COLUMNS, pa.table(columns)).gather(tf.constant([0, 1]))
    assert features["tags"].numpy().tolist() == [[0], [0]]
    assert features["length"].numpy().tolist() == [[0, 1], [0, 1]]
    assert features["text"].numpy().tolist() == [[0, 0, 1], [0, 0, 1]]


# The dense input


def test_input_is_as_wide_as_its_parts_and_finite_where_all_is_missing() -> None:
    layer = FeatureInput(COLUMNS, dim=6, name="input")
    output = layer(FeatureTable(COLUMNS, ROWS).gather(tf.constant([[0, 1], [2, 3]]))).numpy()
    # author: at most dim, tags: dim, length: value and flag, text: dim.
    assert output.shape == (2, 2, 6 + 6 + 2 + 6)
    assert np.isfinite(output).all()


def test_input_reads_its_own_columns_only() -> None:
    table = FeatureTable(COLUMNS, ROWS)
    layer = FeatureInput([TAGS], dim=4, name="input")
    features = table.gather(tf.range(4))
    changed = {**features, "author": features["author"] * 0, "text": features["text"] + 5}
    np.testing.assert_array_equal(layer(features), layer(changed))


def test_code_is_looked_up_and_missing_differs_from_unknown() -> None:
    layer, output = one(AUTHOR, pa.array([3, 0, 1, 3], pa.int32()))
    np.testing.assert_array_equal(output, layer.tables["author"].weight.numpy()[[3, 0, 1, 3]])
    assert not np.array_equal(output[1], output[2])


def test_set_of_tags_is_the_mean_of_its_rows_in_any_order() -> None:
    layer, output = one(TAGS, pa.array([[3, 2, 6], [6, 3, 2], [5]], pa.list_(pa.int32())))
    rows = layer.tables["tags"].weight.numpy()
    np.testing.assert_allclose(output[0], rows[[2, 3, 6]].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(output[1], output[0], rtol=1e-5)
    np.testing.assert_allclose(output[2], rows[5], rtol=1e-6)


def test_empty_set_of_tags_is_the_zero_vector() -> None:
    _, output = one(TAGS, pa.array([[3, 2], [], None], pa.list_(pa.int32())))
    np.testing.assert_array_equal(output[1:], np.zeros((2, 3)))


def test_padding_of_tags_has_no_influence_and_gets_no_gradient() -> None:
    layer = FeatureInput([TAGS], dim=3, name="input")
    short, long = tf.constant([[4, 2]]), tf.constant([[4, 2, 0, 0, 0]])
    np.testing.assert_allclose(layer({"tags": short}), layer({"tags": long}), rtol=1e-6)
    table = layer.tables["tags"].weight
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer({"tags": long}))
    gradient = tf.convert_to_tensor(tape.gradient(loss, table)).numpy()
    np.testing.assert_allclose(gradient[[2, 4]], 0.5)
    np.testing.assert_array_equal(gradient[[0, 1, 3, 5, 6]], 0)


def test_missing_number_is_told_from_the_mean() -> None:
    _, output = one(LENGTH, pa.array([0.0, None, 1.5], pa.float32()))
    assert output.tolist() == [[0, 0], [0, 1], [1.5, 0]]


def test_vectors_that_differ_in_length_alone_are_the_same_input() -> None:
    _, output = one(TEXT, pa.array([[3.0, 4.0], [0.03, 0.04], [300.0, 400.0], [4.0, 3.0]], VECTOR))
    np.testing.assert_allclose(output[1:3], output[[0, 0]], rtol=1e-5)
    assert not np.allclose(output[3], output[0])


def test_missing_vector_is_a_learned_one_whatever_stands_in_its_place() -> None:
    layer, output = one(TEXT, pa.array([None, [0.0, 0.0], [1.0, 0.0]], VECTOR))
    # Kernel rows: one per dimension, and the row of the flag.
    flag, bias = (weight.numpy() for weight in layer.projections["text"].weights)
    np.testing.assert_allclose(output[0], flag[2] + bias, rtol=1e-6)
    assert not np.allclose(output[0], output[1])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer({"text": tf.constant([[0.0, 0.0, 1.0]])}))
    gradient = tape.gradient(loss, layer.projections["text"].kernel).numpy()
    np.testing.assert_array_equal(gradient, [[0, 0, 0], [0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("column", "values"),
    [(AUTHOR, pa.array([3, 0, 3], pa.int32())), (TAGS, pa.array([[3, 2], [], [3]], pa.list_(pa.int32())))],
)
def test_gradients_of_tables_are_sparse(column: EncodedColumn, values: pa.Array) -> None:
    layer = FeatureInput([column], dim=4, name="input")
    features = FeatureTable([column], pa.table({column.name: values})).gather(tf.constant([0, 2, 2]))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(layer(features)))
    gradient = tape.gradient(loss, layer.tables[column.name].weight)
    assert isinstance(gradient, tf.IndexedSlices)
    assert gradient.indices.shape.rank == 1
    assert set(gradient.indices.numpy().tolist()) <= {0, 2, 3}


def test_tables_of_an_input_are_found_among_the_submodules_of_a_model() -> None:
    class Model(tf.keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.input_layer = FeatureInput([AUTHOR, TAGS, TEXT], dim=4, name="input")

    found = [layer for layer in Model().submodules if isinstance(layer, EmbeddingTable)]
    assert sorted(tuple(layer.weight.shape) for layer in found) == [(5, 4), (7, 4)]


def test_embedding_table_looks_up_codes_of_any_shape() -> None:
    table = EmbeddingTable(6, 3, name="table")
    assert table(tf.constant([[1, 2], [5, 5]])).shape == (2, 2, 3)
    np.testing.assert_array_equal(table(tf.constant([4]))[0], table.weight[4])


def test_stack_without_hidden_layers_is_linear() -> None:
    stack = dense_stack((), 3, dropout=0.5, name="stack")
    inputs = tf.random.normal([3, 4])
    zero = stack(tf.zeros([1, 4]))
    np.testing.assert_allclose(stack(inputs) * 2 - zero, stack(inputs * 2), rtol=1e-4, atol=1e-5)


def test_stack_drops_units_in_training_only() -> None:
    stack = dense_stack((32,), 3, dropout=0.5, name="stack")
    inputs = tf.random.normal([3, 4])
    np.testing.assert_array_equal(stack(inputs), stack(inputs))
    assert not np.allclose(stack(inputs, training=True), stack(inputs))


def test_stack_gives_an_input_of_zeros_a_direction() -> None:
    # Unit length cannot be given to the zero vector, and the gradient of trying is a million times too large.
    inputs = tf.zeros([1, 4])
    for seed in range(5):
        tf.keras.utils.set_random_seed(seed)
        stack = dense_stack((8,), 16, dropout=0.0, name="stack")
        with tf.GradientTape() as tape:
            vector = tf.math.l2_normalize(stack(inputs), axis=-1)
            loss = tf.reduce_sum(vector[:, :3])
        assert np.linalg.norm(vector) == pytest.approx(1, rel=1e-5)
        gradients = tape.gradient(loss, stack.trainable_variables)
        assert max(np.abs(gradient).max() for gradient in gradients) < 200


def test_rows_of_a_large_table_are_drawn_block_by_block_and_all_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recall.model.layers.features._ROWS_DRAWN", 400)
    rows = EmbeddingTable(1_000, 16, name="large").weight.numpy()
    assert len(np.unique(rows)) > 0.99 * rows.size
    for block in (rows[:400], rows[400:800], rows[800:]):
        assert abs(block.mean()) < 0.005
        assert block.std() == pytest.approx(0.05, rel=0.1)


@pytest.mark.slow
def test_a_large_table_is_made_without_a_second_one_beside_it() -> None:
    code = """
from pathlib import Path
from recall.model.layers.features import (EmbeddingTable)

def peak() -> int:  # kB; getrusage would start from that of the process that started this one
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0])

EmbeddingTable(1_000, 64, name="small")  # what TensorFlow allocates once
before = peak()
EmbeddingTable(3_000_000, 64, name="large")
print(1024 * (peak() - before) / (3_000_000 * 64 * 4))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.9 < float(result.stdout) < 1.8
