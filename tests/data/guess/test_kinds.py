"""Tests what a column of items or users is taken for, and what is left out and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recall.data.guess.columns import columns_of, words_of
from recall.data.guess.kinds import Feature, LeftOut, feature_of

ROWS = 200
NOW_MS = 1_800_000_000_000
RNG = np.random.default_rng(3)
VECTORS = [[float(row), 1.0, 0.5, 2.0] for row in range(ROWS)]


def guess(name: str, values: Any, *, of_items: bool = True, **others: Any) -> Feature | LeftOut:
    columns = columns_of(
        pa.table({name: pa.array(list(values)), **{key: pa.array(list(one)) for key, one in others.items()}})
    )
    return feature_of(columns[name], columns, of_items=of_items, now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("name", "values", "place", "settings"),
    [
        ("colour", ["red", "blue"] * 100, "meta", {"type": "category"}),
        ("is_new", [True, False] * 100, "meta", {"type": "category"}),
        ("is_new", ["True", "False"] * 100, "meta", {"type": "category"}),
        ("category_id", [f"{row % 60}" for row in range(ROWS)], "meta", {"type": "category", "min_count": 5}),
        ("postcode", [f"0{row % 30}" for row in range(ROWS)], "meta", {"type": "category"}),
        ("size_range", [["[1,5)", "[5,1k)"][row % 2] for row in range(ROWS)], "meta", {"type": "category"}),
        ("year", range(1900, 1900 + ROWS), "meta", {"type": "number"}),
        ("height_cm", np.linspace(1, 2, ROWS), "meta", {"type": "number"}),
        ("duration_s", [str(2 ** (row % 15)) + ".5" for row in range(ROWS)], "meta", {"type": "number", "log": True}),
        ("genres", ["a|b", "b|c", "c", "a"] * 50, "meta", {"type": "tags", "separator": "|"}),
        ("tag", ["3,17", "3", "17", "5"] * 50, "meta", {"type": "tags", "separator": ","}),
        ("words", [["x", "y"], ["y"]] * 100, "meta", {"type": "tags"}),
        ("text", VECTORS, "meta", {"type": "embedding"}),
        ("author_id", [row % 70 for row in range(ROWS)], "behaviour", {"type": "id", "min_count": 2}),
        ("brand", [f"brand {row % 70}" for row in range(ROWS)], "behaviour", {"type": "id", "min_count": 2}),
    ],
)  # fmt: skip
def test_a_column_becomes_the_feature_that_its_values_show(name: str, values: Any, place: str, settings: Any) -> None:
    found = guess(name, values)
    assert isinstance(found, Feature), found
    assert (found.place, found.settings) == (place, {"name": name, **settings})


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("nothing", [None] * ROWS, "no values"),
        ("nothing", [float("nan")] * ROWS, "no values"),
        ("kind", ["video"] * ROWS, "same in all rows"),
        ("click_count", RNG.integers(0, 900, ROWS), "result of clicks"),
        ("ctr", RNG.random(ROWS), "result of clicks"),
        ("avg_rating", RNG.random(ROWS), "result of clicks"),
        ("viewCount", [str(row) for row in range(ROWS)], "result of clicks"),
        ("visible_status", [0, 1] * 100, "state when the table was made"),
        ("author_id", range(ROWS), "no more than the item's id"),
        ("slug", [f"item-{row}" for row in range(ROWS)], "name rows and describe none"),
        ("plot", [f"A long story, in which number {row} is told, and of a cat." for row in range(ROWS)], "free text"),
        ("entities", ['[{"Label": "x"}]', "[]"] * 100, "JSON"),
        ("premiere", ["01-Jan-1995", "02-Feb-1996"] * 100, "date"),
        ("last_seen", range(1_700_000_000, 1_700_000_000 + ROWS), "is a time"),
        ("parts", [{"a": 1}] * ROWS, "no feature reads"),
    ],
)  # fmt: skip
def test_a_column_of_no_use_is_left_out_with_the_reason(name: str, values: Any, why: str) -> None:
    found = guess(name, values)
    assert isinstance(found, LeftOut), found
    assert why in found.why


def test_words_of_results_are_words_and_no_parts_of_words() -> None:
    assert isinstance(guess("preview_length", RNG.integers(0, 900, ROWS)), Feature)
    assert isinstance(guess("display_width", RNG.integers(0, 900, ROWS)), Feature)


def test_a_number_that_is_there_as_a_range_is_left_out() -> None:
    found = guess("age", RNG.integers(10, 90, ROWS), of_items=False, age_range=["10-20", "20-30"] * 100)
    assert found == LeftOut("age", "is told by age_range")


def test_features_of_users_have_no_ids_of_items_and_no_vectors() -> None:
    assert isinstance(guess("last_item_id", range(ROWS), of_items=False), LeftOut)
    assert isinstance(guess("taste", VECTORS, of_items=False), LeftOut)
    country = guess("country", ["de", "fr"] * 100, of_items=False)
    assert isinstance(country, Feature)
    assert country.place == "user"


def test_a_column_whose_name_is_no_name_of_a_feature_gets_another() -> None:
    found = guess("Größe (cm)", ["S", "L"] * 100)
    assert isinstance(found, Feature)
    assert found.settings == {"name": "Gr_e_cm", "column": "Größe (cm)", "type": "category"}


def test_names_are_split_into_words() -> None:
    assert words_of("videoId") == words_of("video_id") == words_of("Video ID") == ("video", "id")
