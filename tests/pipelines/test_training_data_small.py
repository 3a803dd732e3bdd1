"""The training data job on logs of a few lines: worked out by hand, refused with one clear error, run by command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.training_data import main, prepare
from recall.config.experiment import Config, load_config
from recall.core.errors import ArtifactError, DataError
from recall.data.prepared import PreparedData
from recall.runs.run import Run
from tests.helpers.training_examples import SPLITS, click_examples, experiment

HOUR = 3_600_000


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Config]:
    """An experiment from lines of a log and ids of items."""

    def make(lines: list[str], *, items: str = "a b c d", header: str = "user_id,item_id,time,click", **data: Any):  # type: ignore[no-untyped-def]
        (tmp_path / "log.csv").write_text("\n".join([header, *lines]) + "\n")
        (tmp_path / "items.csv").write_text("\n".join(["item_id", *items.split()]) + "\n")
        events = {"path": str(tmp_path / "log.csv"), "click": "click"} | data.pop("events", {})
        return experiment(events, {"path": str(tmp_path / "items.csv"), **data.pop("items_extra", {})}, **data)

    return make


def by_hand() -> list[str]:
    """u clicks a, b, a, c at hours 0, 2, 5, 9; v sees a (no click) at 1 and clicks d at 10. Bad rows in between."""
    return [
        f"u,a,{0 * HOUR},1",
        f"v,a,{1 * HOUR},0",
        f"u,b,{2 * HOUR},1",
        f"u,b,{2 * HOUR},1",  # again: a duplicate
        f",a,{2 * HOUR},1",
        f"u,,{2 * HOUR},1",
        "u,a,,1",
        "u,a,yesterday,1",
        f"u,a,{2 * HOUR},",
        f"u,a,{2 * HOUR},maybe",
        f"u,zzz,{2 * HOUR},1",
        f"u,a,{5 * HOUR},1",
        f"u,c,{9 * HOUR},1",
        f"v,d,{10 * HOUR},1",
    ]


def test_a_small_log_comes_out_as_worked_out_by_hand(small: Callable[..., Config], tmp_path: Path) -> None:
    # 6 events. Validation begins at event floor(6 * 0.6) = 3, hour 5; test at event floor(6 * 0.8) = 4, hour 9.
    config = small(by_hand(), split={"validation": 0.2, "test": 0.2}, trigger={"window": "3h"}, shards=2)
    manifest = prepare(config, tmp_path / "data", fingerprint="f")
    assert manifest["fingerprint"] == "f"
    assert manifest["counts"] == {
        "rows_read": 14,
        "rejected": {
            "click is missing": 1,
            "click is not a number": 1,
            "item is missing": 1,
            "item is not in the items file": 1,
            "time cannot be read": 1,
            "time is missing": 1,
            "user is missing": 1,
        },
        "duplicates": 1,
        "events": 6,
        "clicks": 5,
        "users": 2,
        "items": 4,
        "items_exposed": 4,
        "known": {"items": {"in_log": 5, "known": 4}},
        "examples": {"train": 2, "validation": 1, "test": 2},
        "records": {"train": 2, "validation": 1, "test": 2},
    }
    assert manifest["split"] == {"by": "time", "validation_start_ms": 5 * HOUR, "test_start_ms": 9 * HOUR}
    assert manifest["last_time_ms"] == 10 * HOUR
    ctr = 2 / 3  # training: two clicks of three events
    assert manifest["posterior"]["prior_ctr"] == pytest.approx(ctr)

    [validation] = click_examples(tmp_path / "data", "validation")
    # At hour 5 with a delay of 1 h, buckets 0 to 3 are known: both exposures of a, one of them clicked.
    assert validation == {
        "user_id": "u",
        "item": 0,
        "time_ms": 5 * HOUR,
        "history": [0, 1],
        "history_time_ms": [0, 2 * HOUR],
        "trigger": 1,
        "exposures": 2,
        "clicks": 1,
        "smoothed_ctr": np.float32((1 + 20 * ctr) / 22),
        "age_hours": np.float32(5),
        "seen": [0, 1],
    }
    test = {example["user_id"]: example for example in click_examples(tmp_path / "data", "test")}
    assert test["u"]["history"] == [0, 1, 0]
    assert test["u"]["seen"] == [0, 1]
    assert test["u"]["trigger"] == -1  # four hours after the click before
    assert test["v"]["history"] == []  # seeing a is no click
    assert test["v"]["exposures"] == 0
    assert test["v"]["age_hours"] == 0

    prepared = PreparedData.load(tmp_path / "data", verify=True)
    assert prepared.sampling_counts.tolist() == [1, 1, 0, 0]
    assert prepared.posterior("validation").exposures.tolist() == [2, 1, 0, 0]
    assert prepared.posterior("test").clicks.tolist() == [2, 1, 0, 0]
    assert prepared.posterior("serving").age_hours.tolist() == [10, 8, 1, 0]
    assert prepared.histories.recent("u").tolist() == [0, 1, 0, 2]
    assert prepared.histories.recent_times_ms("u").tolist() == [hour * HOUR for hour in (0, 2, 5, 9)]
    assert prepared.histories.seen("u").tolist() == [0, 1, 2]
    assert prepared.histories.recent("nobody").tolist() == []
    assert prepared.user_ids.to_pylist() == ["u"]
    rejected = pq.read_table(tmp_path / "data" / "rejected.parquet").to_pylist()
    assert [row["row"] for row in rejected] == [4, 5, 6, 7, 8, 9, 10]
    assert rejected[3]["time"] == "yesterday"
    assert rejected[6]["item"] == "zzz"
    assert not list((tmp_path / "data").glob("scratch*"))


def test_unknown_items_are_added_without_content_when_asked(small: Callable[..., Config], tmp_path: Path) -> None:
    config = small(by_hand(), items_extra={"unknown": "add"}, split={"validation": 0.2, "test": 0.2})
    manifest = prepare(config, tmp_path / "data")
    assert manifest["counts"]["items"] == 5
    assert "item is not in the items file" not in manifest["counts"]["rejected"]
    assert PreparedData.load(tmp_path / "data").rows(["zzz", "a", "nothing"]).tolist() == [4, 0, -1]


def test_an_explicit_trigger_column_decides_alone(small: Callable[..., Config], tmp_path: Path) -> None:
    lines = [f"u,a,{HOUR},1,", f"u,b,{2 * HOUR},1,d", f"u,c,{3 * HOUR},1,unknown", f"u,d,{4 * HOUR},1,"]
    config = small(
        lines,
        header="user_id,item_id,time,click,source",
        events={"trigger": "source"},
        split={"validation": 0.25, "test": 0.25},
    )
    prepare(config, tmp_path / "data")
    triggers = {
        example["item"]: example["trigger"] for split in SPLITS for example in click_examples(tmp_path / "data", split)
    }
    assert triggers == {0: -1, 1: 3, 2: -1, 3: -1}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "has no rows"),
        ([f"u,a,{hour * HOUR},0" for hour in range(9)], "none of the 9 events is a click"),
        ([f"u{user},a,{HOUR},1" for user in range(9)], "in one moment"),
        (["u,a,never,1", "v,b,never,1"], r"none of the 2 rows can be used: time cannot be read \(2\)"),
        ([f"u,a,{hour * HOUR},{int(hour != 9)}" for hour in range(10)], "test has no click among its 1 events"),
        ([f"u,a,{hour * HOUR},{int(hour != 8)}" for hour in range(10)], "validation has no click among its 1 events"),
    ],
    ids=["empty", "no clicks", "one moment", "nothing readable", "no test clicks", "no validation clicks"],
)
def test_a_log_that_cannot_be_used_is_one_clear_error_and_leaves_nothing(
    small: Callable[..., Config], tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepare(small(lines), tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.csv", "log.csv"]


def test_one_user_with_too_few_clicks_has_nothing_to_hold_out(small: Callable[..., Config], tmp_path: Path) -> None:
    config = small([f"u,a,{HOUR},1", f"u,b,{2 * HOUR},1"], split={"by": "last_click"})
    with pytest.raises(DataError, match="no user has three clicks"):
        prepare(config, tmp_path / "data")


def test_a_missing_column_is_named_with_those_that_exist(small: Callable[..., Config], tmp_path: Path) -> None:
    config = small(by_hand(), events={"time": "timestamp"})
    with pytest.raises(
        DataError, match=r"data.events.time: .*log.csv has no column timestamp; its columns are user_id"
    ):
        prepare(config, tmp_path / "data")


def test_data_that_was_there_survives_a_failed_run(small: Callable[..., Config], tmp_path: Path) -> None:
    prepare(small(by_hand(), split={"validation": 0.2, "test": 0.2}), tmp_path / "data", fingerprint="old")
    with pytest.raises(DataError):
        prepare(small([]), tmp_path / "data", fingerprint="new")
    assert PreparedData.load(tmp_path / "data", verify=True).manifest["fingerprint"] == "old"


def test_a_shard_that_was_cut_off_does_not_load(small: Callable[..., Config], tmp_path: Path) -> None:
    prepare(small(by_hand(), split={"validation": 0.2, "test": 0.2}), tmp_path / "data")
    shard = max(PreparedData.load(tmp_path / "data").shards("train"), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="run `recall prepare` again"):
        PreparedData.load(tmp_path / "data")


def test_the_command_line_prints_counts_and_reports_errors(
    small: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small(by_hand(), split={"validation": 0.2, "test": 0.2})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    arguments = ["--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "data")]
    assert main([*arguments, "--set", "data.shards=1", "--direct_num_workers=1"]) == 0
    assert "exact duplicates removed" in capsys.readouterr().out
    assert len(PreparedData.load(tmp_path / "data").shards("train")) == 1
    assert main([*arguments, "--set", "data.events.user=nobody"]) == 1
    assert "has no column nobody" in capsys.readouterr().err


def test_data_of_the_command_line_is_that_of_the_run_around_it(small: Callable[..., Config], tmp_path: Path) -> None:
    config = small(by_hand(), split={"validation": 0.2, "test": 0.2})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert main(["--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run" / "data")]) == 0
    made = (tmp_path / "run" / "data" / "manifest.json").stat()
    Run(load_config(tmp_path / "config.yaml"), tmp_path / "run").prepare()
    assert (tmp_path / "run" / "data" / "manifest.json").stat().st_ino == made.st_ino  # nothing was made again


def test_a_second_job_for_the_same_folder_is_refused_and_the_first_goes_on(
    small: Callable[..., Config], tmp_path: Path
) -> None:
    config = small(by_hand(), split={"validation": 0.2, "test": 0.2})
    refused: list[str] = []

    def meanwhile(step: str) -> None:
        if step == "writing examples":
            with pytest.raises(ArtifactError, match=r"data: another process \(pid \d+\) is writing it; wait") as error:
                prepare(config, tmp_path / "data")
            refused.append(str(error.value))

    prepare(config, tmp_path / "data", announce=meanwhile)
    prepare(config, tmp_path / "alone")
    assert len(refused) == 1
    for name in ("items.parquet", "histories.parquet", "posterior_buckets.parquet"):
        assert pq.read_table(tmp_path / "data" / name) == pq.read_table(tmp_path / "alone" / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "data", "items.csv", "log.csv"]
