"""Options of a search: what is refused when they are built, and the short form that builds them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from recall.core.errors import DataError
from recall.serving.search.options import SearchOptions, check_caps, cold_items, parse_caps


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ({"k": 0}, "k: expected at least 1"),
        ({"k": 5, "fallback": "always"}, "fallback: expected true, false or filtered, found 'always'"),
        ({"k": 5, "min_cold_share": 2}, "min_cold_share"),
        ({"k": 5, "caps": {"author": 0}}, "caps"),
        ({"k": 5, "budget": [20]}, "budget: says which items min_cold_share is for, which is 0"),
        ({"k": 5, "min_cold_share": 0.2, "budget": [20, 20]}, "budget: expected rising whole numbers of exposures"),
        ({"k": 5, "min_cold_share": 0.2, "budget": [0]}, "found \\[0\\]"),
        ({"k": 5, "filters": {"colour": "red"}}, "filters: colour: unknown key"),
    ],
)
def test_impossible_wishes_are_refused(wanted: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        SearchOptions(**wanted)


def test_keywords_are_the_short_form_of_options() -> None:
    wanted: dict[str, Any] = {"k": 7, "filters": {"deny": ["a"]}, "caps": {"author": 2}, "fallback": "filtered"}
    options = SearchOptions(**wanted)
    assert SearchOptions.read(None, wanted) == options
    assert SearchOptions.read(None, {"k": 7}) == SearchOptions(k=7)
    assert SearchOptions.read(options, {}) is options
    assert dataclasses.replace(options, k=8) == SearchOptions(**{**wanted, "k": 8})


def test_options_and_keywords_together_are_one_clear_error() -> None:
    with pytest.raises(DataError, match="options: SearchOptions and k, caps beside them; set these in SearchOptions"):
        SearchOptions.read(SearchOptions(k=3), {"k": 3, "caps": {"author": 2}})


def test_an_exclusion_that_can_be_read_once_serves_every_search() -> None:
    assert SearchOptions(exclude=iter(["a", "b"])).exclude == ("a", "b")
    with pytest.raises(DataError, match="exclude: expected a list of ids"):
        SearchOptions(exclude="a")


def test_options_stay_as_they_were_built() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SearchOptions().k = 3  # type: ignore[misc]


def test_a_share_is_rounded_up_to_whole_items() -> None:
    assert [cold_items(10, share) for share in (0, 0.01, 0.1, 0.3, 0.7, 1)] == [0, 1, 1, 3, 7, 10]
    assert cold_items(5, 0.5) == 3


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_outside_of_0_to_1_is_an_error(share: float) -> None:
    with pytest.raises(DataError, match="min_cold_share: expected a number from 0 to 1"):
        cold_items(10, share)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "2", True])
def test_a_cap_is_a_number_of_items(limit: Any) -> None:
    with pytest.raises(DataError, match=r"caps\['author'\]: expected a whole number of items"):
        check_caps({"author": limit})


def test_caps_as_text() -> None:
    assert parse_caps(["author_id=2", "a=b=3"]) == {"author_id": 2, "a=b": 3}
    for wrong in (["author"], ["=2"], ["a=x"], ["a=1", "a=2"]):
        with pytest.raises(DataError, match="cap: expected COLUMN=N"):
            parse_caps(wrong)
