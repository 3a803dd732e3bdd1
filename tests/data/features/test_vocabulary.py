"""Values to codes and back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recall.data.features.vocabulary import Vocabulary, below


def _random_text(seed: int, rows: int = 2000) -> list[str | None]:
    random = np.random.default_rng(seed)
    return [None if value > 60 else f"v{value}" for value in random.geometric(0.05, rows)]


def test_frequent_values_come_first_and_ties_are_in_text_order() -> None:
    vocabulary = Vocabulary.build(pa.array(["b", "c", "a", "c", None, "é", "B"]))
    assert vocabulary.values.to_pylist() == ["c", "B", "a", "b", "é"]
    assert vocabulary.counts.tolist() == [2, 1, 1, 1, 1]


def test_missing_is_zero_unknown_is_one_and_values_start_at_two() -> None:
    vocabulary = Vocabulary.build(pa.array(["a", "b", "a"]))
    codes = vocabulary.encode(pa.array(["b", None, "zzz", "a"]))
    assert codes.dtype == np.int32
    assert codes.tolist() == [3, 0, 1, 2]
    assert vocabulary.size == 4


@pytest.mark.parametrize("min_count", [1, 3, 10_000])
def test_codes_agree_with_a_counter(min_count: int) -> None:
    text = _random_text(seed=min_count)
    counted = Counter(value for value in text if value is not None)
    order = sorted((v for v in counted if counted[v] >= min_count), key=lambda v: (-counted[v], v))
    expected = [0 if v is None else order.index(v) + 2 if v in order else 1 for v in text]
    vocabulary = Vocabulary.build(pa.array(text, pa.string()), min_count=min_count)
    assert vocabulary.encode(pa.array(text, pa.string())).tolist() == expected


def test_few_values_get_the_codes_that_they_get_among_many() -> None:
    vocabulary = Vocabulary.build(pa.array([f"v{value}" for value in range(1000)]))
    text = [f"v{value}" for value in range(0, 2000, 7)] + [None, ""]
    together = vocabulary.encode(pa.array(text)).tolist()
    assert [vocabulary.encode(pa.array([value], pa.string())).tolist()[0] for value in text] == together


def test_decoding_gives_back_the_values_that_have_a_code() -> None:
    text = _random_text(seed=7)
    vocabulary = Vocabulary.build(pa.array(text), min_count=5)
    kept = set(vocabulary.values.to_pylist())
    decoded = vocabulary.decode(vocabulary.encode(pa.array(text))).to_pylist()
    assert decoded == [value if value in kept else None for value in text]


def test_order_of_the_rows_does_not_change_codes() -> None:
    text = _random_text(seed=3)
    shuffled = list(np.random.default_rng(0).permutation(np.array(text, object)))
    assert Vocabulary.build(pa.array(text)).values == Vocabulary.build(pa.array(shuffled, pa.string())).values


def test_weights_are_counts_and_what_was_never_counted_is_unknown() -> None:
    values = pa.array(["author1", "author2", "author1", "author3"])
    vocabulary = Vocabulary.build(values, counts=np.array([2, 3, 2, 0]))
    assert vocabulary.values.to_pylist() == ["author1", "author2"]
    assert vocabulary.counts.tolist() == [4, 3]
    assert vocabulary.encode(pa.array(["author3"])).tolist() == [1]


def test_one_weight_per_value_is_required() -> None:
    with pytest.raises(ValueError, match="one count per value"):
        Vocabulary.build(pa.array(["a", "b"]), counts=np.array([1]))


@pytest.mark.parametrize("text", [["b", "a", "b", None], [], [None]])
def test_save_and_load_give_the_same_vocabulary(tmp_path: Path, text: list[str | None]) -> None:
    vocabulary = Vocabulary.build(pa.array(text, pa.string()))
    vocabulary.save(tmp_path / "v.parquet")
    loaded = Vocabulary.load(tmp_path / "v.parquet")
    assert loaded.values == vocabulary.values
    assert loaded.counts.tolist() == vocabulary.counts.tolist()
    assert loaded.encode(pa.array(["a", None, "x"])).tolist() == vocabulary.encode(pa.array(["a", None, "x"])).tolist()


def test_values_are_added_behind_the_listed_ones_and_only_when_they_are_frequent_enough() -> None:
    old = Vocabulary.build(pa.array(["b", "b", "a"]))
    values = pa.array(["d", "a", "c", "c", "d", "d", None, "e"])
    new = old.extended(values, min_count=2)
    assert new.values.to_pylist() == ["b", "a", "d", "c"]  # "e" is there once
    assert new.counts.tolist() == [2, 1, 3, 2]
    assert (new.first_size, new.extended(pa.array(["f", "f"]), min_count=2).first_size) == (4, 4)
    np.testing.assert_array_equal(new.encode(pa.array(["a", "b"])), old.encode(pa.array(["a", "b"])))
    back = new.first(old.size)
    assert back.values.to_pylist() == old.values.to_pylist()
    assert back.first_size == 0


def test_a_vocabulary_that_grew_is_read_back_with_its_first_size(tmp_path: Path) -> None:
    grown = Vocabulary.build(pa.array(["a"])).extended(pa.array(["b"]))
    state = grown.save(tmp_path / "x.parquet")
    assert state == {"first_size": 3}
    assert Vocabulary.load(tmp_path / "x.parquet", **state).first_size == 3
    assert Vocabulary.build(pa.array(["a"])).save(tmp_path / "y.parquet") == {}


def test_codes_that_a_smaller_vocabulary_lacks_become_those_of_unlisted_values() -> None:
    assert below(pa.array([0, 1, 2, 3], pa.int32()), 3).to_pylist() == [0, 1, 2, 1]
    lists = pa.array([[2, 3], [], [4]], pa.list_(pa.int32()))
    assert below(lists, 4).to_pylist() == [[2, 3], [], [1]]


def test_the_code_of_a_retired_value_goes_to_the_next_that_is_added() -> None:
    old = Vocabulary.build(pa.array(["a", "a", "a", "b", "b", "c"]))
    gone = old.retired(np.array([True, False, True]))
    assert gone.encode(pa.array(["a", "b", "c", None])).tolist() == [1, 3, 1, 0]
    assert gone.decode(np.array([3], np.int32)).to_pylist() == ["b"]
    new = gone.extended(pa.array(["d", "d", "e", "f", "f", "f", "b"]))
    assert new.encode(pa.array(["f", "b", "d", "e", "a"])).tolist() == [2, 3, 4, 5, 1]
    assert new.counts.tolist() == [3, 2, 2, 1]
    assert not new.is_retired.any()
    # Before they were added, the two codes stood for nothing.
    judged = new.first(old.size, without=[2, 4])
    assert judged.encode(pa.array(["f", "b", "d", "e"])).tolist() == [1, 3, 1, 1]
    assert below(pa.array([2, 3, 4, 5], pa.int32()), 5, without=[2, 4]).to_pylist() == [1, 3, 1, 1]


def test_a_value_that_comes_back_is_a_new_one() -> None:
    gone = Vocabulary.build(pa.array(["a", "b"])).retired(np.array([True, False]))
    assert gone.extended(pa.array(["a", "b"])).encode(pa.array(["a", "b"])).tolist() == [2, 3]
