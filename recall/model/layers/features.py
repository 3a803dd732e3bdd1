"""Encoded features of a table's rows, and the layers that turn them into one dense input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from recall.data.features.table_encoder import EncodedColumn
from recall.model.layers.activations import gelu

Features = dict[str, tf.Tensor]
_ROWS_DRAWN = 1 << 18


class FeatureTable:
    """All rows of an encoded table as tensors, gathered by row, so that no example carries content.

    By kind of column: code int32 [rows]; codes int32 [rows, most tags], padded with 0; number float32
    [rows, 2], the value (0 where missing) and whether it is missing; vector float32 [rows, dim + 1], likewise.
    """

    def __init__(self, columns: Sequence[EncodedColumn], encoded: pa.Table) -> None:
        self.columns = tuple(columns)
        self.size = encoded.num_rows
        # Variables, not constants: a SavedModel writes constants into its graph, which holds at most 2 GB.
        self.variables = {
            name: tf.Variable(values, trainable=False, name=name)
            for name, values in dense_features(columns, encoded).items()
        }

    def gather(self, rows: tf.Tensor) -> Features:
        """Features of some rows: each variable of the table with its first dimension replaced by that of `rows`."""
        return {name: tf.gather(variable, rows) for name, variable in self.variables.items()}


def dense_features(columns: Iterable[EncodedColumn], encoded: pa.Table) -> dict[str, np.ndarray]:
    """Encoded rows as arrays, as `FeatureTable` holds them; without the milliseconds that its variables take."""
    return {column.name: _dense(column, encoded) for column in columns}


def _dense(column: EncodedColumn, encoded: pa.Table) -> np.ndarray:
    values = encoded[column.name].combine_chunks()
    match column.kind:
        case "code":
            return np.asarray(values, dtype=np.int32)
        case "codes":
            lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
            codes = np.zeros((len(values), max(1, int(lengths.max(initial=0)))), np.int32)
            codes[np.arange(codes.shape[1]) < lengths[:, np.newaxis]] = values.flatten().to_numpy(zero_copy_only=False)
            return codes
        case "number":
            number = values.to_numpy(zero_copy_only=False).astype(np.float32)
            missing = np.isnan(number)
            return np.stack([np.where(missing, 0, number), missing], axis=1).astype(np.float32)
        case "vector":
            missing = values.is_null().to_numpy(zero_copy_only=False)
            vectors = np.zeros((len(values), column.size + 1), np.float32)
            flat = values.drop_null().flatten().to_numpy(zero_copy_only=False)
            vectors[~missing, : column.size] = flat.reshape(-1, column.size)
            vectors[:, column.size] = missing
            return vectors
    raise AssertionError(column.kind)


class EmbeddingTable(tf.keras.layers.Layer):
    """Rows of trainable vectors; its gradient is sparse and it is updated by a `TableOptimizer`."""

    def __init__(self, size: int, width: int, *, name: str) -> None:
        super().__init__(name=name)
        is_small = size <= _ROWS_DRAWN
        self.weight = self.add_weight(name="rows", shape=(size, width), initializer=_normal() if is_small else "zeros")
        if not is_small:
            # Drawn as a whole, a table would stand beside all that the initializer makes of it on the way; assigned to
            # a slice, TensorFlow would copy it for each block.
            for start in range(0, size, _ROWS_DRAWN):
                rows = tf.range(start, min(start + _ROWS_DRAWN, size))
                self.weight.scatter_update(tf.IndexedSlices(_normal()((len(rows), width)), rows))

    def call(self, codes: tf.Tensor) -> tf.Tensor:
        """int [...] -> float32 [..., width]."""
        return tf.gather(self.weight, codes)


class FeatureInput(tf.keras.layers.Layer):
    """Features side by side as one dense input.

    Codes are embedded, sets of codes averaged (an empty set is the zero vector), numbers passed on with their
    missing flag, vectors scaled to unit length and projected (a missing vector is replaced by a learned one).
    """

    def __init__(self, columns: Iterable[EncodedColumn], *, dim: int, name: str) -> None:
        super().__init__(name=name)
        self.columns = tuple(columns)
        self.tables = {
            column.name: EmbeddingTable(column.size, _width(column, dim), name=f"{name}_{column.name}")
            for column in self.columns
            if column.kind in ("code", "codes")
        }
        self.projections = {
            column.name: tf.keras.layers.Dense(dim, name=f"{name}_{column.name}")
            for column in self.columns
            if column.kind == "vector"
        }

    def call(self, features: Features) -> tf.Tensor:
        """Features [...] of `FeatureTable.gather` -> float32 [..., width]."""
        return tf.concat([self._dense(column, features[column.name]) for column in self.columns], axis=-1)

    def _dense(self, column: EncodedColumn, values: tf.Tensor) -> tf.Tensor:
        if column.kind == "code":
            return self.tables[column.name](values)
        if column.kind == "codes":
            present = tf.cast(values > 0, tf.float32)[..., tf.newaxis]  # [..., tags, 1]
            total = tf.reduce_sum(self.tables[column.name](values) * present, axis=-2)  # [..., width]
            return total / tf.maximum(tf.reduce_sum(present, axis=-2), 1.0)
        if column.kind == "number":
            return values
        vector, missing = values[..., :-1], values[..., -1:]
        # The flag feeds a column of the projection: that column is the learned stand-in of a missing vector.
        return self.projections[column.name](tf.concat([tf.math.l2_normalize(vector, axis=-1), missing], axis=-1))


def _normal() -> tf.keras.initializers.Initializer:
    """Another one for each use: one that is used again draws the same numbers again."""
    return tf.keras.initializers.RandomNormal(stddev=0.05)


def is_present(column: EncodedColumn, values: tf.Tensor) -> tf.Tensor:
    """Whether items have a value in a column of `FeatureTable.gather` [items, ...]: bool [items]."""
    if column.kind == "code":
        return values > 0
    if column.kind == "codes":
        return tf.reduce_any(values > 0, axis=-1)
    return values[..., -1] == 0  # numbers and vectors end in the flag of a missing one


def _width(column: EncodedColumn, dim: int) -> int:
    """Tags get the full width; others six times the fourth root of their size, a common rule, up to it."""
    if column.kind == "codes":
        return dim
    return int(min(dim, max(4, round(6 * column.size**0.25))))


def dense_stack(
    hidden: Sequence[int], width: int, *, dropout: float, name: str, starts_at_zero: bool = False
) -> tf.keras.Sequential:
    """GELU layers with dropout, then a linear layer to `width`; beside a shortcut it may start as nothing."""
    layers: list[tf.keras.layers.Layer] = []
    for units in hidden:
        layers += [tf.keras.layers.Dense(units, activation=gelu), tf.keras.layers.Dropout(dropout)]
    # A bias of zeros would send an input of zeros (no tags, no history) to the zero vector, which has no direction:
    # l2_normalize multiplies its gradient by 1e6, which then keeps Adam's steps small for thousands of batches.
    bias = tf.keras.initializers.RandomNormal(stddev=0.01)
    kernel = "zeros" if starts_at_zero else "glorot_uniform"
    last = tf.keras.layers.Dense(width, kernel_initializer=kernel, bias_initializer=bias)
    return tf.keras.Sequential([*layers, last], name=name)
