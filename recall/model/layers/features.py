"""Holds encoded features as tensors, and turns them into one dense input.

`FeatureTable` gathers the features of rows; `FeatureInput` embeds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from recall.data.features.table_encoder import EncodedColumn
from recall.model.layers.activations import gelu
from recall.model.randomness import dropout_layer

Features = dict[str, tf.Tensor]
_ROWS_DRAWN = 1 << 18


class FeatureTable:
    """Hold all rows of an encoded table as tensors, to be gathered by row, so that examples carry no content.

    By kind of column: code int32 [rows]; codes int32 [rows, most tags], padded with 0; number float32 [rows, 2], the
    value (0 if missing) and 1 if it is missing; vector float32 [rows, dim + 1], likewise.

    Attributes:
      columns: the encoded columns.
      size: number of rows.
      variables: column name -> its values.
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
        """Gather features of int [...] rows: each variable with its first dimension replaced by the shape of `rows`."""
        return {name: tf.gather(variable, rows) for name, variable in self.variables.items()}


def dense_features(columns: Iterable[EncodedColumn], encoded: pa.Table) -> dict[str, np.ndarray]:
    """Convert encoded rows to the arrays of a `FeatureTable`, without its variables, which take milliseconds."""
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
    """Hold a table of trainable vectors. Its gradient is sparse, and a `TableOptimizer` updates it.

    Args:
      size: number of codes.
      width: width of a vector.
      name: name of the layer.
      of: the encoded column, or the further history of a domain of its own, that the codes belong to.
    """

    def __init__(self, size: int, width: int, *, name: str, of: str = "") -> None:
        super().__init__(name=name)
        self.of = of
        is_small = size <= _ROWS_DRAWN
        self.weight = self.add_weight(name="rows", shape=(size, width), initializer=_normal() if is_small else "zeros")
        if not is_small:
            # Blocks, since drawing the whole table needs several times its memory. Scattered, since an assignment to a
            # slice copies the whole table for each block.
            for start in range(0, size, _ROWS_DRAWN):
                rows = tf.range(start, min(start + _ROWS_DRAWN, size))
                self.weight.scatter_update(tf.IndexedSlices(_normal()((len(rows), width)), rows))

    def call(self, codes: tf.Tensor) -> tf.Tensor:
        """Look up vectors: int [...] -> float32 [..., width]."""
        return tf.gather(self.weight, codes)


class FeatureInput(tf.keras.layers.Layer):
    """Concatenate features to one dense input.

    Codes are embedded, sets of codes averaged (an empty set is the zero vector), numbers passed on with their missing
    flag, vectors scaled to unit length and projected (a learned vector replaces a missing one).
    """

    def __init__(self, columns: Iterable[EncodedColumn], *, dim: int, name: str) -> None:
        super().__init__(name=name)
        self.columns = tuple(columns)
        self.tables = {
            column.name: EmbeddingTable(column.size, _width(column, dim), name=f"{name}_{column.name}", of=column.name)
            for column in self.columns
            if column.kind in ("code", "codes")
        }
        self.projections = {
            column.name: tf.keras.layers.Dense(dim, name=f"{name}_{column.name}")
            for column in self.columns
            if column.kind == "vector"
        }

    def call(self, features: Features) -> tf.Tensor:
        """Convert features [...] of `FeatureTable.gather` to float32 [..., width]."""
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
        # The flag selects a column of the projection: the learned replacement of a missing vector.
        return self.projections[column.name](tf.concat([tf.math.l2_normalize(vector, axis=-1), missing], axis=-1))


def _normal() -> tf.keras.initializers.Initializer:
    """Make a new initializer for each use, since an initializer that is used twice draws the same numbers again."""
    return tf.keras.initializers.RandomNormal(stddev=0.05)


def is_present(column: EncodedColumn, values: tf.Tensor) -> tf.Tensor:
    """Mark the items that have a value in a column of `FeatureTable.gather`, [items, ...]: bool [items]."""
    if column.kind == "code":
        return values > 0
    if column.kind == "codes":
        return tf.reduce_any(values > 0, axis=-1)
    return values[..., -1] == 0  # numbers and vectors end in the missing flag


def _width(column: EncodedColumn, dim: int) -> int:
    """Return the width of an embedding: `dim` for tags, else six times the fourth root of the vocabulary's size.

    The fourth root is a common rule; the width is at least 4 and at most `dim`. It stays when the vocabulary grows.
    """
    if column.kind == "codes":
        return dim
    return int(min(dim, max(4, round(6 * (column.first_size or column.size) ** 0.25))))


def dense_stack(
    hidden: Sequence[int], width: int, *, dropout: float, name: str, starts_at_zero: bool = False
) -> tf.keras.Sequential:
    """Build GELU layers with dropout and a last linear layer to `width`.

    Args:
      hidden: widths of the GELU layers.
      width: width of the output.
      dropout: rate after each GELU layer.
      name: name of the stack.
      starts_at_zero: whether the last kernel starts at zero, for a stack that is added to a shortcut.
    """
    layers: list[tf.keras.layers.Layer] = []
    for units in hidden:
        layers += [tf.keras.layers.Dense(units, activation=gelu), dropout_layer(dropout)]
    # A bias of zeros would send an input of zeros (no tags, no history) to the zero vector, which has no direction:
    # l2_normalize multiplies its gradient by 1e6, which then keeps Adam's steps small for thousands of batches.
    bias = tf.keras.initializers.RandomNormal(stddev=0.01)
    kernel = "zeros" if starts_at_zero else "glorot_uniform"
    last = tf.keras.layers.Dense(width, kernel_initializer=kernel, bias_initializer=bias)
    return tf.keras.Sequential([*layers, last], name=name)
