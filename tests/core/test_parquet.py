"""Parquet files written in parts against those written at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recall.core.parquet import write_parts

SCHEMA = pa.schema([("item", pa.int32()), ("count", pa.int64())])


@pytest.mark.parametrize("rows", [1_000, None], ids=["small groups", "groups of pyarrow's size"])
@pytest.mark.parametrize("lengths", [[], [0], [3, 0, 5], [700, 300], [700, 800, 2_000], [1 << 20, 1]])
def test_a_file_in_parts_has_the_bytes_of_one_written_at_once(
    lengths: list[int], rows: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rows is not None:
        monkeypatch.setattr("recall.core.parquet._ROWS", rows)
    rng = np.random.default_rng(1)
    parts = [
        pa.table([np.sort(rng.integers(0, 90_000, n, np.int32)), rng.integers(0, 999, n)], schema=SCHEMA)
        for n in lengths
    ]
    write_parts(tmp_path / "parts", iter(parts), SCHEMA)
    pq.write_table(
        pa.concat_tables([SCHEMA.empty_table(), *parts]).combine_chunks(), tmp_path / "whole", row_group_size=rows
    )
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
