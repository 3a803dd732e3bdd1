"""Values computed from the distinct values of a column are the ones of every entry, whatever the column holds."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from recall.data.item_attributes import TAGS
from recall.serving.items.distinct import DistinctValues

COLUMNS = {
    "text": pa.array(["a", None, "b", "a", "", "a", "b", None]),
    "numbers": pa.array([1.5, float("nan"), None, 1.5, float("nan"), None, 1.5, 1.5]),
    "times": pa.array([datetime(2024, 1, 1, tzinfo=UTC), None] * 4, pa.timestamp("ms", tz="UTC")),
    "tags": pa.array([["a", "b"], [], None, ["b", "a"], ["a", "b"], [], ["a,b"], ["b", "a"]] * 2, TAGS),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_each_entry_gets_the_value_of_its_like(name: str) -> None:
    column = COLUMNS[name]
    found = DistinctValues.of(column)
    assert found is not None
    asked = list[pa.Array]()

    def texts(values: pa.Array) -> np.ndarray:
        asked.append(values)
        return np.array([str(value) for value in values.to_pylist()])

    assert found.by_item(texts).tolist() == [str(value) for value in column.to_pylist()]
    assert len(asked[0]) == len({str(value) for value in column.to_pylist()}), "each value once"


def test_a_column_of_many_values_is_read_as_it_is() -> None:
    assert DistinctValues.of(pa.array([str(number) for number in range(100)])) is None
