"""Reads and checks the content vectors of a catalogue, from a run or a file, and scales them to unit length."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import Bools, Float32s
from recall.core.canonical import Column, id_strings
from recall.core.errors import DataError
from recall.core.tables import read_table
from recall.data.features.embeddings import read_npy, vector_array, vectors_of
from recall.data.features.table_encoder import EncodedColumn
from recall.data.prepared import PreparedData

_CONSTANT = 1e-6


@dataclass(frozen=True)
class ContentVectors:
    """Hold one vector per item, compared by cosine; make it with `checked`.

    Attributes:
      name: of the set, for people.
      unit: float32 [items, dim], of unit length; zeros where an item has none.
      present: bool [items], whether the item has one.
    """

    name: str
    unit: Float32s
    present: Bools

    @classmethod
    def checked(cls, name: str, column: Column) -> ContentVectors:
        """Check a list column and scale its rows: a row per item, null (or zeros) where an item has no vector.

        Raises:
          DataError: fewer than two items have a vector, all have the same, or one holds NaN or infinity.
        """
        vectors, present = vectors_of(column, what=f"vectors {name}")
        if present.sum() < 2:
            raise DataError(
                f"vectors {name}: {int(present.sum()):,} of {len(present):,} items have a vector; expected at least two"
            )
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        unit = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        if np.ptp(unit[present], axis=0).max() < _CONSTANT:
            raise DataError(
                f"vectors {name}: all {int(present.sum()):,} point into one direction, so that they tell no two items "
                "apart; look at how they were made"
            )
        return cls(name, unit, present)

    def only(self, chosen: Bools) -> ContentVectors:
        """Leave out the vectors of items that are not chosen (bool [items])."""
        kept = self.present & chosen
        return ContentVectors(self.name, np.where(kept[:, np.newaxis], self.unit, np.float32(0)), kept)

    @property
    def coverage(self) -> float:
        """Return the share of the catalogue that has a vector."""
        return float(self.present.mean())


def on_common_items(sets: Sequence[ContentVectors]) -> list[ContentVectors]:
    """Restrict all sets to the items that each of them covers, so that they can be compared.

    Raises:
      DataError: the sets share fewer than two items.
    """
    common = np.logical_and.reduce([one.present for one in sets])
    if common.sum() < 2:
        raise DataError(
            f"vectors {', '.join(one.name for one in sets)}: {int(common.sum()):,} items have one in every set; "
            "expected at least two; judge them apart, or look whether their item ids agree"
        )
    return [one.only(common) for one in sets]


def prepared_vectors(prepared: PreparedData) -> list[ContentVectors]:
    """List the vectors of every `embedding` feature of `features.meta` that the run keeps, not as clusters alone."""
    return [ContentVectors.checked(column.name, prepared.items[column.name]) for column in _vector_columns(prepared)]


class JoinedVectors(NamedTuple):
    """Hold the vectors of several features as one per item.

    Attributes:
      features: names of the features.
      unit: float32 [items, dim], of unit length; zeros where an item has none.
    """

    features: Sequence[str]
    unit: Float32s


def joined_vectors(prepared: PreparedData) -> JoinedVectors | None:
    """Join the vectors of all `embedding` features of `features.meta` into one per item; None where there are none.

    Each feature has unit length before it is joined, and so has the whole: a cosine is then the mean of the cosines by
    feature for items that have them all. A feature whose vectors tell no items apart is left out.
    """
    sets = []
    for column in _vector_columns(prepared):
        with contextlib.suppress(DataError):  # all alike, or of one item alone
            sets.append(ContentVectors.checked(column.name, prepared.items[column.name]))
    if not sets:
        return None
    joined = np.concatenate([one.unit for one in sets], axis=1)
    lengths = np.linalg.norm(joined, axis=1, keepdims=True)
    unit = np.divide(joined, lengths, out=np.zeros_like(joined), where=lengths > 0)
    return JoinedVectors([one.name for one in sets], unit)


def _vector_columns(prepared: PreparedData) -> list[EncodedColumn]:
    """List the columns of `features.meta` that hold vectors."""
    return [column for column in prepared.item_encoder.columns if column.tower == "meta" and column.kind == "vector"]


def read_vectors(name: str, path: Path, prepared: PreparedData, *, id_column: str) -> ContentVectors:
    """Read vectors that the experiment does not name.

    Args:
      name: of the set.
      path: `.npy` whose row i belongs to row i of the run's catalogue, which is line i of the items file; or Parquet
        with a column of item ids and one list column. Ids that the catalogue lacks are passed over.
      prepared: the run's data.
      id_column: of the items file; `item_id` is accepted, too.

    Raises:
      DataError: the file cannot be used; the message names it and the fault.
    """
    if not path.is_file():
        raise DataError(f"vectors {name}: {path}: no such file; expected name=path.npy or name=path.parquet")
    if path.suffix == ".npy":
        column = read_npy(
            path, rows=len(prepared.item_ids), key=f"vectors {name}", table=f"{prepared.directory / 'items.parquet'}"
        )
        return ContentVectors.checked(name, column)
    if path.suffix not in (".parquet", ".pq"):
        raise DataError(f"vectors {name}: {path}: expected a file that ends in .npy, .parquet or .pq")
    ids, column = _columns(read_table(path), path, id_column=id_column)
    vectors, present = vectors_of(column, what=f"vectors {name}: {path}")
    rows = prepared.rows(ids)  # rows in the catalogue
    known = rows >= 0
    if not known.any():
        raise DataError(
            f"vectors {name}: none of the {len(ids):,} item ids in {path} is in the catalogue, whose ids look like "
            f"{prepared.item_ids[0]}; are these vectors of another data set?"
        )
    counts = np.bincount(rows[known])
    if (counts > 1).any():
        raise DataError(
            f"vectors {name}: {path} has {int((counts > 1).sum()):,} items more than once, e.g. "
            f"{prepared.item_ids[int(counts.argmax())]}; keep one row of each"
        )
    placed = np.zeros((len(prepared.item_ids), vectors.shape[1]), np.float32)
    placed[rows[known & present]] = vectors[known & present]
    return ContentVectors.checked(name, vector_array(placed, what=f"vectors {name}"))


def _columns(table: pa.Table, path: Path, *, id_column: str) -> tuple[pa.StringArray, pa.ChunkedArray]:
    """Extract item ids and vectors of a Parquet table."""
    names = list(dict.fromkeys([id_column, "item_id"]))
    ids = next((name for name in names if name in table.column_names), None)
    lists = [field.name for field in table.schema if pa.types.is_nested(field.type)]
    if ids is None or len(lists) != 1:
        raise DataError(
            f"{path}: expected a column {' or '.join(names)} and one column of lists, found "
            f"{', '.join(f'{field.name} ({field.type})' for field in table.schema)}"
        )
    try:
        named = id_strings(table[ids])
    except DataError as error:
        raise DataError(f"{path}: column {ids}: {error}") from error
    there = pc.is_valid(named)
    return named.filter(there), table[lists[0]].filter(there)
