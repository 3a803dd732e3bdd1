"""One canonical text of ids, categories and tags, whatever type they come in."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recall.core.canonical import canonical_text, id_dictionary, id_list, id_strings, plain
from recall.core.errors import DataError

ONE = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
NOON = datetime.datetime(2024, 1, 31, 12)
UTC = datetime.timezone.utc
COLUMNS: dict[str, tuple[pa.Array, list[str | None]]] = {
    "integers": (pa.array([7, None, -1]), ["7", None, "-1"]),
    "unsigned": (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
    "floats": (pa.array([12.0, float("nan"), None, 2.5, -0.0]), ["12", None, None, "2.5", "0"]),
    "the largest exact float": (pa.array([2.0**53 - 1]), [str(2**53 - 1)]),
    "float32": (pa.array([0.1, 3], pa.float32()), ["0.1", "3"]),
    "float16": (pa.array([np.float16(0.5), None, np.float16(3)], pa.float16()), ["0.5", None, "3"]),
    "decimals": (pa.array([Decimal("12.00"), Decimal("12.50"), None]), ["12", "12.5", None]),
    "decimals beyond int64": (pa.array([Decimal(2**64)], pa.decimal128(38, 0)), [str(2**64)]),
    "small decimals": (pa.array([Decimal("0.0000001")], pa.decimal128(20, 10)), ["0.0000001"]),
    "short decimals": (pa.array([Decimal("1.10")], pa.decimal32(5, 2)), ["1.1"]),
    "truth": (pa.array([True, None, False]), ["true", None, "false"]),
    "truth in a byte": (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8())), ["true", "false"]),
    "text": (pa.array([" a ", "", "  ", None, "12.0", "007"]), ["a", None, None, None, "12.0", "007"]),
    "large text": (pa.array(["x", None], pa.large_string()), ["x", None]),
    "views of text": (pa.array(["x", None], pa.string_view()), ["x", None]),
    "bytes": (pa.array([b"x", None]), ["x", None]),
    "views of bytes": (pa.array([b"x"], pa.binary_view()), ["x"]),
    "bytes of one length": (pa.array([b"ab"], pa.binary(2)), ["ab"]),
    "UUIDs": (pa.array([None, ONE, uuid.UUID(int=5)]), [None, str(ONE), str(uuid.UUID(int=5))]),
    "dates": (pa.array([NOON.date()]), ["2024-01-31"]),
    "moments": (pa.array([NOON, datetime.datetime(2024, 1, 31)]), ["2024-01-31 12:00:00", "2024-01-31"]),
    "moments with a zone": (pa.array([NOON.replace(tzinfo=UTC)]), ["2024-01-31 12:00:00+00:00"]),
    "fractions of a second": (pa.array([NOON.replace(microsecond=120_000)]), ["2024-01-31 12:00:00.12"]),
    "dictionary": (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
    "dictionary of floats": (pa.array([3.0, None]).dictionary_encode(), ["3", None]),
    "nothing but gaps": (pa.nulls(2), [None, None]),
    "dictionary of gaps": (pa.DictionaryArray.from_arrays(pa.array([None], pa.int32()), pa.nulls(0)), [None]),
    "chunks": (pa.chunked_array([[1], [2, None]]), ["1", "2", None]),
    "no chunks": (pa.chunked_array([], pa.string_view()), []),
    "chunks of UUIDs": (pa.chunked_array([pa.array([ONE]), pa.array([ONE])]), [str(ONE)] * 2),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_value_has_one_text_whatever_its_type(name: str) -> None:
    column, expected = COLUMNS[name]
    ids = id_strings(column)
    assert ids.type == pa.string()
    assert ids.to_pylist() == expected
    assert id_strings(column.slice(1)).to_pylist() == expected[1:], "a slice is read from its place on"
    encoded = id_dictionary(column)
    assert encoded.type == pa.dictionary(pa.int32(), pa.string())
    assert encoded.to_pylist() == expected


def test_a_moment_in_another_zone_is_the_same_moment() -> None:
    there = pa.array([0, 86_400_000], pa.timestamp("ms", "Asia/Kathmandu"))
    assert id_strings(there).to_pylist() == ["1970-01-01 00:00:00+00:00", "1970-01-02 00:00:00+00:00"]


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.float16()])
def test_ids_that_went_through_floats_are_refused_where_digits_may_be_lost(kind: pa.DataType) -> None:
    # The least float whose successor is 2 more: 2^53 and 2^53 + 1 are the same float64.
    least = {64: 2.0**53, 32: 2.0**24, 16: 2.0**11}[kind.bit_width]
    kept = pa.array([np.dtype(kind.to_pandas_dtype()).type(least - 1)], kind)
    assert id_strings(kept).to_pylist() == [f"{least - 1:.0f}"]
    for sign in (1, -1):
        lost = pa.array([np.dtype(kind.to_pandas_dtype()).type(sign * least), None], kind)
        for read in (id_strings, id_dictionary):
            with pytest.raises(
                DataError, match=rf"1 floats of {kind.bit_width} bits .* such as {sign * least:.0f}; .*"
            ):
                read(lost)


def test_ids_that_are_no_values_are_refused() -> None:
    for read in (id_strings, id_dictionary):
        for lists in (pa.array([[1]]), pa.array([{"a": 1}])):
            with pytest.raises(DataError, match="expected ids, found values of type"):
                read(lists)
        for no_text in (pa.array([b"\xff\xfe"]), pa.array([b"\xff" * 16], pa.binary(16))):
            with pytest.raises(DataError, match=r"bytes that are not UTF-8 text .* UUIDs"):
                read(no_text)


def test_elements_of_lists_become_plain_and_lists_keep_their_lengths() -> None:
    offsets = pa.array([0, 1, 1, 3], pa.int32())
    ids = pa.array([ONE, ONE, None], pa.uuid())
    lists = pa.ListArray.from_arrays(offsets, ids, mask=pa.array([False, True, False]))
    assert plain(lists).to_pylist() == [[str(ONE)], None, [str(ONE), None]]
    assert plain(pa.array([[1], []], pa.list_view(pa.int64()))).to_pylist() == [[1], []]
    assert plain(pa.chunked_array([pa.array([["a"]], pa.list_(pa.string_view()))])).to_pylist() == [["a"]]


VALUES: list[tuple[Any, str]] = [
    ("  12.0 ", "12.0"),
    (12, "12"),
    (12.0, "12"),
    (2.5, "2.5"),
    (True, "true"),
    (np.bool_(False), "false"),
    (np.int8(3), "3"),
    (np.float32(0.1), "0.1"),
    (np.uint64(2**63 + 5), str(2**63 + 5)),
    (2**63 + 5, str(2**63 + 5)),
    (2**70, str(2**70)),
    (Decimal("3.0"), "3"),
    (ONE, str(ONE)),
    (NOON.date(), "2024-01-31"),
    (NOON, "2024-01-31 12:00:00"),
    (pd.Timestamp(NOON), "2024-01-31 12:00:00"),
    (b"x", "x"),
]


@pytest.mark.parametrize(("value", "expected"), VALUES)
def test_python_values_have_the_text_of_columns(value: Any, expected: str) -> None:
    assert canonical_text(value) == expected
    assert id_list([value], what="ids").to_pylist() == [expected]


@pytest.mark.parametrize("value", [None, "", " ", [1], {}, float("nan"), float("inf"), 2.0**60, object(), b"\xff"])
def test_python_values_without_an_exact_text_are_value_errors(value: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        canonical_text(value)


@pytest.mark.parametrize(
    "values",
    [
        [12, "a"],
        [2**60 + 1, 0.5],
        [2.0**60],
        [b"\xff"],
        ["\ud83d"],
        [[1]],
        [{}],
        [object()],
        [10**5000],
        [2**63, None, True],
    ],
)
def test_lists_that_are_no_ids_are_refused_by_name(values: list[Any]) -> None:
    with pytest.raises(DataError, match=r"^users: "):
        id_list(values, what="users")


def test_lists_may_hold_numbers_beyond_int64_of_any_kind() -> None:
    large = 2**63 + 5
    for values in ([large, 3], np.array([large, 3], np.uint64), [np.uint64(large), 3]):
        assert id_list(values, what="users").to_pylist() == [str(large), "3"]
