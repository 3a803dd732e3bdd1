"""Times without an offset, texts that are no time, and time zones, beside the library's own datetime."""

from __future__ import annotations

import datetime
import zoneinfo

import pyarrow as pa
import pytest

from recall.core.times import is_time_zone, parse_times

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
# Summer time begins and ends in each of the zones below on one of these days, or nowhere near them.
LOCAL = [
    "2024-01-01",
    "2024-03-10T02:30:00",
    "2024-03-31T01:30:00.123",
    "2024-07-01 12:00",
    "2024-10-06T02:15:00",
    "2024-10-27T01:30:00",
    "2024-11-03T01:30:00",
    "2011-03-13T00:00:30",
    "0002-01-01",
]
WITH_OFFSET = ["2024-01-01T00:00Z", "2024-07-01 00:00:00+01:00", "2024-07-01T00:00:00.5-0330", "2024-07-01 00:00 +02"]
ZONES = ["UTC", "Europe/Dublin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu"]


def by_the_library(text: str, zone: str) -> int:
    moment = datetime.datetime.fromisoformat(text.replace(" +02", "+02"))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zoneinfo.ZoneInfo(zone))  # fold=0: the first of two, the clock before a change
    return (moment - EPOCH) // datetime.timedelta(milliseconds=1)


@pytest.mark.parametrize("zone", ZONES)
def test_texts_without_an_offset_are_of_the_time_zone_and_others_are_not(zone: str) -> None:
    found = parse_times(pa.array([*LOCAL, *WITH_OFFSET]), "iso", time_zone=zone)
    assert found.ms.tolist() == [by_the_library(text, zone) for text in [*LOCAL, *WITH_OFFSET]]
    assert not found.missing.any()
    assert not found.unreadable.any()
    assert found.without_zone == len(LOCAL)


@pytest.mark.parametrize("kind", [pa.timestamp("ms"), pa.timestamp("us"), pa.date32()])
def test_arrow_moments_without_a_zone_are_of_the_time_zone(kind: pa.DataType) -> None:
    column = pa.array([datetime.datetime(2024, 7, 1), None], pa.timestamp("us")).cast(kind)
    found = parse_times(column, "ms", time_zone="Europe/Berlin")
    assert found.ms[0] == by_the_library("2024-06-30T22:00:00+00:00", "UTC")
    assert found.missing.tolist() == [False, True]
    assert found.without_zone == 1
    with_zone = pa.array([datetime.datetime(2024, 7, 1)], pa.timestamp("us", "America/New_York"))
    found = parse_times(with_zone, "ms", time_zone="Europe/Berlin")
    assert found.ms[0] == by_the_library("2024-07-01", "UTC")  # Arrow keeps moments of UTC beside the name of a zone
    assert found.without_zone == 0


def test_numbers_count_from_1970_in_utc_whatever_the_time_zone() -> None:
    assert parse_times(pa.array([0, 12]), "s", time_zone="Asia/Kathmandu").ms.tolist() == [0, 12_000]


@pytest.mark.parametrize("text", ["now", "today", " now ", "1700000000", "12:00:00", "yesterday", "2024Q1", "1.7e9"])
def test_a_text_that_is_no_time_is_not_the_moment_of_the_run(text: str) -> None:
    found = parse_times(pa.array([text, "2024-01-01"]), "iso")
    assert found.unreadable.tolist() == [True, False]


@pytest.mark.parametrize("unit", ["iso", "s", "ms", "us", "ns"])
@pytest.mark.parametrize("text", ["NaT", "nan", "NULL", "None", "", "  ", "<NA>"])
def test_a_text_that_says_that_there_is_no_time_is_a_missing_one(text: str, unit: str) -> None:
    found = parse_times(pa.array([text]), unit)  # type: ignore[arg-type]
    assert (found.missing[0], found.unreadable[0], found.ms[0]) == (True, False, 0)


def test_nanoseconds_that_came_through_floats_are_read() -> None:
    found = parse_times(pa.array([1.7e18, None, float("nan")]), "ns")
    assert found.ms[0] == 1_700_000_000_000
    assert found.missing.tolist() == [False, True, True]


@pytest.mark.parametrize(("unit", "value"), [("s", 2**40), ("s", -(2**40))])
def test_moments_beyond_the_calendar_of_a_time_zone_cannot_be_read(unit: str, value: int) -> None:
    column = pa.array([value], pa.timestamp(unit))
    assert parse_times(column, "ms", time_zone="Europe/Berlin").unreadable[0]


def test_time_zones_are_known_by_their_iana_names() -> None:
    assert [is_time_zone(name) for name in ("UTC", "Europe/Berlin", "Mars/Olympus", "", "../passwd", "CET+1")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
