"""Checks the journal: acknowledged records are read again; torn tails are cut, damage is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recall.core.errors import ArtifactError
from recall.index.living.journal import Journal
from recall.index.living.journal_format import Record

VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)


def written(directory: Path) -> list[Path]:
    """Write a journal of four records; return its files."""
    journal = Journal(directory, writable=True)
    journal.append("upsert", ["a", "b", "é"], model="m", vectors=VECTORS, sources=[{"x": 1}, None, {"tags": ["ü"]}])
    journal.append("delete", ["b"], model="m")
    journal.append("upsert", ["c"], model="m", vectors=VECTORS[:1].reshape(1, 2, 2))
    journal.append("delete", ["a"], model="m")
    journal.close()
    return sorted(directory.glob("*.segment"))


def read(directory: Path, *, after: int = 0) -> list[Record]:
    return list(Journal(directory, writable=False).records(after=after))


def test_records_are_read_as_they_were_appended(tmp_path):
    written(tmp_path)
    records = read(tmp_path)
    assert [(record.sequence, record.operation, record.ids, record.model) for record in records] == [
        (1, "upsert", ("a", "b", "é"), "m"),
        (2, "delete", ("b",), "m"),
        (3, "upsert", ("c",), "m"),
        (4, "delete", ("a",), "m"),
    ]
    np.testing.assert_array_equal(records[0].vectors, VECTORS)
    assert records[0].sources == ({"x": 1}, None, {"tags": ["ü"]})
    assert records[2].vectors is not None
    assert records[2].vectors.shape == (1, 2, 2)
    assert [record.sequence for record in read(tmp_path, after=2)] == [3, 4]


def test_numbers_go_on_after_reopening(tmp_path):
    written(tmp_path)
    journal = Journal(tmp_path, writable=True)
    assert journal.append("delete", ["c"], model="m") == 5
    journal.close()
    assert [record.sequence for record in read(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_record_torn_at_any_byte_is_cut_and_the_others_stay(tmp_path):
    (path,) = written(tmp_path)
    whole = path.read_bytes()
    start = len(whole) - len(frame_of(path, whole))
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        assert [record.sequence for record in read(tmp_path)] == [1, 2, 3]
        assert path.stat().st_size == end, "a reader changes nothing"
    for end in (start, start + 1, len(whole) - 1):
        path.write_bytes(whole[:end])
        journal = Journal(tmp_path, writable=True)
        assert path.stat().st_size == start
        assert journal.append("delete", ["z"], model="m") == 4
        journal.close()
        assert [record.ids for record in read(tmp_path)][-1] == ("z",)


def frame_of(path: Path, whole: bytes) -> bytes:
    """Return the bytes of the last of the four records: a journal of the first three is shorter by them."""
    three = Journal(path.parent / "three", writable=True)
    three.append("upsert", ["a", "b", "é"], model="m", vectors=VECTORS, sources=[{"x": 1}, None, {"tags": ["ü"]}])
    three.append("delete", ["b"], model="m")
    three.append("upsert", ["c"], model="m", vectors=VECTORS[:1].reshape(1, 2, 2))
    three.close()
    (other,) = (path.parent / "three").glob("*.segment")
    return whole[other.stat().st_size :]


def test_a_first_record_that_is_torn_leaves_an_empty_journal(tmp_path):
    journal = Journal(tmp_path, writable=True)
    journal.append("delete", ["a"], model="m")
    journal.close()
    (path,) = tmp_path.glob("*.segment")
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert read(tmp_path) == []
        journal = Journal(tmp_path, writable=True)
        assert journal.append("delete", ["b"], model="m") == 1
        journal.close()
        assert [record.ids for record in read(tmp_path)] == [("b",)]
        path.unlink()


def test_zeros_that_a_file_system_left_at_the_end_are_cut(tmp_path):
    (path,) = written(tmp_path)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert len(read(tmp_path)) == 4
    Journal(tmp_path, writable=True).close()
    assert path.stat().st_size == size


def test_any_flipped_bit_is_refused_naming_the_file(tmp_path):
    (path,) = written(tmp_path)
    whole = path.read_bytes()
    for byte in range(len(whole)):
        flipped = bytearray(whole)
        flipped[byte] ^= 1 << (byte % 8)
        path.write_bytes(bytes(flipped))
        for writable in (False, True):
            with pytest.raises(ArtifactError, match=rf"{path.name}: damaged at byte"):
                Journal(tmp_path, writable=writable)
    path.write_bytes(whole)
    assert len(read(tmp_path)) == 4


def test_a_file_cut_off_before_the_last_one_is_damage(tmp_path, monkeypatch):
    monkeypatch.setattr("recall.index.living.segment_writer._SEGMENT_BYTES", 1)
    paths = written(tmp_path)
    assert [int(path.stem) for path in paths] == [1, 2, 3, 4]
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match=rf"{paths[1].name}: damaged"):
        read(tmp_path)
    paths[1].unlink()
    with pytest.raises(ArtifactError, match=rf"{paths[1].name}: is missing"):
        read(tmp_path)
    (tmp_path / "files.json").unlink()
    with pytest.raises(ArtifactError, match=r"files.json: is missing, and nothing vouches for the files beside it"):
        read(tmp_path)


def test_compaction_keeps_the_last_record_of_every_id_under_its_number(tmp_path):
    written(tmp_path)
    journal = Journal(tmp_path, writable=True)
    journal.compact()
    # a: deleted by 4, b: by 2, é: upserted by 1, c: by 3.
    expected = [(1, "upsert", ("é",)), (2, "delete", ("b",)), (3, "upsert", ("c",)), (4, "delete", ("a",))]
    assert [(r.sequence, r.operation, r.ids) for r in journal.records()] == expected
    assert journal.append("upsert", ["c", "d"], model="m", vectors=VECTORS[:2], sources=["C", "D"]) == 5
    journal.compact()
    record = journal.record(5)
    assert record is not None
    assert record.sources == ("C", "D")
    first = journal.record(1)
    assert first is not None
    assert first.sources == ({"tags": ["ü"]},)
    journal.close()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".compacted", ".json"]
    assert [(r.sequence, r.ids) for r in read(tmp_path)] == [
        (1, ("é",)), (2, ("b",)), (4, ("a",)), (5, ("c", "d"))
    ]  # fmt: skip


def test_segments_that_a_crash_left_beside_the_compacted_file_are_passed_over(tmp_path):
    (segment,) = written(tmp_path)
    left = segment.read_bytes()
    journal = Journal(tmp_path, writable=True)
    journal.compact()
    journal.append("delete", ["x"], model="m")
    journal.close()
    segment.write_bytes(left)
    assert [record.sequence for record in read(tmp_path)] == [1, 2, 3, 4, 5]
    journal = Journal(tmp_path, writable=True)
    assert journal.append("delete", ["y"], model="m") == 6
    journal.close()


def test_a_compacted_file_that_lacks_records_is_damage(tmp_path):
    written(tmp_path)
    journal = Journal(tmp_path, writable=True)
    journal.compact()
    journal.close()
    (path,) = tmp_path.glob("*.compacted")
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ArtifactError, match=path.name):
            read(tmp_path)


def test_only_one_writes_and_others_read(tmp_path):
    journal = Journal(tmp_path, writable=True)
    journal.append("delete", ["a"], model="m")
    with pytest.raises(ArtifactError, match=r"held by another writer of this index; close that one first"):
        Journal(tmp_path, writable=True)
    reader = Journal(tmp_path, writable=False)
    assert len(list(reader.records())) == 1
    journal.append("delete", ["b"], model="m")
    assert [record.ids for record in reader.records(after=1)] == [("b",)]
    with pytest.raises(ArtifactError, match="open for reading alone"):
        reader.append("delete", ["c"], model="m")
    journal.close()
    with pytest.raises(ArtifactError, match="closed"):
        journal.append("delete", ["c"], model="m")
    Journal(tmp_path, writable=True).close()


APPEND_UNDER_A_FILE_SIZE_LIMIT = """
import resource, signal, sys
import numpy as np
from recall.core.errors import (ArtifactError)
from recall.index.living.journal import (Journal)
journal = Journal(sys.argv[1], writable=True)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
done = 0
try:
    while True:
        journal.append("upsert", [f"i{done}"], model="m", vectors=np.ones((1, 100)))
        done += 1
