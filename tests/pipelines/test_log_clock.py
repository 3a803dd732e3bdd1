"""The training data job on logs whose times are of wrong units, wrong clocks or no time zone."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipelines.training_data import main, prepare, print_counts
from recall.config.experiment import Config
from recall.config.features import NumberFeature
from recall.core.errors import DataError
from recall.data.prepared import PreparedData
from tests.helpers.training_examples import experiment

START, HOUR = 1_700_000_000, 3_600  # 14 November 2023, 22:13:20 UTC
ROWS = [f"u{n % 20},i{n * 7 % 30},{START + n * HOUR // 2},{int(n % 3 > 0)}" for n in range(400)]


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Config]:
    """An experiment from the lines of a log."""

    def make(lines: list[str], **events: Any) -> Config:
        (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,time,click", *lines]) + "\n")
        (tmp_path / "items.csv").write_text("\n".join(["item_id", *(f"i{n}" for n in range(30))]) + "\n")
        events = {"path": str(tmp_path / "log.csv"), "click": "click", "time_unit": "s"} | events
        return experiment(
            events, {"path": str(tmp_path / "items.csv")}, split={"validation": 0.2, "test": 0.2}, shards=1
        )

    return make


def ages(data: Path) -> list[float]:
    return list(pq.read_table(data / "posterior.parquet")["age_hours"].to_pylist())


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_a_log_in_another_unit_is_refused_before_it_is_read(
    unit: str, log: Callable[..., Config], tmp_path: Path
) -> None:
    steps: list[str] = []
    with pytest.raises(DataError, match=rf"time_unit: {unit} puts its times on 1970-01-.*set time_unit: s"):
        prepare(log(ROWS, time_unit=unit), tmp_path / "data", announce=steps.append)
    assert steps == ["looking at the input files"]


def test_milliseconds_read_as_seconds_are_refused(log: Callable[..., Config], tmp_path: Path) -> None:
    rows = [row.replace(f",{START + n * HOUR // 2},", f",{START + n * HOUR // 2}000,") for n, row in enumerate(ROWS)]
    with pytest.raises(DataError, match=r"time_unit: s puts its times between the year 55,8.*set time_unit: ms"):
        prepare(log(rows), tmp_path / "data")


@pytest.mark.parametrize("late", [4_070_908_800, 2**53, 9_223_372_036_854_775])
def test_one_click_of_the_far_future_moves_no_age_and_is_counted(
    late: int, log: Callable[..., Config], tmp_path: Path
) -> None:
    expected = prepare(log(ROWS), tmp_path / "expected")
    found = prepare(log([*ROWS, f"u1,i1,{late},1"]), tmp_path / "found")
    assert ages(tmp_path / "found") == ages(tmp_path / "expected")
    assert found["last_time_ms"] == expected["last_time_ms"] == (START + 399 * HOUR // 2) * 1_000
    assert found["counts"]["rejected"] == {"time is in the future": 1}
    rejected = pq.read_table(tmp_path / "found" / "rejected.parquet").to_pylist()
    assert [(row["row"], row["reason"], row["time"]) for row in rejected] == [(400, "time is in the future", str(late))]


@pytest.mark.parametrize("early", [0, -1, -62_135_596_800, START // 1_000])
def test_zeros_and_clocks_that_were_never_set_are_set_aside(
    early: int, log: Callable[..., Config], tmp_path: Path
) -> None:
    prepare(log(ROWS), tmp_path / "expected")
    found = prepare(log([f"u1,i1,{early},1", *ROWS]), tmp_path / "found")
    assert ages(tmp_path / "found") == ages(tmp_path / "expected")
    assert found["counts"]["rejected"] == {"time is before 1980": 1}


def test_one_click_two_years_after_all_others_moves_no_age_and_is_said(
    log: Callable[..., Config], tmp_path: Path
) -> None:
    prepare(log(ROWS), tmp_path / "expected")
    found = prepare(log([*ROWS, f"u1,i1,{START + 2 * 365 * 24 * HOUR},1"]), tmp_path / "found")
    assert max(ages(tmp_path / "found")) <= max(ages(tmp_path / "expected")) + 1  # ends with its bucket of an hour
    assert "1 events come long after all others, the last on 2025-11-13" in found["notes"][0]


@pytest.mark.parametrize("text", ["now", "today", "NaT", ""])
def test_a_text_that_is_no_time_is_set_aside(text: str, log: Callable[..., Config], tmp_path: Path) -> None:
    rows = [f"u{n % 20},i{n * 7 % 30},2024-01-{n // 24 + 1:02}T{n % 24:02}:30:00Z,{int(n % 3 > 0)}" for n in range(400)]
    expected = prepare(log(rows, time_unit="iso"), tmp_path / "expected")
    found = prepare(log([*rows, f"u1,i1,{text},1"], time_unit="iso"), tmp_path / "found")
    assert found["last_time_ms"] == expected["last_time_ms"]
    assert sum(found["counts"]["rejected"].values()) == 1
    assert found["notes"] == []


def test_times_without_a_zone_are_of_the_time_zone_and_the_output_says_so(
    log: Callable[..., Config], tmp_path: Path
) -> None:
    rows = [f"u{n % 20},i{n * 7 % 30},2024-01-{n // 24 + 1:02} {n % 24:02}:30:00,{int(n % 3 > 0)}" for n in range(400)]
    utc = prepare(log(rows, time_unit="iso"), tmp_path / "utc")
    console = Console(record=True, width=80, file=io.StringIO())
    print_counts(utc, console)
    assert "note: 400 times say no offset from UTC and were taken as UTC; data.events." in console.export_text()
    berlin = prepare(log(rows, time_unit="iso", time_zone="Europe/Berlin"), tmp_path / "berlin")
    assert berlin["last_time_ms"] == utc["last_time_ms"] - 3_600_000  # an hour east of UTC in winter
    assert "400 times say no offset from UTC and were taken as Europe/Berlin" in berlin["notes"][0]


def test_an_unknown_time_zone_is_refused_by_key(log: Callable[..., Config]) -> None:
    with pytest.raises(ValueError, match=r"data\.events\.time_zone\n.*IANA name of a time zone"):
        log(ROWS, time_zone="Mars/Olympus")


def test_a_log_within_one_bucket_and_rows_that_repeat_are_said(
    log: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"u{n % 20},i{n * 7 % 30},{START + n},{int(n % 3 > 0)}" for n in range(400)] * 2
    config = log(rows)
    (tmp_path / "e.yaml").write_text(config.to_yaml())
    assert main(["--config", str(tmp_path / "e.yaml"), "--out", str(tmp_path / "data")]) == 0
    said = capsys.readouterr().out
    assert "note: 400 of 800 rows repeat another row with the same user, item, time and click" in said
    assert "note: all events lie in one bucket of 1 h" in said


def test_without_a_moment_before_all_held_out_clicks_there_is_no_fresh_evidence_and_the_output_says_so(
    log: Callable[..., Config], tmp_path: Path
) -> None:
    config = log(ROWS)
    assert PreparedData(tmp_path / "time", prepare(config, tmp_path / "time")).posterior("test").fresh is not None
    by_click = config.replaced(data={"split": {"by": "last_click"}})
    found = prepare(by_click, tmp_path / "click")
    assert PreparedData(tmp_path / "click", found).posterior("test").fresh is None
    assert "there is no fresh evidence (data.posterior.half_lives): a split by last click" in " ".join(found["notes"])
    without = by_click.replaced(data={"posterior": {"half_lives": []}})
    assert not any("fresh evidence" in note for note in prepare(without, tmp_path / "none")["notes"])


def test_numbers_far_from_all_others_are_said(log: Callable[..., Config], tmp_path: Path) -> None:
    config = log(ROWS)
    lengths = [f"i{n},{n}.5" for n in range(29)] + ["i29,1e308"]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,length", *lengths]) + "\n")
    features = config.features.model_copy(update={"meta": (NumberFeature(type="number", name="length"),)})
    found = prepare(config.model_copy(update={"features": features}), tmp_path / "data")
    assert found["clipped"] == {"items": {"length": 1}, "users": {}}
    assert found["notes"] == [
        "1 values of feature length of the items lie far from all others and count as the nearest end of their range; "
        "leave values empty that stand for none"
    ]


def test_times_of_a_further_history_are_judged_too(log: Callable[..., Config], tmp_path: Path) -> None:
    entries = [f"u{n % 20},i{n % 30},{START + n * HOUR}" for n in range(100)] + ["u1,i1,4070908800", "u1,i1,0"]
    (tmp_path / "likes.csv").write_text("\n".join(["user_id,item_id,time", *entries]) + "\n")

    def config(**history: Any) -> Config:
        raw = log(ROWS).model_dump(mode="json", exclude_none=True)
        raw["data"]["histories"] = {"likes": {"path": str(tmp_path / "likes.csv"), **history}}
        return Config.model_validate(raw)

    with pytest.raises(DataError, match=r"data\.histories\.likes\.time: .*likes\.csv: time_unit: us puts its times on"):
        prepare(config(time_unit="us"), tmp_path / "data")
    found = prepare(config(), tmp_path / "data")["histories"]["likes"]
    assert found["entries"] == 100
    assert found["rejected"] == {
        "history likes: time is before 1980": 1,
        "history likes: time is in the future": 1,
    }
