"""Rows of new items are checked when they are accepted: their columns, and the types of their values."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recall.config.features import CategoryFeature, EmbeddingFeature, NumberFeature, TagsFeature
from recall.core.errors import DataError
from recall.data.features.table_encoder import TableEncoder
from recall.serving.items.raw import RowReader

FEATURES = (
    CategoryFeature(name="kind", type="category"),
    NumberFeature(name="price", type="number"),
    NumberFeature(name="kind_as_number", type="number", column="year"),
    CategoryFeature(name="year", type="category"),
    TagsFeature(name="tags", type="tags"),
    EmbeddingFeature(name="text", type="embedding"),
)
ITEMS = pa.table(
    {
        "kind": ["a", "b"],
        "price": [1.5, 2.5],
        "year": [2001, 2002],
        "tags": ["a,b", "c"],
        "text": [[1.0, 0.0], [0.0, 1.0]],
    }
)
FILE = ("item", "kind", "price", "year", "tags", "text", "colour")
ENCODER = TableEncoder.fit({"meta": FEATURES}, ITEMS)


@pytest.fixture
def reader() -> RowReader:
    return RowReader(ENCODER, attributes=["published"], file_columns=FILE)


def test_a_misspelt_column_is_refused_with_the_one_that_was_meant(reader: RowReader) -> None:
    right = {"item": "x", "text": [1.0, 0.0], "colour": "red", "published": 3}
    reader.require_columns([right, {"text": None}])
    for rows in ([right, {"item": "y", "txet": [1.0, 0.0]}], pd.DataFrame([{"item": "y", "txet": [1.0, 0.0]}])):
        with pytest.raises(
            DataError, match=r"unknown columns txet \(for text\?\); the items file has colour, item, ki"
        ):
            reader.require_columns(rows)
    with pytest.raises(DataError, match=r"row 0 \(counted from 0\): unknown columns size, weight; the items file has"):
        reader.require_columns([{**right, "weight": 1, "size": 2}])


def test_a_vector_that_every_item_has_must_be_there_or_null(reader: RowReader) -> None:
    for rows in ([{"text": None}, {"item": "x", "kind": "a"}], pd.DataFrame({"item": ["x"]})):
        with pytest.raises(DataError, match="no text, which every item of the items file has"):
            reader.require_columns(rows)
    reader.require_columns(pd.DataFrame({"item": ["x"], "text": [None]}))


def test_a_run_that_did_not_note_its_columns_refuses_what_looks_like_a_mistake() -> None:
    reader = RowReader(ENCODER, attributes=["published"])
    reader.require_columns([{"text": [1.0, 0.0], "colour": "red"}])
    with pytest.raises(DataError, match=r"unknown columns prize \(for price\?\)"):
        reader.require_columns([{"text": [1.0, 0.0], "prize": 3}])


def test_values_are_kept_in_the_types_of_their_columns(reader: RowReader) -> None:
    row: dict[str, Any] = {"item": 7, "kind": 7, "price": "12.50", "year": "2001", "tags": "a, b", "text": np.ones(2)}
    (typed,) = reader.typed([row], ["7"])
    assert typed == {"item": 7, "kind": "7", "price": 12.5, "year": "2001", "tags": ["a", "b"], "text": [1.0, 1.0]}
    one = uuid.UUID(int=5)
    (typed,) = reader.typed([{"item": one, "kind": one, "colour": Decimal("1.50"), "tags": {"a"}}], ["x"])
    assert typed == {"item": str(one), "kind": str(one), "colour": "1.5", "tags": ["a"]}
    gaps = {"item": "x", "kind": np.nan, "price": None, "tags": pd.NA, "text": None, "colour": pd.NaT}
    assert reader.typed([gaps], ["x"]) == [{"item": "x"}]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"colour": "half \ud83d"}, "item new: a value cannot be kept as JSON .*surrogates not allowed"),
        ({"price": "cheap"}, "item new, column price: expected a finite number, found 'cheap'"),
        ({"kind": ["a"]}, "item new, column kind: expected ids, found values of type list"),
        ({"year": "last"}, "item new, column year: expected a finite number, found 'last'"),
        ({"tags": {"a": 1}}, "item new, column tags: expected a list of tags, or one text, found "),
        ({"text": "1,2"}, "item new, column text: expected a list of finite numbers, found '1,2'"),
    ],
)
def test_a_value_that_cannot_be_brought_to_its_type_is_refused_at_once(
    reader: RowReader, row: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        reader.typed([row], ["new"])