except ArtifactError as error:
    assert "nothing was changed" in str(error), error
journal.append("delete", ["small"], model="m")  # still fits
print(done)
"""


def test_an_append_that_does_not_fit_on_the_disk_leaves_the_journal_as_it_was(tmp_path):
    # The kernel cuts files at 5 kB, as a full disk does; a record takes about half a kB.
    script = [sys.executable, "-c", APPEND_UNDER_A_FILE_SIZE_LIMIT, str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = [f"i{number}" for number in range(int(done.stdout))] + ["small"]
    assert [record.ids[0] for record in read(tmp_path)] == expected


APPEND_UNTIL_KILLED = """
import sys
import numpy as np
from recall.index.living.journal import (Journal)
journal = Journal(sys.argv[1], writable=True)
while True:
    number = journal.append("upsert", ["x"], model="m", vectors=np.full((1, 64), journal.last_sequence + 1))
    print(number, flush=True)
"""


def test_what_was_acknowledged_before_a_kill_is_there(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", APPEND_UNTIL_KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(30)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout.read().splitlines() if line]
    process.wait()
    records = read(tmp_path)
    assert [record.sequence for record in records][: len(acknowledged)] == acknowledged
    assert len(records) <= len(acknowledged) + 1
    assert all((record.vectors == record.sequence).all() for record in records)
    Journal(tmp_path, writable=True).close()
