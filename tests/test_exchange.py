"""What workers hand to each other: small, and the same when it arrives."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipelines.exchange import from_bytes, partitioned, to_bytes

FAR = np.iinfo(np.int64)


@pytest.mark.parametrize("largest", [0, 127, 128, 1 << 15, 1 << 31, FAR.max], ids=str)
def test_numbers_arrive_as_they_were_whatever_room_they_took(largest: int) -> None:
    table = pa.table({"a": pa.array([-largest - 1, None, largest]), "b": pa.array([1, 2, 3], pa.int32())})
    small = pa.table({"a": pa.array([1, 2]), "b": pa.array([4, 5], pa.int32())})
    assert from_bytes([to_bytes(table), to_bytes(small)]).equals(pa.concat_tables([table, small]).combine_chunks())


def test_small_numbers_take_little_room() -> None:
    bucket = np.arange(480_000, 490_000)
    table = pa.table({"bucket": bucket, "exposures": bucket % 7})
    assert len(to_bytes(table)) < 10_000 * (4 + 1) + 2_000


def test_a_part_gets_its_own_rows_and_no_text_of_others() -> None:
    users = [f"user-{number}" for number in range(500)]
    table = pa.table({"user": pa.array(users * 3).dictionary_encode(), "place": np.arange(1500)})
    parts = {partition: from_bytes([batch]) for partition, batch in partitioned(table, "user", partitions=7)}
    assert len(parts) == 7
    for part in parts.values():
        [chunk] = part["user"].chunks
        assert set(chunk.dictionary.to_pylist()) == set(chunk.to_pylist())
        assert [users[place % 500] for place in part["place"].to_pylist()] == chunk.to_pylist()
        assert part["place"].to_pylist() == sorted(part["place"].to_pylist())
    places = sorted(place for part in parts.values() for place in part["place"].to_pylist())
    assert places == list(range(1500))
