"""JSON lines: text stays text, and whole numbers stay exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recall.core.canonical import id_strings
from recall.core.errors import DataError
from recall.core.tables import read_table


def read(tmp_path: Path, *rows: dict[str, Any]) -> pa.Table:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_table(path)


def test_text_that_looks_like_a_date_stays_text(tmp_path: Path) -> None:
    row = {
        "id": "2024-01-01",
        "tags": ["2024-01-01", "x"],
        "all dates": ["2024-01-01"],
        "at": "2024-01-01 10:00:00",
        "inner": {"day": "2024-01-01", "n": 1, "list": [{"day": "2024-01-01"}]},
    }
    assert read(tmp_path, row).to_pylist() == [row]


def test_text_that_first_comes_late_in_the_file_stays_text(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"n": place} for place in range(60_000)]
    found = read(tmp_path, *rows, {"n": 1, "day": "2024-01-01", "inner": {"day": "2024-01-01"}})
    assert found["day"][-1].as_py() == "2024-01-01"
    assert found["inner"][-1].as_py() == {"day": "2024-01-01"}
    assert found.column_names == ["n", "day", "inner"]


def test_one_number_beyond_int64_spoils_no_other_number(tmp_path: Path) -> None:
    users = [2**63 + 5, 2**53 + 1, 12, -(2**63) - 1]
    found = read(tmp_path, *({"user": user, "friends": [user], "rating": 2.5} for user in users))
    assert id_strings(found["user"]).to_pylist() == [str(user) for user in users]
    assert [friends for (friends,) in found["friends"].to_pylist()] == users
    assert found["rating"].to_pylist() == [2.5] * 4


def test_a_float_beside_large_whole_numbers_is_read_exactly_or_refused(tmp_path: Path) -> None:
    assert id_strings(read(tmp_path, {"id": 2**53 + 1}, {"id": 7.0})["id"]).to_pylist() == [str(2**53 + 1), "7"]
    assert id_strings(read(tmp_path, {"id": 2**52 + 1}, {"id": 0.5})["id"]).to_pylist() == [str(2**52 + 1), "0.5"]
    with pytest.raises(DataError, match="too large to tell numbers beside each other apart"):
        id_strings(read(tmp_path, {"id": 2**53 + 1}, {"id": 0.5})["id"])


def test_numbers_of_any_size_that_are_no_ids_are_still_read(tmp_path: Path) -> None:
    assert read(tmp_path, {"x": 1e300}, {"x": 1})["x"].to_pylist() == [1e300, 1.0]


def test_columns_keep_the_order_of_the_file(tmp_path: Path) -> None:
    assert read(tmp_path, {"b": 1, "a": "x", "d": 2, "c": "2024-01-01"}).column_names == ["b", "a", "d", "c"]


def test_values_of_two_types_in_a_column_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl: column id holds a string in one row and a number in another"):
        read(tmp_path, {"id": "7"}, {"id": 7})
