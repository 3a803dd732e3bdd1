"""Checks and holds the items that an index is built from: unique ids, each with one finite vector or several."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recall.core.arrays import Float32s, Int32s
from recall.core.canonical import plain
from recall.core.errors import DataError, shown

Ids = npt.NDArray[np.object_]

_SHOWN = 5
_FLOAT32 = np.dtype(np.float32)  # compared with a type, a dtype makes one of it each time


@dataclasses.dataclass(frozen=True)
class ItemIds:
    """Hold unique ids by row, and find the row of an id.

    Attributes:
      ids: string array [items].
    """

    ids: pa.StringArray

    @functools.cached_property
    def names(self) -> Ids:
        """Return the ids and a last None, object [items + 1], so that row -1 (no result) has the id None."""
        return np.append(self.ids.to_numpy(zero_copy_only=False), [None]).astype(object)

    @functools.cached_property
    def _row_of(self) -> dict[str, int]:
        """Map ids to rows."""
        return {name: row for row, name in enumerate(self.names[:-1])}

    def rows(self, ids: Any) -> Int32s:
        """Return the rows of ids, int32 of the same length.

        Raises:
          DataError: some ids are not in the index; names the first ones.
        """
        return require_known(ids, [self.row(name) for name in ids])

    def row(self, name: str) -> int:
        """Return the row of an id, -1 if it is not in the index."""
        return self._row_of.get(name, -1)

    def rows_there(self, ids: Iterable[str]) -> Int32s:
        """Return the rows of ids, int32, without the unknown ids."""
        row_of = self._row_of
        return np.array([row_of[name] for name in ids if name in row_of], np.int32)


@dataclasses.dataclass(frozen=True)
class Items(ItemIds):
    """Hold checked ids and vectors by row; `Items.checked` makes them from unchecked ones.

    Attributes:
      ids: string array [items], unique.
      vectors: float32 [entries, dim], finite, C-contiguous; possibly a read-only memory map. Every item has as many
        entries, which follow each other: with one, entry and row of an item are the same.
    """

    vectors: Float32s

    @classmethod
    def checked(cls, ids: Any, vectors: Any) -> Items:
        """Check ids and vectors of a caller and make items of them.

        Args:
          ids: strings [items] as an Arrow array, a NumPy array or a list; no two equal, none missing.
          vectors: real numbers [items, dim], or [items, entries of each, dim]; row i belongs to ids[i].

        Raises:
          DataError: names the rows that are wrong.
        """
        names = _strings(ids)
        several = 1
        if isinstance(vectors, np.ndarray) and vectors.ndim == 3:
            items, several, dim = vectors.shape
            vectors = vectors.reshape(items * several, dim)
        matrix = float_matrix(vectors, "vectors")  # [entries, dim]
        if len(names) * several != len(matrix):
            found = len(matrix) // max(1, several)
            raise DataError(f"{len(names):,} ids but {found:,} vectors; row i of the vectors must belong to ids[i]")
        if not matrix.size:
            raise DataError(f"vectors: expected at least one row and one dimension, found shape {matrix.shape}")
        _require_unique(names)
        return cls(names, matrix)

    @property
    def entries_per_item(self) -> int:
        """Return the number of vectors of each item."""
        return len(self.vectors) // len(self.ids)

    @property
    def by_item(self) -> Float32s:
        """Return the vectors as float32 [items, dim], or [items, entries of each, dim]."""
        several = self.entries_per_item
        return self.vectors.reshape(-1, several, self.vectors.shape[1]) if several > 1 else self.vectors

    def take(self, rows: Int32s) -> Items:
        """Copy some items, in the order of the given rows."""
        return Items(self.ids.take(pa.array(rows)), np.asarray(self.by_item[rows]).reshape(-1, self.vectors.shape[1]))

    def with_vectors(self, vectors: Float32s) -> Items:
        """Return the same items with other vectors, float32 [entries, any]; both look ids up in one place."""
        return _OtherVectors(self.ids, vectors, self)

    def of_unit_length(self, width: int) -> Items:
        """Return the same items with the first `width` numbers of their vectors, scaled by `unit_vectors`.

        Raises:
          DataError: the vectors do not have so many numbers.
        """
        if not 1 <= width <= (dim := self.vectors.shape[1]):
            raise DataError(f"width: expected 1 to {dim}, the dimensions of the vectors, found {width}")
        return self.with_vectors(unit_vectors(self.vectors[:, :width]))


@dataclasses.dataclass(frozen=True)
class _OtherVectors(Items):
    """Hold other vectors of some items; ids are looked up there, so that no second table of ids is made."""

    of: Items

    @property
    def names(self) -> Ids:
        """Return the ids and a last None; see `ItemIds.names`."""
        return self.of.names

    def row(self, name: str) -> int:
        """Return the row of an id; see `ItemIds.row`."""
        return self.of.row(name)

    def rows_there(self, ids: Iterable[str]) -> Int32s:
        """Return the rows of ids; see `ItemIds.rows_there`."""
        return self.of.rows_there(ids)


def unit_vectors(vectors: Float32s) -> Float32s:
    """Scale vectors to unit length, in a new array; a vector of zeros stays one.

    Args:
      vectors: float32 [..., dim], finite.
    """
    # The largest number first: squares of very large or small numbers would leave float32.
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    unit = np.divide(vectors, largest, out=np.zeros(vectors.shape, np.float32), where=largest > 0)
    lengths = np.sqrt(np.einsum("...d,...d->...", unit, unit))[..., np.newaxis]
    np.divide(unit, lengths, out=unit, where=lengths > 0)
    return unit


def require_known(ids: Any, rows: list[int]) -> Int32s:
    """Return rows as int32 if every id has one.

    Raises:
      DataError: the row of an id is -1; names the first ones.
    """
    unknown = [str(name) for name, row in zip(ids, rows, strict=True) if row < 0]
    if unknown:
        raise DataError(f"{len(unknown):,} of {len(rows):,} ids are not in the index: {listed(unknown)}")
    return np.asarray(rows, dtype=np.int32)


def float_matrix(values: Any, name: str) -> Float32s:
    """Return `values` as a C-contiguous float32 matrix.

    Raises:
      DataError: not a matrix of real numbers, or NaN or infinite somewhere; says in which rows.
    """
    try:
        matrix = np.ascontiguousarray(values)
        if matrix.dtype != _FLOAT32:
            with np.errstate(over="ignore"):  # becomes infinite, which is reported below
                matrix = matrix.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: expected rows of numbers, all of one length, found {error}") from None
    if matrix.ndim != 2:
        raise DataError(f"{name}: expected a matrix [rows, dim], found shape {matrix.shape}")
    # A sum of squares is finite only if all numbers are: 0.4 us for a query of 64 dimensions, where looking at each of
    # them takes 1.3 us. Where the sum overflows all are looked at.
    flat = matrix.reshape(-1)
    if not math.isfinite(flat @ flat) and not np.isfinite(matrix).all():
        bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
        raise DataError(
            f"{name}: {bad.size:,} of {len(matrix):,} rows hold NaN or infinite numbers: rows {listed(bad)}; "
            "a vector must be finite in float32"
        )
    return matrix


def _strings(ids: Any) -> pa.StringArray:
    """Return ids as an Arrow array of strings, or raise a DataError."""
    try:
        column = ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(ids, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:  # a surrogate, or a number beyond int64
        raise DataError(f"ids: expected strings, found {shown(error, most=300)}") from None
    column = plain(column)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or not len(column)):
        raise DataError(f"ids: expected strings, found {column.type}; write whole numbers as decimal text")
    column = column.cast(pa.string())
    names = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if names.null_count:
        missing = np.flatnonzero(names.is_null().to_numpy(zero_copy_only=False))
        raise DataError(f"ids: {missing.size:,} are missing: rows {listed(missing)}")
    return names


def _require_unique(ids: pa.StringArray) -> None:
    """Raise a DataError if an id stands more than once."""
    codes = ids.dictionary_encode().indices.to_numpy()  # [items]
    repeats = np.bincount(codes)
    if repeats.max() == 1:
        return
    repeated = np.flatnonzero(repeats > 1)
    first = np.flatnonzero(codes == repeated[0])
    raise DataError(
        f"ids: {repeated.size:,} stand more than once, e.g. {ids[int(first[0])].as_py()!r} at rows {listed(first)}; "
        "every item needs an id of its own"
    )


def listed(values: Any) -> str:
    """Format the first of some values for an error message."""
    first = ", ".join(shown(value) for value in values[:_SHOWN])
    return first if len(values) <= _SHOWN else f"{first}, ..."
