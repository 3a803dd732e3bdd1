"""Reads embedding columns: one dense vector per row, from a `.npy` file or a list column.

Everywhere in recall a vector column is a fixed_size_list<float32> in which null means that the row has no vector.
A vector of zeros has no direction and is how many encoders write "nothing to encode": it is read as missing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numpy.lib.format import MAGIC_PREFIX

from recall.core.arrays import Bools, Float32s, Float64s, Int64s
from recall.core.errors import DataError

# Vectors of one encoder differ in length by tens at most.
_LONGER = 1_000.0


def read_npy(path: Path, *, rows: int, key: str, table: str) -> pa.FixedSizeListArray:
    """Read a `.npy` file that is aligned with a table.

    Args:
      path: numbers of shape [rows, dim].
      rows: rows of the table.
      key: configuration key that names the file, for errors.
      table: file name of the table, for errors.

    Returns:
      fixed_size_list<float32>[dim]; rows of zeros are null.

    Raises:
      DataError: not a .npy file of numbers, not two-dimensional, another number of rows, NaN or infinity in some row.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
                raise ValueError("it does not begin like a .npy file")  # numpy.load would take it for a pickle
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{key}: {path} cannot be read as .npy ({' '.join(str(error).split())}); write it again with numpy.save"
        ) from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        found = f"{vectors.dtype} of shape {vectors.shape}" if isinstance(vectors, np.ndarray) else "several arrays"
        raise DataError(f"{key}: {path.name} holds {found}; expected one array of numbers [{rows}, dim]")
    if len(vectors) != rows:
        raise DataError(
            f"{key}: {path.name} has {len(vectors):,} rows but {table} has {rows:,}; "
            f"row i must be the vector of line i of {table}"
        )
    return vector_array(vectors, what=f"{key}: {path.name}")


def vector_array(vectors: npt.NDArray[np.generic], *, what: str = "vectors") -> pa.FixedSizeListArray:
    """Turn numbers [rows, dim] into a vector column; rows of zeros are null.

    Raises:
      DataError: NaN or infinity; names the rows.
    """
    values = np.ascontiguousarray(vectors, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise DataError(
            f"{what}: NaN or infinity in {len(bad):,} rows (counted from 0): {_some(bad)}; "
            "write zeros where a row has no vector"
        )
    missing = ~values.any(axis=1)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1], mask=pa.array(missing))


def vectors_of(column: pa.Array | pa.ChunkedArray, *, what: str = "vectors") -> tuple[Float32s, Bools]:
    """Return the vectors of a list column.

    Args:
      column: lists of numbers, all of one length; null or empty where a row has no vector.
      what: name of the column in an error.

    Returns:
      float32 [rows, dim], zeros where missing (dim is 0 if all are), and bool [rows], true where present.

    Raises:
      DataError: not lists of numbers, differing lengths, NaN, infinity or null inside a vector.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_null(array.type):
        return np.zeros((len(array), 0), np.float32), np.zeros(len(array), bool)
    lists = (
        pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type)
    )
    element = array.type.value_type if lists else array.type
    if not lists or not (pa.types.is_floating(element) or pa.types.is_integer(element) or pa.types.is_null(element)):
        raise DataError(f"{what}: expected lists of numbers, found {array.type}; give a .npy file or a list column")
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    present = lengths > 0
    dim = int(lengths[present][0]) if present.any() else 0
    others = np.flatnonzero(present & (lengths != dim))
    if len(others):
        raise DataError(
            f"{what}: the first vector has {dim} numbers, {len(others):,} rows have another length "
            f"(counted from 0: {_some(others)}); all need one length, null where a row has none"
        )
    values = np.zeros((len(array), dim), np.float32)
    flat = pc.list_flatten(array.filter(pa.array(present)))
    values[present] = (
        flat.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False).reshape(int(present.sum()), dim)
    )
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise DataError(f"{what}: NaN or infinity in {len(bad):,} rows (counted from 0): {_some(bad)}; use null rows")
    return values, np.asarray(values.any(axis=1), dtype=bool)


def norms_of(vectors: Float32s) -> Float64s:
    """Return the Euclidean norms of vectors, float64 [rows]: squares of float32 numbers may be beyond float32."""
    norms: Float64s = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return norms


def require_similar_norms(vectors: Float32s, present: Bools, *, what: str) -> Float64s:
    """Refuse a column in which some vectors are far longer than most: such a vector is first in every list.

    Args:
      vectors: float32 [rows, dim].
      present: bool [rows], rows that have a vector; at least one.
      what: name of the column in an error.

    Returns:
      float64 [rows], the norms.

    Raises:
      DataError: names the rows.
    """
    norms = norms_of(vectors)
    usual = float(np.median(norms[present]))
    longer = np.flatnonzero(norms > _LONGER * usual)
    if len(longer):
        raise DataError(
            f"{what}: vectors of {len(longer):,} rows (counted from 0: {_some(longer)}) have norms up to "
            f"{norms.max():.4g}, where half of all are below {usual:.4g}; make them as the others were made, or write "
            "zeros where a row has no vector"
        )
    return norms


def shortened(vectors: Float32s, longest: float) -> Float32s:
    """Shorten vectors, float32 [rows, dim], that are longer than `longest`, and keep their directions."""
    norms = norms_of(vectors)
    long = norms > longest * (1 + 1e-5)
    if not long.any():
        return vectors
    vectors = vectors.copy()
    vectors[long] = (vectors[long] * (longest / norms[long])[:, np.newaxis]).astype(np.float32)
    return vectors


def _some(rows: Int64s) -> str:
    shown = ", ".join(f"{row}" for row in rows[:5])
    return shown + (", ..." if len(rows) > 5 else "")
