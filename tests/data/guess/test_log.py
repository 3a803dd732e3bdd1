"""Tests what is guessed of a log: its users, items, clicks and clock, and the traps among them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from recall.core.errors import ConfigError, DataError
from recall.data.guess.choices import Named
from recall.data.guess.clocks import ClockGuess, guess_clock
from recall.data.guess.columns import Column, columns_of
from recall.data.guess.log import ClickGuess, guess_click, guess_item, guess_item_id, guess_user

NOW_MS = 1_800_000_000_000  # January 2027
MOMENTS_S = [1_700_000_000 + 3_601 * row for row in range(20)]  # November 2023


def columns(values: Mapping[str, Any]) -> dict[str, Column]:
    return columns_of(pa.table({name: pa.array(column) for name, column in values.items()}))


def clock(values: Mapping[str, Sequence[Any]], named: Named = Named(), taken: Sequence[str] = ()) -> ClockGuess:  # noqa: B008
    return guess_clock(columns(values), taken=taken, named=named, now_ms=NOW_MS, file="log.csv")


def click(values: Mapping[str, Sequence[Any]], named: Named = Named()) -> ClickGuess:  # noqa: B008
    return guess_click(columns(values), set(), named=named, file="log.csv")


# Times


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
@pytest.mark.parametrize("as_text", [False, True])
def test_the_unit_is_the_one_that_gives_days_of_ours(unit: str, per_second: int, as_text: bool) -> None:
    times = [second * per_second for second in MOMENTS_S]
    found = clock({"when": [str(time) for time in times] if as_text else times, "x": range(20)})
    assert (found.time.value, found.unit.value, found.by_day) == ("when", unit, False)


def test_times_as_text_and_typed_moments_are_iso() -> None:
    moments = [datetime.datetime.fromtimestamp(second, datetime.timezone.utc) for second in MOMENTS_S]
    written = clock({"event_time": [moment.isoformat() for moment in moments]})
    typed = clock({"event_time": moments})
    assert (written.unit.value, written.is_typed) == ("iso", False)
    assert (typed.unit.value, typed.is_typed) == ("iso", True)


def test_days_alone_are_noticed() -> None:
    assert clock({"date": [f"2024-01-{day:02}" for day in range(1, 20)]}).by_day


def test_an_id_that_looks_like_seconds_is_no_clock() -> None:
    ids = [1_500_000_000 + 977 * row for row in range(20)]
    found = clock({"order_id": ids, "clicked_at": MOMENTS_S})
    assert found.time.value == "clicked_at"
    with pytest.raises(ConfigError, match=r"no column looks like a time; its columns are order_id\. .* --time COLUMN"):
        clock({"order_id": ids})


def test_positions_are_an_order_and_that_is_not_sure() -> None:
    found = clock({"timestamp": range(20), "x": ["a", "b"] * 10})
    assert (found.unit.value, "positions" in found.unit.unsure) == ("order", True)


def test_dates_that_can_be_read_in_two_ways_are_refused_with_what_to_write() -> None:
    with pytest.raises(ConfigError, match=r"column date holds dates such as 11/12/2019.*2024-01-31T12:00:00"):
        clock({"date": ["11/12/2019", "10/12/2019"], "x": [1, 2]})


def test_what_the_caller_names_is_taken() -> None:
    found = clock({"a": MOMENTS_S, "b": range(20)}, Named(time="b", time_unit="order"))
    assert (found.time.value, found.unit.value) == ("b", "order")
    with pytest.raises(ConfigError, match=r"--time c: log.csv has no such column; its columns are a, b"):
        clock({"a": MOMENTS_S, "b": range(20)}, Named(time="c"))


# Users and items


def ids_of(events: Mapping[str, Any], items: Mapping[str, Any], named: Named = Named()) -> tuple[str, str, str]:  # noqa: B008
    """Guess the user and the item of a log, and the id of the items file."""
    log, catalogue = columns(events), columns(items)
    item_id = guess_item_id(catalogue, log, named=named, file="items.csv").value
    item = guess_item(log, catalogue[item_id], named=named, file="log.csv", is_whole=True).value
    return guess_user(log, {}, item, named=named, file="log.csv").value, item, item_id


@pytest.mark.parametrize(
    ("user", "item", "item_id"),
    [("user_id", "item_id", "item_id"), ("userId", "movieId", "movieId"), ("visitorid", "itemid", "id"),
     ("customer_id", "article_id", "article_id"), ("reviewerID", "asin", "asin"), ("uid", "vid", "video_id")],
)  # fmt: skip
def test_users_and_items_are_found_by_name(user: str, item: str, item_id: str) -> None:
    # Both are small whole numbers, so that values say nothing.
    events = {"rating": [1, 5, 3, 4], user: [1, 2, 1, 3], item: [3, 1, 2, 2]}
    assert ids_of(events, {item_id: [1, 2, 3], "year": [1990, 1991, 1992]}) == (user, item, item_id)


def test_an_item_of_any_name_is_found_by_its_values() -> None:
    events = {"who": ["a", "b", "a"], "what": ["k1", "k2", "k2"]}
    assert ids_of(events, {"key": ["k1", "k2", "k3"]}, Named(user="who")) == ("who", "what", "key")


def test_what_is_missing_is_said_with_the_columns_and_the_option() -> None:
    with pytest.raises(
        ConfigError, match=r"no column looks like a user's id; its columns are a, item_id\..*--user COLUMN"
    ):
        ids_of({"a": [1, 2], "item_id": [1, 2]}, {"item_id": [1, 2]})
    with pytest.raises(
        ConfigError, match=r"no column looks like an item's id .* its columns are user_id, b\..*--item COLUMN"
    ):
        ids_of({"user_id": ["x", "y"], "b": ["p", "q"]}, {"item_id": [1, 2]})
    with pytest.raises(
        ConfigError, match=r"no column has a value of its own in every row \(item_id repeats.*--item-id"
    ):
        ids_of({"user_id": ["x", "y"], "item_id": [1, 2]}, {"item_id": [1, 1]})
    with pytest.raises(ConfigError, match=r"none of the ids of column item_id \(such as 1, 2\) is in column item_id"):
        ids_of({"user_id": ["x", "y"], "item_id": [1, 2]}, {"item_id": ["i1", "i2"]})


def test_sessions_stand_for_users_and_that_is_not_sure() -> None:
    log = columns({"session_id": ["a", "a", "b"], "item_id": [1, 2, 1]})
    assert "sessions stand for users" in guess_user(log, {}, "item_id", named=Named(), file="log.csv").unsure


# Clicks


def test_a_flag_called_click_is_the_click_and_other_flags_are_not() -> None:
    found = click({"is_like": [0, 1, 0], "is_click": [1, 1, 0], "tab": [1, 2, 3]})
    assert (found.click.value, found.click.unsure, found.others) == ("is_click", "", ("is_like",))


def test_a_flag_of_another_name_is_not_sure() -> None:
    found = click({"long_view": [0, 1, 0], "tab": [1, 2, 3]})
    assert (found.click.value, "its name is not click" in found.click.unsure) == ("long_view", True)


@pytest.mark.parametrize(("grades", "least"), [([1, 2, 3, 4, 5], 4), ([0.5, 2.5, 5.0], 4), ([2, 6, 9, 10], 8)])
def test_a_good_grade_is_a_click(grades: list[float], least: float) -> None:
    found = click({"rating": grades})
    assert (found.click.value, found.at_least, bool(found.click.unsure)) == ("rating", least, True)


def test_without_a_flag_every_row_is_a_click_and_that_is_not_sure() -> None:
    found = click({"price": [1.5, 2.5, 9.0]})
    assert (found.click.value, "--click COLUMN" in found.click.unsure) == ("every row", True)
    assert click({"is_click": [0, 1]}, Named(click="none")).click == ("events.click", "every row", "as you say", "")


def test_exposures_that_are_told_by_text_are_refused() -> None:
    with pytest.raises(DataError, match=r"event_type tells exposures from clicks by text .* column of numbers"):
        click({"event_type": ["impression", "click", "impression"]})
    shopping = click({"event_type": ["view", "addtocart", "view"]})
    assert (shopping.click.value, "addtocart, view" in shopping.click.unsure) == ("every row", True)
