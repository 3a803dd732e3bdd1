"""When items were published: forms of times, what is refused, and items that were exposed before."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recall.config.data import DataConfig
from recall.core.errors import DataError
from recall.data.event_counts import count_buckets
from recall.data.posterior import PosteriorHistory, Prior
from recall.data.published import (
    ALWAYS_MS,
    candidates_from,
    published_after_exposure,
    published_times,
    require_unit_of_log,
)

NOON_MS = 1_706_702_400_000  # 2024-01-31T12:00:00Z


def data(unit: str = "ms", zone: str = "UTC") -> DataConfig:
    return DataConfig.model_validate({
        "events": {"path": "log.csv", "time_unit": unit, "time_zone": zone},
        "items": {"path": "items.csv", "published": "published"},
    })  # fmt: skip


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        (pa.array([NOON_MS, None]), "ms"),
        (pa.array([NOON_MS / 1000, None]), "s"),
        (pa.array([str(NOON_MS), None]), "ms"),
        (pa.array(["2024-01-31T12:00:00", None]), "ms"),
        (pa.array(["2024-01-31 13:00:00+01:00", ""]), "iso"),
        (pa.array([NOON_MS, None], pa.timestamp("ms")), "s"),
        (pa.chunked_array([pa.array([NOON_MS]), pa.array([None], pa.int64())]), "ms"),
    ],
)
def test_times_are_numbers_in_the_unit_of_the_log_timestamps_or_text(column: pa.Array, unit: str) -> None:
    assert published_times(column, data(unit)).tolist() == [NOON_MS, ALWAYS_MS]


def test_text_without_an_offset_is_in_the_zone_of_the_log() -> None:
    found = published_times(pa.array(["2024-01-31T13:00"]), data(zone="Europe/Berlin"))
    assert found.tolist() == [NOON_MS]


def test_what_is_no_time_is_refused_with_an_example() -> None:
    with pytest.raises(DataError, match=r"data\.items\.published: 1 of 3 values of column published .* 'yesterday'"):
        published_times(pa.array(["2024-01-31", "yesterday", None]), data())


def test_an_item_is_there_from_its_first_event_where_it_was_published_later() -> None:
    item, time_ms = np.array([0, 0, 1]), np.array([50, 70, 90])
    counts = count_buckets(item, time_ms, np.ones(3, bool), bucket_ms=10)
    history = PosteriorHistory.from_counts(counts, bucket_ms=10, delay_ms=0, prior=Prior(0.1, 1.0))
    published_ms = np.array([60, 90, 200, ALWAYS_MS])
    assert published_after_exposure(published_ms, history) == 1
    assert candidates_from(published_ms, history).tolist() == [50, 90, 200, ALWAYS_MS]


NOW_MS = 1_767_225_600_000  # 2026-01-01


def check_unit(column: pa.Array, unit: str) -> None:
    settings = data(unit)
    require_unit_of_log(published_times(column, settings), column, settings, now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("values", "unit", "right", "days"),
    [
        ([NOON_MS // 1000, None], "ms", "s", "lie on 1970-01-20, in s on 2024-01-31"),
        ([NOON_MS], "s", "ms", "lie on the year 56,053, in ms on 2024-01-31"),
        ([str(NOON_MS * 1000)], "ms", "us", "lie on the year 56,053, in us on 2024-01-31"),
    ],
)
def test_numbers_in_another_unit_than_the_log_are_refused(values: list, unit: str, right: str, days: str) -> None:
    with pytest.raises(DataError) as refused:
        check_unit(pa.array(values), unit)
    assert days in str(refused.value)
    assert f"time_unit: {unit}" in str(refused.value)
    assert f"set time_unit: {right}" in str(refused.value)


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        (pa.array([NOON_MS, None]), "ms"),
        (pa.array([NOON_MS], pa.timestamp("ms")), "s"),
        (pa.array(["2024-01-31"]), "s"),
        (pa.array([1000, 5000]), "ms"),  # of a log that counts from a moment of its own
        (pa.array([-300_000_000_000]), "ms"),  # 1960
        (pa.array([None], pa.int64()), "ms"),
    ],
)
def test_times_of_our_days_timestamps_and_clocks_of_their_own_are_taken(column: pa.Array, unit: str) -> None:
    check_unit(column, unit)
