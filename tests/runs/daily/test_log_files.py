"""Tests which days a dated log has, and the pattern that stands for their files."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from recall.core.errors import ConfigError, DataError
from recall.core.tables import expand_paths
from recall.runs.daily.log_files import DatedLog, since

DAYS = [date(2024, 1, 30), date(2024, 1, 31), date(2024, 2, 2)]


def _log(folder: Path) -> DatedLog:
    for day in DAYS:
        for part in ("a", "b"):
            path = folder / f"{day}" / f"{part}.csv"
            path.parent.mkdir(exist_ok=True)
            path.write_text("x\n1\n")
    (folder / "2024-13-01").mkdir()
    (folder / "2024-13-01" / "a.csv").write_text("no date")
    (folder / "2024-02-03").mkdir()  # a day without a file
    return DatedLog(f"{folder}/{{date}}/*.csv")


def test_days_are_the_dates_that_have_files(tmp_path: Path) -> None:
    log = _log(tmp_path)
    assert log.dates() == DAYS
    assert log.until(DAYS[1]) == DAYS[:2]
    with pytest.raises(DataError, match=r"no file of 2024-02-01; the last one with files is 2024-02-02"):
        log.until(date(2024, 2, 1))


def test_the_pattern_of_some_days_expands_to_their_files_alone(tmp_path: Path) -> None:
    log = _log(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in expand_paths(log.of([DAYS[0], DAYS[2]]))]
    assert names == ["2024-01-30/a.csv", "2024-01-30/b.csv", "2024-02-02/a.csv", "2024-02-02/b.csv"]
    assert len(expand_paths(log.of(DAYS[:1]))) == 2
    with pytest.raises(DataError, match="matches no file"):
        log.of([])


def test_dates_may_be_part_of_the_files_name(tmp_path: Path) -> None:
    for day in DAYS:
        (tmp_path / f"events-{day}.csv").write_text("x\n1\n")
    assert DatedLog(f"{tmp_path}/events-{{date}}.csv").dates() == DAYS


def test_a_file_whose_name_has_braces_is_itself(tmp_path: Path) -> None:
    (tmp_path / "a{b,c}.csv").write_text("x\n1\n")
    assert expand_paths(tmp_path / "a{b,c}.csv") == [tmp_path / "a{b,c}.csv"]


def test_days_before_the_last_run_are_read_again_as_far_as_events_come_late() -> None:
    days = [date(2024, 1, number) for number in range(1, 11)]
    assert since(days, date(2024, 1, 8), late_ms=0) == days[6:]
    assert since(days, date(2024, 1, 8), late_ms=2 * 86_400_000) == days[4:]


def test_a_pattern_without_a_date_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected one \{date\}"):
        DatedLog("logs/*.parquet")
