"""Maps text values to dense codes, with codes for the missing and the unknown."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from recall.core.arrays import Int32s, Int64s
from recall.core.untyped import Kind, kind_of

MISSING = 0
OUT_OF_VOCABULARY = 1
FIRST_CODE = 2

_FEW = 16


@dataclass(frozen=True)
class Vocabulary:
    """Map values to codes: 0 is missing, 1 is any unlisted value, 2 and up are the values, most frequent first.

    Attributes:
      values: string [n], each once, none missing; the code of values[i] is i + 2.
      counts: int64 [n], how often each was counted when the vocabulary was built.
    """

    values: pa.StringArray
    counts: Int64s

    @classmethod
    def build(cls, values: pa.StringArray, *, counts: Int64s | None = None, min_count: int = 1) -> Vocabulary:
        """Count values, and keep the frequent ones, by falling count, ties in the order of their text.

        Args:
          values: string [rows]; null is skipped.
          counts: int64 [rows], the amount that each row adds to its value's count; default: one.
          min_count: values counted less often are left out; at least 1, so that uncounted values have no code.
        """
        weights = np.ones(len(values), np.int64) if counts is None else np.asarray(counts, np.int64)
        if len(weights) != len(values):
            raise ValueError(f"expected one count per value, found {len(weights)} counts for {len(values)} values")
        table = pa.table({"value": values, "count": weights}).filter(pc.field("value").is_valid())
        table = table.group_by("value").aggregate([("count", "sum")]).rename_columns(["value", "count"])
        table = table.filter(pc.field("count") >= max(min_count, 1))
        table = table.sort_by([("count", "descending"), ("value", "ascending")])
        return cls.from_table(table)

    @property
    def size(self) -> int:
        """Number of codes, the two reserved ones included."""
        return len(self.values) + FIRST_CODE

    def encode(self, values: pa.StringArray) -> Int32s:
        """Encode text values as codes, int32 [rows]; null is 0, values that are not listed are 1."""
        # Arrow hashes the whole vocabulary on every call: 0.15 s for 700,000 values, 0.3 ms with
        # the dictionary once it is built.
        if len(values) * _FEW < len(self.values):
            found = pa.array([self._rows.get(value) for value in values.to_pylist()], pa.int32())
        else:
            found = pc.index_in(values, value_set=self.values)
        codes = pc.add(pc.fill_null(found, OUT_OF_VOCABULARY - FIRST_CODE), FIRST_CODE)
        codes = pc.if_else(pc.is_null(values), pa.scalar(MISSING, pa.int32()), codes)
        return np.asarray(codes.to_numpy(zero_copy_only=False), np.int32)

    @functools.cached_property
    def _rows(self) -> dict[str | None, int]:
        return {value: row for row, value in enumerate(self.values.to_pylist())}

    @functools.cached_property
    def kind(self) -> Kind | None:
        """Return what all values are, numbers or truth values; None for text, and where the vocabulary is empty."""
        return kind_of(self.values)

    def decode(self, codes: Int32s) -> pa.StringArray:
        """Return the values of codes, string [rows]; null for the two reserved ones."""
        rows = np.asarray(codes, np.int64) - FIRST_CODE
        return self.values.take(pa.array(rows, mask=rows < 0))

    def save(self, path: Path) -> None:
        """Write a Parquet file with columns value and count, in the order of the codes."""
        pa.parquet.write_table(self.table(), path)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read the file of `save`."""
        return cls.from_table(pa.parquet.ParquetFile(path).read())

    def table(self) -> pa.Table:
        """Make a table with columns value and count, in the order of the codes."""
        return pa.table({"value": self.values, "count": self.counts})

    @classmethod
    def from_table(cls, table: pa.Table) -> Vocabulary:
        """Read the result of `table`."""
        values = pa.concat_arrays([pa.array([], pa.string()), *table["value"].cast(pa.string()).chunks])
        return cls(values, table["count"].to_numpy().astype(np.int64))
