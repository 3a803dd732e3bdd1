"""Saved vectors are found by the hash of their content and lined up with items, however they lie in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recall.content.encode.embedded import Batches, Embedded, hash_array, is_among, line_up


def hashes_of(rng: np.random.Generator, count: int) -> list[str]:
    return [f"{value:032x}" for value in rng.choice(10**6, count, replace=False)]


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_every_item_gets_the_vector_of_its_content(batch: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(batch)
    names = hashes_of(rng, 60)
    vector_of = {name: rng.normal(size=5).astype(np.float32) for name in names}
    batches = Batches(str(tmp_path / "batches"))
    for start in range(0, 50, batch):  # ten contents have no vector
        saved = names[:50][start : start + batch]
        batches.save(saved, np.stack([vector_of[name] for name in saved]))
    items = [*rng.choice(names, 200).tolist(), "", ""]  # the same content at several items, and items without

    vectors, present = line_up(tmp_path / "x.npy", hash_array(pa.array(items)), batches.embedded(), dim=5)

    expected = [vector_of[name] if name in names[:50] else np.zeros(5, np.float32) for name in items]
    np.testing.assert_array_equal(vectors, expected)
    assert present.tolist() == [name in names[:50] for name in items]
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)
    assert batches.embedded().hashes().astype(str).tolist() == sorted(names[:50])


def test_what_is_among_the_known_agrees_with_a_set() -> None:
    rng = np.random.default_rng(1)
    names = hashes_of(rng, 30)
    for count in (0, 1, 15, 30):
        known = np.sort(hash_array(pa.array(names[:count], pa.string())))
        assert is_among(hash_array(pa.array(names)), known).tolist() == [True] * count + [False] * (30 - count)


def test_a_batch_that_was_cut_off_is_not_there(tmp_path: Path) -> None:
    batches = Batches(str(tmp_path))
    batches.save(["a" * 32], np.ones((1, 2), np.float32))
    whole = next(tmp_path.iterdir())
    (tmp_path / f".{'b' * 32}.parquet.0123abcd").write_bytes(whole.read_bytes()[:20])  # what a kill leaves
    assert batches.embedded() == Embedded((whole,))


def test_a_batch_saved_twice_counts_once(tmp_path: Path) -> None:
    batches = Batches(str(tmp_path))
    for _ in range(2):
        batches.save(["a" * 32, "b" * 32], np.ones((2, 2), np.float32))
    assert len(batches.embedded().files) == 1
    assert len(batches.embedded().hashes()) == 2
