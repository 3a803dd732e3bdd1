"""Parquet files written in parts against those written at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recall.core.parquet import write_parts

SCHEMA = pa.schema([("item", pa.int32()), ("count", pa.int64())])


@pytest.mark.parametrize("lengths", [[], [0], [3, 0, 5], [700_000, 348_576], [700_000, 800_000, 2_000_000]])
def test_a_file_in_parts_has_the_bytes_of_one_written_at_once(lengths: list[int], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    parts = [
        pa.table([np.sort(rng.integers(0, 90_000, n, np.int32)), rng.integers(0, 999, n)], schema=SCHEMA)
        for n in lengths
    ]
    write_parts(tmp_path / "parts", iter(parts), SCHEMA)
    pq.write_table(pa.concat_tables([SCHEMA.empty_table(), *parts]).combine_chunks(), tmp_path / "whole")
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
