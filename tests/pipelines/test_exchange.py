"""What workers hand to each other: small, and the same when it arrives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.exchange import Scratch, from_bytes, partitioned, to_bytes

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


def test_what_is_handed_on_by_way_of_a_folder_travels_as_places_and_arrives_whole(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path))
    parts = [(3, b"first"), (0, b""), (7, b"the last one")]
    handed = list(scratch.hand_on("piece", 5, iter(parts)))
    assert [key for key, _ in handed] == [3, 0, 7]
    assert not any(isinstance(place, bytes) for _, place in handed)
    assert [scratch.taken(place) for _, place in handed] == [b"first", b"", b"the last one"]
    # A bundle that a runner repeats hands on the same.
    assert list(scratch.hand_on("piece", 5, iter(parts))) == handed
    assert [path.name for path in tmp_path.iterdir()] == ["piece-00005.parts"]
