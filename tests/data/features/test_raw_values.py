"""Values of callers' rows are brought to their features' types, one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recall.config.features import CategoryFeature, EmbeddingFeature, Feature, IdFeature, NumberFeature, TagsFeature
from recall.core.errors import DataError
from recall.data.features.raw_values import raw_column, raw_value
from recall.data.features.table_encoder import TableEncoder

KIND = CategoryFeature(name="kind", type="category")
AUTHOR = IdFeature(name="author", type="id", column="author_id")
TAGS = TagsFeature(name="tags", type="tags", separator="|")
PRICE = NumberFeature(name="price", type="number")
TEXT = EmbeddingFeature(name="text", type="embedding")

VALUES: list[tuple[Feature, list[Any], list[Any]]] = [
    (KIND, [7, "k1", 7.0, True, " ", None, np.nan, pd.NA], ["7", "k1", "7", "true", None, None, None, None]),
    (AUTHOR, ["12.0", 12, np.int64(12), b"x"], ["12.0", "12", "12", "x"]),
    (TAGS, [["a", 1, None], "a| b |", 3, True, (), None], [["a", "1"], ["a", "b"], ["3"], ["true"], [], None]),
    (PRICE, ["12.50", 12.5, 3, True, "", np.float32(2), np.nan, None], [12.5, 12.5, 3.0, 1.0, None, 2.0, None, None]),
    (TEXT, [[1, 2.5], np.array([1, 2]), [], None], [[1.0, 2.5], [1.0, 2.0], [], None]),
]


@pytest.mark.parametrize(("feature", "values", "expected"), VALUES)
def test_values_of_several_types_become_one_column(feature: Feature, values: list[Any], expected: list[Any]) -> None:
    assert raw_column(feature, values).to_pylist() == expected
    for value, one in zip(values, expected, strict=True):  # as if each had come alone
        assert raw_column(feature, [value]).to_pylist() == [one]


WRONG: list[tuple[Feature, Any]] = [
    (KIND, ["a"]),
    (KIND, {"a": 1}),
    (KIND, 2.0**60),
    (KIND, float("inf")),
    (AUTHOR, b"\xff"),
    (TAGS, {"a": 1}),
    (TAGS, [["a"]]),
    (PRICE, "long"),
    (PRICE, float("inf")),
    (PRICE, [1.0]),
    (PRICE, pd.Timestamp(0)),
    (TEXT, 1.0),
    (TEXT, "1 2"),
    (TEXT, ["1", "2"]),
    (TEXT, [1.0, None]),
    (TEXT, [1.0, np.nan]),
    (TEXT, [1e39]),
    (TEXT, [[1.0]]),
    (TEXT, [True]),
]


@pytest.mark.parametrize(("feature", "value"), WRONG)
def test_a_value_of_another_type_is_refused_by_row_and_column_with_what_was_expected(
    feature: Feature, value: Any
) -> None:
    with pytest.raises(DataError, match=rf"row 1 \(counted from 0\), column {feature.source}: expected .*, found "):
        raw_column(feature, [None, value])
    assert raw_column(feature, [None, value], strict=False).to_pylist() == [None, None]


def test_half_a_pair_of_surrogates_is_no_text() -> None:
    for feature in (KIND, AUTHOR, TAGS):
        with pytest.raises(ValueError, match="surrogates not allowed"):
            raw_value(feature, "half \ud83d")


def encoder(kinds: pa.Array) -> TableEncoder:
    return TableEncoder.fit({"meta": [KIND]}, pa.table({"kind": kinds}))


@pytest.mark.parametrize(
    ("kinds", "same"),
    [
        (pa.array([1, 3, 3]), [3, 3.0, "3", "3.0"]),
        (pa.array([1.5, 3.0, 3.0]), [3, 3.0, "3", "3.0"]),
        (pa.array([True, False, True]), [True, np.bool_(True), "true", "True", "TRUE"]),
        (pa.array(["12", "12.0", "12.0"]), ["12.0", " 12.0 "]),
    ],
)
def test_a_caller_may_write_a_category_in_every_form_that_its_column_has(kinds: pa.Array, same: list[Any]) -> None:
    fitted = encoder(kinds)
    known = fitted.encode(pa.table({"kind": kinds}))["kind"].to_pylist()[-1]
    assert fitted.encode([{"kind": value} for value in same])["kind"].to_pylist() == [known] * len(same)


def test_texts_that_differ_only_as_numbers_stay_apart_where_the_column_is_text() -> None:
    fitted = encoder(pa.array(["12", "12.0", "007", "7", "1e5", "100000", "True", "true"]))
    codes = fitted.encode([{"kind": value} for value in ("12", "12.0", "007", "7", "1e5", "100000", "True", "true")])
    assert len(set(codes["kind"].to_pylist())) == 8
    assert fitted.encode([{"kind": 12}, {"kind": "12"}])["kind"].to_pylist()[0] == codes["kind"][0].as_py()


@pytest.mark.parametrize(("has_gap", "allowed"), [(True, True), (False, False)])
def test_a_vector_may_be_left_out_only_where_some_row_of_the_file_has_none(
    has_gap: bool, allowed: bool, tmp_path: Any
) -> None:
    vectors = pa.array([[1.0, 0.0], None if has_gap else [0.0, 1.0]], pa.list_(pa.float32()))
    TableEncoder.fit({"meta": [TEXT]}, pa.table({"text": vectors})).save(tmp_path)
    ((_, fitted),) = TableEncoder.load(tmp_path).features
    assert fitted.allows_missing is allowed
