"""Units that do not fit, clocks that are wrong, and where a log ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recall.config.data import EventsConfig
from recall.core.errors import DataError
from recall.data.clock import Clock, date_text, end_of_log, fitting_unit, look_at_log

NOW_MS = 1_732_000_000_000  # 19 November 2024
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
SECONDS = 1_700_000_000 + 3_600 * np.arange(600)  # from 14 November 2023
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def read_as(values: Any, unit: str) -> Any:
    """The milliseconds that numbers are in a unit."""
    return {"s": values * 1_000, "ms": values, "us": values // 10**3, "ns": values // 10**6}[unit]


@pytest.mark.parametrize("unit", PER_SECOND)
@pytest.mark.parametrize("written", PER_SECOND)
def test_the_unit_that_a_log_was_written_in_is_found(written: str, unit: Any) -> None:
    values = SECONDS * PER_SECOND[written]
    if written == "ns" and unit == "s":
        return  # beyond int64: unreadable already
    assert fitting_unit(read_as(values, unit), unit, now_ms=NOW_MS) == (None if unit == written else written)


@pytest.mark.parametrize("unit", PER_SECOND)
@pytest.mark.parametrize("hours", [10, 500, 20_000])
def test_a_simulated_log_may_count_from_a_moment_of_its_own(hours: int, unit: Any) -> None:
    own = np.arange(0, hours * 3_600, 60) * PER_SECOND[unit]
    assert fitting_unit(read_as(own, unit), unit, now_ms=NOW_MS) is None


def test_a_few_zeros_and_odd_times_do_not_hide_the_unit() -> None:
    assert fitting_unit(np.append(SECONDS, [0] * 20 + [2**62]), "ms", now_ms=NOW_MS) == "s"


def log_of(tmp_path: Path, *files: Any, **settings: Any) -> tuple[EventsConfig, list[tuple[str, int]]]:
    for number, values in enumerate(files):
        pq.write_table(pa.table({"time": values}), tmp_path / f"log-{number}.parquet")
    paths = [(str(tmp_path / f"log-{number}.parquet"), 0) for number in range(len(files))]
    return EventsConfig(path=str(tmp_path / "log-*.parquet"), **settings), paths


def test_a_wrong_unit_is_refused_with_both_days_and_the_remedy(tmp_path: Path) -> None:
    events, pieces = log_of(tmp_path, SECONDS)
    expected = (
        r"data\.events\.time: .*log-0\.parquet: time_unit: ms puts its times on 1970-01-20, and time_unit: s between "
        r"2023-11-16 and 2023-12-08; set time_unit: s"
    )
    with pytest.raises(DataError, match=expected):
        look_at_log(pieces, events, now_ms=NOW_MS, section="data.events")


def test_one_file_of_several_in_another_unit_is_refused_by_name(tmp_path: Path) -> None:
    events, pieces = log_of(tmp_path, SECONDS * 1_000, SECONDS, SECONDS * 1_000)
    with pytest.raises(DataError, match=r"log-1\.parquet: time_unit: ms puts"):
        look_at_log(pieces, events, now_ms=NOW_MS, section="data.events")


def test_a_single_odd_time_is_no_reason_to_refuse_a_log_but_a_small_log_is_judged(tmp_path: Path) -> None:
    events, pieces = log_of(tmp_path, SECONDS * 1_000, SECONDS[:1])
    assert look_at_log(pieces, events, now_ms=NOW_MS, section="data.events") == Clock(NOW_MS, is_calendar=True)
    (tmp_path / "small").mkdir()
    events, pieces = log_of(tmp_path / "small", SECONDS[:2], SECONDS[5:6])
    with pytest.raises(
        DataError, match=r"data\.events\.time: .*log-\*\.parquet: time_unit: ms puts .* set time_unit: s"
    ):
        look_at_log(pieces, events, now_ms=NOW_MS, section="data.events")


def test_timestamps_that_were_made_from_another_unit_are_refused(tmp_path: Path) -> None:
    events, pieces = log_of(tmp_path, pa.array(SECONDS).cast(pa.timestamp("ns")))
    with pytest.raises(
        DataError, match=r"timestamp\[ns\] values lie on 1970-01-01, and times 1e\+09 between 2023-11-1"
    ):
        look_at_log(pieces, events, now_ms=NOW_MS, section="data.events")


def test_a_log_of_our_days_believes_no_event_before_1980_or_after_tomorrow(tmp_path: Path) -> None:
    events, pieces = log_of(tmp_path, SECONDS * 1_000)
    clock = look_at_log(pieces, events, now_ms=NOW_MS, section="data.events")
    assert clock is not None
    ms = np.array([0, -1, SECONDS[0], SECONDS[0] * 1_000, NOW_MS + HOUR_MS, NOW_MS + 2 * DAY_MS, 2**63 - 1, -(2**63)])
    faults = {reason: mask.tolist() for reason, mask in clock.faults(ms)}
    assert faults == {
        "time is in the future": [False] * 5 + [True, True, False],
        "time is before 1980": [True] * 3 + [False] * 4 + [True],
    }


def test_a_log_that_counts_from_a_moment_of_its_own_believes_its_beginning() -> None:
    clock = Clock.of(np.arange(100) * HOUR_MS, now_ms=NOW_MS)
    assert [(reason, mask.tolist()) for reason, mask in clock.faults(np.array([0, 5, NOW_MS * 2]))] == [
        ("time is in the future", [False, False, True])
    ]


def test_positions_are_no_times(tmp_path: Path) -> None:
    events, pieces = log_of(tmp_path, SECONDS, time_unit="order")
    assert look_at_log(pieces, events, now_ms=NOW_MS, section="data.events") is None


@pytest.mark.parametrize(
    ("late_days", "late", "expected_after"),
    [
        ([], 0, 0),
        ([730], 1, 1),  # a clock of another year
        ([730, 800], 1, 0),  # two of 400 are no single clock
        ([20], 1, 0),  # a short gap is a quiet time
        ([60], 1, 1),
    ],
)
def test_the_log_ends_before_a_single_click_that_is_years_late(
    late_days: list[int], late: int, expected_after: int
) -> None:
    hours = np.repeat(np.arange(200), 2)
    buckets = np.concatenate([hours, [200 + 24 * days for days in late_days]]).astype(np.int64)
    events = np.ones(len(buckets), np.int64)
    last_ms = int(buckets.max()) * HOUR_MS + 7
    end_ms, after = end_of_log(buckets, events, bucket_ms=HOUR_MS, last_ms=last_ms)
    assert after == expected_after
    assert end_ms == (200 * HOUR_MS - 1 if expected_after else last_ms)


def test_days_are_written_for_people() -> None:
    assert [date_text(ms) for ms in (0, 1_700_000_000_000, -1, 10**18)] == [
        "1970-01-01",
        "2023-11-14",
        "1969-12-31",
        "the year 31,690,708",
    ]
