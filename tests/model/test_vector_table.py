"""Tests the table of item vectors: it reads as it was written, as plain Parquet too, and damage is noticed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recall.core.errors import ArtifactError
from recall.model.vector_table import ItemVectorTable


@pytest.fixture
def table() -> ItemVectorTable:
    return ItemVectorTable(
        ids=pa.array(["a", "b", "c"]),
        vectors=np.array([[1, 2], [3, 4], [5, 6]], np.float32),
        behaviour_share=np.array([0.25, np.nan, 1], np.float32),
        exposures=np.array([10, 0, 7]),
        fingerprint="abc",
    )


def test_a_written_table_reads_as_it_was(table: ItemVectorTable, tmp_path: Path) -> None:
    table.write(tmp_path / "vectors")
    read = ItemVectorTable.read(tmp_path / "vectors")
    assert (read.ids.to_pylist(), read.fingerprint) == (["a", "b", "c"], "abc")
    assert (read.vectors.dtype, read.behaviour_share.dtype, read.exposures.dtype) == (np.float32, np.float32, np.int64)
    np.testing.assert_array_equal(read.vectors, table.vectors)
    np.testing.assert_array_equal(read.behaviour_share, table.behaviour_share)
    np.testing.assert_array_equal(read.exposures, table.exposures)


def test_the_folder_reads_as_one_plain_parquet_table(table: ItemVectorTable, tmp_path: Path) -> None:
    table.write(tmp_path / "vectors")
    assert pq.read_table(tmp_path / "vectors").to_pylist() == [
        {"item_id": "a", "vector": [1, 2], "behaviour_share": 0.25, "exposures": 10},
        {"item_id": "b", "vector": [3, 4], "behaviour_share": None, "exposures": 0},
        {"item_id": "c", "vector": [5, 6], "behaviour_share": 1, "exposures": 7},
    ]


def test_weights_of_modalities_stand_beside_where_there_are_any(table: ItemVectorTable, tmp_path: Path) -> None:
    weights = {"text": np.array([0.25, 0, 1], np.float32), "tags": np.array([0.75, 0, 0], np.float32)}
    dataclasses.replace(table, modality_weights=weights).write(tmp_path / "vectors")
    found = pq.read_table(tmp_path / "vectors")["modality_weights"].to_pylist()
    assert found == [{"text": 0.25, "tags": 0.75}, {"text": 0, "tags": 0}, {"text": 1, "tags": 0}]
    read = ItemVectorTable.read(tmp_path / "vectors").modality_weights
    assert list(read) == ["text", "tags"]
    for name, weight in weights.items():
        np.testing.assert_array_equal(read[name], weight)
        assert read[name].dtype == np.float32


def test_a_table_without_a_gate_has_no_shares(table: ItemVectorTable, tmp_path: Path) -> None:
    dataclasses.replace(table, behaviour_share=np.full(3, np.nan, np.float32)).write(tmp_path / "vectors")
    assert np.isnan(ItemVectorTable.read(tmp_path / "vectors").behaviour_share).all()


def test_a_missing_or_edited_table_names_the_command(table: ItemVectorTable, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not there yet; run `recall vectors` first"):
        ItemVectorTable.read(tmp_path / "vectors")
    table.write(tmp_path / "vectors")
    path = tmp_path / "vectors" / "vectors.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="its checksum differs"):
        ItemVectorTable.read(tmp_path / "vectors")
