"""Columns of files without types: what pandas writes is read as what it was, and other text stays as it is."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recall.core.canonical import id_strings
from recall.core.errors import DataError
from recall.core.untyped import read_untyped, untyped_dictionary


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([12, None, 3]),
        pd.Series([2.5, 3, 1e-5, 1e15, -0.0]),
        pd.Series([True, False]),
        pd.Series([1, None, 0], dtype="Int64"),
        pd.Series([True, None], dtype="boolean"),
        pd.Series([2**63 - 1, 2**53 + 1]),
        pd.Series(["a", None, "2024-01-31"]),
        pd.Series([None, None], dtype=object),
    ],
)
def test_what_pandas_writes_as_csv_is_what_it_writes_as_parquet(values: pd.Series[Any]) -> None:
    written = io.StringIO(values.to_csv(index=False, header=False)).read()
    column = pa.array([line or None for line in written.replace('""', "").splitlines()], pa.string())
    typed = id_strings(pa.array(values, from_pandas=True))
    assert read_untyped(column).texts.to_pylist() == typed.to_pylist()


@pytest.mark.parametrize(
    "values",
    [
        ["007", "12.0", "12"],
        ["1e5", "2e7"],
        ["1.10", "1.1", "1.0"],
        ["12.0", "x"],
        ["True", "maybe"],
        ["12.0", "nan"],
        ["+1", "2.0"],
        ["1", "2"],
        ["2024-01-31"],
    ],
)
def test_text_that_only_looks_like_numbers_stays_itself(values: list[str]) -> None:
    for column in (pa.array(values), pa.array([*values, None]), pa.array(values[::-1])):
        found = read_untyped(column)
        assert found.texts.to_pylist() == column.to_pylist()
        assert found.assumed is None


def test_what_was_assumed_is_said_with_a_value() -> None:
    found = read_untyped(pa.array(["12", None, "3.0", "12.0"]))
    assert found.texts.to_pylist() == ["12", None, "3", "12"]
    assert str(found.assumed) == "its values are read as numbers: 3.0 is 3"
    assert str(read_untyped(pa.array(["TRUE"])).assumed) == "its values are read as truth values: TRUE is true"


def test_floats_that_have_lost_digits_are_refused_in_text_too() -> None:
    users = pd.Series([1_234_567_890_123_456_700 + n for n in range(20)] + [None], dtype="float64")
    lines = users.to_csv(index=False, header=False).splitlines()
    with pytest.raises(DataError, match="too large to tell numbers beside each other apart"):
        read_untyped(pa.array([line.strip('"') or None for line in lines]))
    exact = pa.array([str(2**60 + 1), "5.0"])
    assert read_untyped(exact).texts.to_pylist() == [str(2**60 + 1), "5"], "digits without a point are exact"


def test_values_of_a_dictionary_that_are_the_same_number_get_one_entry() -> None:
    array, assumed = untyped_dictionary(pa.array(["3.0", None, "3", "4.0", "3.0"]).dictionary_encode())
    assert array.to_pylist() == ["3", None, "3", "4", "3"]
    assert sorted(array.dictionary.to_pylist()) == ["3", "4"]
    assert assumed is not None


def test_a_late_value_decides_as_much_as_an_early_one() -> None:
    numbers = [f"{n}.0" for n in np.arange(5_000)]
    assert read_untyped(pa.array([None, *numbers])).texts[1].as_py() == "0"
    assert read_untyped(pa.array([None, *numbers, "x"])).texts[1].as_py() == "0.0"
