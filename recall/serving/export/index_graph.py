"""Searches an index with TensorFlow operations, for a SavedModel: exactly, or with the searcher of a ScaNN index."""

from __future__ import annotations

import abc
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from recall.core.arrays import Float32s
from recall.index.base import Index
from recall.index.scann import ScannIndex, tensorflow_ops


class GraphIndex(tf.Module, abc.ABC):
    """Find the k best items for lists of queries; an item has the best score of its entries and of the queries.

    Attributes:
      vectors: float32 variable [items * entries of each, dim], the entries of an item one after the other.
      entries_per_item: number of vectors of each item.
      items: number of items.
    """

    def __init__(self, vectors: Float32s, *, entries_per_item: int) -> None:
        super().__init__()
        self.entries_per_item = entries_per_item
        self.items = len(vectors) // entries_per_item
        # A variable, not a constant: a SavedModel writes constants into its graph, which holds at most 2 GB.
        self.vectors = tf.Variable(vectors, trainable=False, name="vectors")

    @abc.abstractmethod
    def search(self, queries: tf.Tensor, k: int, *, without: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Find rows and scores of the k best items.

        Args:
          queries: float32 [batch, queries, dim], one or several per list.
          k: items of each list, at most `items`.
          without: int32 [batch], a row that each list leaves out.

        Returns:
          int32 and float32 [batch, k], by falling score, equal scores by rising row. Where nothing is left, row -1 and
          score -inf.
        """

    def of(self, rows: tf.Tensor) -> tf.Tensor:
        """Return the vectors of items: int32 [batch] -> float32 [batch, entries of each, dim]."""
        places = rows[:, tf.newaxis] * self.entries_per_item + tf.range(self.entries_per_item)
        return tf.gather(self.vectors, places)


class ExactGraph(GraphIndex):
    """Search exactly: a matrix product and its largest numbers."""

    @classmethod
    def of_index(cls, index: Index) -> ExactGraph:
        """Make a graph of the vectors of any index."""
        vectors = index.vectors(np.arange(len(index), dtype=np.int32))  # [items, dim] or [items, entries, dim]
        several = vectors.shape[1] if vectors.ndim == 3 else 1
        return cls(vectors.reshape(-1, vectors.shape[-1]), entries_per_item=several)

    def search(self, queries: tf.Tensor, k: int, *, without: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Search exactly; see `GraphIndex.search`."""
        scores = _item_scores(queries, self.vectors, self.entries_per_item)  # [batch, items]
        if without is not None:
            own = tf.range(self.items)[tf.newaxis, :] == without[:, tf.newaxis]
            scores = tf.where(own, -np.inf, scores)
        best, rows = tf.math.top_k(scores, k)
        return tf.where(tf.math.is_inf(best), -1, rows), best


class ScannGraph(GraphIndex):
    """Search with ScaNN's TensorFlow ops, over the same partitions and codes as the given index."""

    def __init__(self, index: ScannIndex) -> None:
        super().__init__(np.asarray(index.items.vectors), entries_per_item=index.items.entries_per_item)
        self._ops, self._settings = tensorflow_ops(), index.scann_settings
        with tempfile.TemporaryDirectory() as folder:
            index.write(Path(folder))
            self._state = self._ops.ScannState(_tensors(Path(folder) / "scann"))
        self._state.dataset = self.vectors  # once, not twice

    def search(self, queries: tf.Tensor, k: int, *, without: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Search with ScaNN; see `GraphIndex.search`."""
        count, dim = queries.shape[1], queries.shape[2]
        # The best entries that hold k items hold the best k: every entry of another item is behind them.
        wanted = min(self.items, k + (without is not None)) * self.entries_per_item
        places, scores = self._entries(tf.reshape(queries, [-1, dim]), wanted)  # [batch * queries, wanted]
        rows = tf.reshape(places // self.entries_per_item, [-1, count * wanted])
        scores = tf.reshape(scores, [-1, count * wanted])
        if count > 1 or self.entries_per_item > 1:
            rows, scores = _once_each(rows, scores)
        if without is not None:
            scores = tf.where(rows == without[:, tf.newaxis], -np.inf, scores)
        best, columns = tf.math.top_k(scores, k)
        return tf.where(tf.math.is_inf(best), -1, tf.gather(rows, columns, batch_dims=1)), best

    def _entries(self, queries: tf.Tensor, wanted: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Find places and scores [queries, wanted] of entries, the same as `ScannIndex`."""
        leaves, reorder = self._settings.effort(wanted, self.items * self.entries_per_item)
        places, scores = self._ops.scann_search_batched(
            self._state.recreate_handle(), queries, wanted, reorder, leaves, True
        )
        # Where the searched leaves held fewer entries ScaNN fills up with row 0 and score NaN, and only to the longest
        # list of the batch: such queries are asked exactly.
        missing = [[0, 0], [0, wanted - tf.shape(places)[1]]]
        places = tf.ensure_shape(tf.pad(places, missing), [None, wanted])
        scores = tf.ensure_shape(tf.pad(scores, missing, constant_values=np.nan), [None, wanted])
        short = tf.where(tf.reduce_any(tf.math.is_nan(scores), axis=1))  # [queries that fell short, 1]

        def exactly() -> tuple[tf.Tensor, tf.Tensor]:
            """Ask the short queries exactly."""
            of_short = tf.gather(queries, short[:, 0])[:, tf.newaxis, :]
            best, columns = tf.math.top_k(_item_scores(of_short, self.vectors, 1), wanted)
            return tf.tensor_scatter_nd_update(places, short, columns), tf.tensor_scatter_nd_update(scores, short, best)

        places, scores = tf.cond(tf.size(short) > 0, exactly, lambda: (places, scores))
        return places, scores


def _item_scores(queries: tf.Tensor, vectors: tf.Tensor, entries_per_item: int) -> tf.Tensor:
    """Compute the best score of each item for each list of queries [batch, queries, dim]: float32 [batch, items]."""
    count, dim = queries.shape[1], queries.shape[2]
    scores = tf.matmul(tf.reshape(queries, [-1, dim]), vectors, transpose_b=True)  # [batch * queries, entries]
    items = vectors.shape[0] // entries_per_item
    return tf.reduce_max(tf.reshape(scores, [-1, count, items, entries_per_item]), axis=[1, 3])


def _once_each(rows: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Sort lists by rising row; the best entry of a row keeps its score, the others get -inf: both [lists, any]."""
    order = tf.argsort(-scores, axis=1, stable=True)
    rows, scores = tf.gather(rows, order, batch_dims=1), tf.gather(scores, order, batch_dims=1)
    order = tf.argsort(rows, axis=1, stable=True)  # by row, of one row's scores the best first
    rows, scores = tf.gather(rows, order, batch_dims=1), tf.gather(scores, order, batch_dims=1)
    is_repeat = tf.concat([tf.zeros_like(rows[:, :1], tf.bool), rows[:, 1:] == rows[:, :-1]], axis=1)
    return rows, tf.where(is_repeat, -np.inf, scores)


def _tensors(folder: Path) -> tuple[tf.Tensor, ...]:
    """Read a serialised searcher in the order of `scann_ops.ScannState`; a missing file gives an empty scalar."""

    def message(name: str) -> tf.Tensor:
        """Read a protocol buffer as bytes."""
        path = folder / name
        return tf.constant([path.read_bytes()]) if path.exists() else tf.constant("")

    def array(name: str, dtype: tf.DType) -> tf.Tensor:
        """Read an array."""
        path = folder / name
        return tf.constant(np.load(path, allow_pickle=False)) if path.exists() else tf.zeros([], dtype)

    return (
        message("scann_config.pb"),
        message("serialized_partitioner.pb"),
        array("datapoint_to_token.npy", tf.int32),
        message("ah_codebook.pb"),
        array("hashed_dataset.npy", tf.uint8),
        array("int8_dataset.npy", tf.int8),
        array("int8_multipliers.npy", tf.float32),
        array("dp_norms.npy", tf.float32),
        tf.zeros([], tf.float32),  # the dataset: the caller has it already
    )
