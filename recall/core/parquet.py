"""Writes Parquet files of tables that come in parts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_ROWS = 1 << 20  # as pyarrow cuts tables


def write_parts(path: Path, parts: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write the bytes that pq.write_table writes for all parts together, with about one row group in memory."""
    rest = schema.empty_table()
    with pq.ParquetWriter(path, schema) as writer:
        for part in parts:
            rest = pa.concat_tables([rest, part])
            while len(rest) > _ROWS:
                writer.write_table(rest.slice(0, _ROWS).combine_chunks())
                rest = rest.slice(_ROWS)
        writer.write_table(rest.combine_chunks())
