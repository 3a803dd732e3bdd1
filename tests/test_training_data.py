"""The training data job against the oracle, on real logs; and that cutting the input never shows."""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from pipelines.training_data import main, prepare
from recall.config import Config, load_config
from recall.errors import ArtifactError, DataError
from recall.prepared import PreparedData
from recall.run import Run

SPLITS = ("train", "validation", "test")
CLICK_LISTS = ("history", "history_time_ms")
USER_LISTS = ("items", "time_ms", "trigger", "exposures", "clicks", "smoothed_ctr", "age_hours", "split")


def experiment(events: dict[str, Any], items: dict[str, Any], **data: Any) -> Config:
    features = {"behaviour": [{"name": items.get("id", "item_id"), "type": "id"}]}
    return Config.model_validate(
        {
            "data": {"events": events, "items": items, **data},
            "features": features | {"user": [{"name": "user_id", "type": "id"}]},
            "model": {"structure": "behaviour_only"},
        }
    )


def parse(paths: list[Path], *, lists: tuple[str, ...], scalars: tuple[str, ...]) -> list[dict[str, Any]]:
    floats = ("smoothed_ctr", "age_hours", "weight")
    spec: dict[str, Any] = {"user_id": tf.io.FixedLenFeature([], tf.string)}
    spec |= {name: tf.io.FixedLenFeature([], tf.float32 if name in floats else tf.int64) for name in scalars}
    spec |= {
        name: tf.io.RaggedFeature(tf.float32 if name in floats else tf.int64, row_splits_dtype=tf.int64)
        for name in lists
    }
    rows: list[dict[str, Any]] = []
    for serialized in records(paths):
        parsed = tf.io.parse_example(serialized, spec)
        columns: dict[str, list[Any]] = {"user_id": [user.decode() for user in parsed["user_id"].numpy()]}
        columns |= {
            name: list(parsed[name].numpy()) if name in floats else parsed[name].numpy().tolist() for name in scalars
        }
        for name in lists:
            flat, splits = parsed[name].values.numpy(), parsed[name].row_splits.numpy().tolist()
            values = list(flat) if name in floats else flat.tolist()
            columns[name] = [values[start:stop] for start, stop in itertools.pairwise(splits)]
        rows += [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return rows


def records(paths: list[Path]) -> Iterator[tf.Tensor]:
    """Batches of serialised examples."""
    return iter(tf.data.TFRecordDataset([str(path) for path in paths]).batch(8192))


def sorted_records(directory: Path, split: str) -> list[bytes]:
    batches = records(PreparedData.load(directory).shards(split))
    return sorted(itertools.chain.from_iterable(batch.numpy().tolist() for batch in batches))


def click_examples(directory: Path, split: str) -> list[dict[str, Any]]:
    lists = CLICK_LISTS if split == "train" else (*CLICK_LISTS, "seen")
    scalars: tuple[str, ...] = ("item", "time_ms", "trigger", "exposures", "clicks", "smoothed_ctr", "age_hours")
    if PreparedData.load(directory).is_weighted:
        scalars += ("weight",)
    return parse(PreparedData.load(directory).shards(split), lists=lists, scalars=scalars)


def canonical(examples: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    def frozen(value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    return sorted(tuple(frozen(example[name]) for name in sorted(example)) for example in examples)


def assert_agrees(directory: Path, expected: oracle.Expected, item_ids: list[str]) -> None:
    """All examples, counts, snapshots and as-of lookups of a DIR/data agree with the oracle."""
    prepared = PreparedData.load(directory)
    manifest = prepared.manifest
    assert manifest["counts"]["duplicates"] == expected.duplicates
    assert manifest["counts"]["events"] == len(expected.events)
    assert sum(manifest["counts"]["rejected"].values()) == len(expected.rejected)
    assert manifest["posterior"]["prior_ctr"] == expected.prior_ctr
    if expected.boundaries:
        assert manifest["split"]["validation_start_ms"] == expected.boundaries[0]
        assert manifest["split"]["test_start_ms"] == expected.boundaries[1]
    assert prepared.item_ids.to_pylist() == item_ids
    for code, split in enumerate(SPLITS):
        wanted = [dict(example) for example in expected.examples if example["split"] == code]
        for example in wanted:
            del example["split"]
            if not code:
                del example["seen"]
            if not prepared.is_weighted:
                del example["weight"]
        assert manifest["counts"]["examples"][split] == len(wanted)
        assert canonical(click_examples(directory, split)) == canonical(wanted)
    assert prepared.sampling_counts.tolist() == expected.sampling_counts
    for name, rows in expected.snapshots.items():
        assert list(zip(*prepared.posterior(name), strict=True)) == rows, name  # type: ignore[arg-type]


def as_of_lookups_agree(directory: Path, examples: list[dict[str, Any]]) -> None:
    rows = np.array([example["item"] for example in examples])
    times = np.array([example["time_ms"] for example in examples])
    posterior = PreparedData.load(directory).posterior_history.as_of(rows, times)
    for name in ("exposures", "clicks", "smoothed_ctr", "age_hours"):
        assert getattr(posterior, name).tolist() == [example[name] for example in examples], name


@pytest.fixture(scope="session")
def kuairand(shared_data: Path) -> Config:
    folder = shared_data / "kuairand"
    return experiment(
        {"path": str(folder / "log*.parquet"), "item": "video_id", "time": "time_ms", "click": "is_click"},
        {"path": str(folder / "video_features_basic_pure.csv"), "id": "video_id"},
        users={"path": str(folder / "user_features_pure.csv.gz")},
        shards=1,
    )


@pytest.fixture(scope="session")
def kuairand_data(kuairand: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("kuairand") / "data"
    prepare(kuairand, directory)
    return directory


def test_kuairand_agrees_with_the_oracle(kuairand: Config, kuairand_data: Path, shared_data: Path) -> None:
    log = pd.read_parquet(next((shared_data / "kuairand").glob("log*.parquet")))
    log = log.rename(columns={"user_id": "user", "video_id": "item", "time_ms": "time", "is_click": "click"})
    videos = pd.read_csv(kuairand.data.items.path, dtype=str)["video_id"].tolist()
    rows = log[["user", "item", "time", "click"]].to_dict("records")
    expected = oracle.recompute(rows, videos, oracle.Settings())
    assert_agrees(kuairand_data, expected, videos)
    as_of_lookups_agree(kuairand_data, expected.examples)


def test_weighted_clicks_agree_with_the_oracle_in_both_layouts(
    kuairand: Config, kuairand_data: Path, shared_data: Path, tmp_path: Path
) -> None:
    rules = [{"column": "is_click", "weight": 1}, {"column": "long_view", "weight": 2}]
    rules.append({"column": "play_time_ms", "at_least": 30_000, "weight": 3.5})
    weighted = kuairand.model_dump(mode="json")
    weighted["data"]["events"]["weight"] = rules
    prepare(Config.model_validate(weighted), tmp_path / "click")
    weighted["data"]["layout"] = "user"
    prepare(Config.model_validate(weighted), tmp_path / "user")

    log = pd.read_parquet(next((shared_data / "kuairand").glob("log*.parquet")))
    log = log.rename(columns={"user_id": "user", "video_id": "item", "time_ms": "time", "is_click": "click"})
    log["is_click"] = log["click"]
    videos = pd.read_csv(kuairand.data.items.path, dtype=str)["video_id"].tolist()
    in_words = (("is_click", 1, 1.0), ("long_view", 1, 2.0), ("play_time_ms", 30_000, 3.5))
    columns = ["user", "item", "time", "click", "is_click", "long_view", "play_time_ms"]
    expected = oracle.recompute(log[columns].to_dict("records"), videos, oracle.Settings(weight=in_words))
    assert {example["weight"] for example in expected.examples} == {1.0, 2.0, 3.5}
    assert_agrees(tmp_path / "click", expected, videos)
    wanted = [
        (example["user_id"], example["time_ms"], example["item"], example["weight"]) for example in expected.examples
    ]
    parsed = parse(PreparedData.load(tmp_path / "user").shards("train"), lists=(*USER_LISTS, "weight"), scalars=())
    found = {
        (record["user_id"], *click)
        for record in parsed
        for click in zip(*(record[name] for name in ("time_ms", "items", "weight")), strict=True)
    }
    trained = {record["user_id"] for record in parsed}
    assert found == {click for click in wanted if click[0] in trained}
    for name in ("posterior.parquet", "posterior_buckets.parquet", "sampling.parquet", "histories.parquet"):
        assert (tmp_path / "click" / name).read_bytes() == (kuairand_data / name).read_bytes(), name


def movielens(shared_data: Path, **data: Any) -> Config:
    folder = shared_data / "ml-100k"
    events = {"path": str(folder / "ratings.tsv"), "time": "timestamp", "time_unit": "s"}
    events["click"] = {"column": "rating", "at_least": 4}
    return experiment(events, {"path": str(folder / "movies.tsv"), "title": "title"}, **data)


@pytest.mark.parametrize("by", ["time", "last_click"])
def test_movielens_agrees_with_the_oracle(shared_data: Path, tmp_path: Path, by: str) -> None:
    history, bucket_ms, delay_ms = 20, 86_400_000, 7_200_000
    config = movielens(
        shared_data, split={"by": by}, history=history, posterior={"bucket": bucket_ms, "delay": delay_ms}
    )
    prepare(config, tmp_path / "data")
    ratings = pd.read_csv(shared_data / "ml-100k" / "ratings.tsv", sep="\t", dtype=str)
    ratings.columns = ["user", "item", "click", "time"]
    movies = pd.read_csv(config.data.items.path, sep="\t", dtype=str, quoting=3)["item_id"].tolist()
    settings = oracle.Settings(unit="s", at_least=4, split=by, history=history, bucket_ms=bucket_ms, delay_ms=delay_ms)
    expected = oracle.recompute(ratings.to_dict("records"), movies, settings)
    assert_agrees(tmp_path / "data", expected, movies)
    as_of_lookups_agree(tmp_path / "data", expected.examples)


def test_amazon_beauty_holds_out_the_last_two_items_of_every_user(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "amazon-beauty"
    config = experiment(
        {"path": str(folder / "sequences.txt"), "format": "sequences"},
        {"path": str(folder / "item_attributes.json"), "format": "attributes"},
        split={"by": "last_click"},
    )
    manifest = prepare(config, tmp_path / "data")
    sequences = {line.split()[0]: line.split()[1:] for line in (folder / "sequences.txt").read_text().splitlines()}
    items = list(json.loads((folder / "item_attributes.json").read_text()))
    training = sum(len(sequence) - 2 for sequence in sequences.values())
    assert manifest["counts"]["examples"] == {"train": training, "validation": 22_363, "test": 22_363}
    assert manifest["counts"]["items"] == 12_101
    for example in click_examples(tmp_path / "data", "test"):
        *before, last = sequences[example["user_id"]]
        assert items[example["item"]] == last
        assert [items[row] for row in example["history"]] == before[-50:]
        assert {items[row] for row in example["seen"]} == set(before)
        assert items[example["trigger"]] == before[-1]
    rows = [
        {"user": user, "item": item, "time": position}
        for user, sequence in sequences.items()
        for position, item in enumerate(sequence)
    ]
    expected = oracle.recompute(rows, items, oracle.Settings(unit="order", at_least=None, split="last_click"))
    assert_agrees(tmp_path / "data", expected, items)


def test_one_and_seven_shards_and_a_log_in_other_files_give_the_same_examples(
    kuairand: Config, kuairand_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = pq.read_table(next(Path(kuairand.data.events.path).parent.glob("log*.parquet")))
    order = np.random.default_rng(5).permutation(len(log))
    columns = ["user_id", "video_id", "time_ms", "is_click"]
    for number, part in enumerate(np.array_split(order, 3)):
        pq.write_table(log.select(columns).take(pa.array(part)), tmp_path / f"{number}.parquet", row_group_size=30_000)
    monkeypatch.setattr("recall.events._ROWS_PER_PIECE", 50_000)
    monkeypatch.setattr("pipelines.training_data._BYTES_PER_PARTITION", 100_000)
    cut = kuairand.model_dump(mode="json")
    cut["data"]["events"]["path"] = str(tmp_path / "*.parquet")
    cut["data"]["shards"] = 7
    manifest = prepare(Config.model_validate(cut), tmp_path / "data")
    whole = PreparedData.load(kuairand_data).manifest
    assert manifest["counts"] == whole["counts"]
    assert manifest["split"] == whole["split"]
    for split in SPLITS:
        assert len(PreparedData.load(tmp_path / "data").shards(split)) == 7
        assert sorted_records(tmp_path / "data", split) == sorted_records(kuairand_data, split)
    for name in (
        "posterior.parquet",
        "posterior_buckets.parquet",
        "sampling.parquet",
        "items.parquet",
        "users.parquet",
    ):
        assert pq.read_table(tmp_path / "data" / name).equals(pq.read_table(kuairand_data / name)), name


def test_layout_user_agrees_with_layout_click_position_by_position(shared_data: Path, tmp_path: Path) -> None:
    prepare(movielens(shared_data), tmp_path / "click")
    manifest = prepare(movielens(shared_data, layout="user", shards=3), tmp_path / "user")
    positions: dict[str, list[tuple[Any, ...]]] = {}
    for code, split in enumerate(SPLITS):
        for example in click_examples(tmp_path / "click", split):
            names = ("time_ms", "item", "trigger", "exposures", "clicks", "smoothed_ctr", "age_hours")
            positions.setdefault(example["user_id"], []).append((*(example[name] for name in names), code))
    shards = PreparedData.load(tmp_path / "user").shards("train")
    parsed = parse(shards, lists=USER_LISTS, scalars=())
    trained = {user for user, clicks in positions.items() if any(click[-1] == 0 for click in clicks)}
    assert {record["user_id"] for record in parsed} == trained
    assert len(parsed) == len(trained) == manifest["counts"]["records"]["train"]
    for record in parsed:
        names = ("time_ms", "items", "trigger", "exposures", "clicks", "smoothed_ctr", "age_hours", "split")
        clicks = list(zip(*(record[name] for name in names), strict=True))
        assert [click[0] for click in clicks] == sorted(click[0] for click in clicks)
        assert sorted(clicks) == sorted(positions[record["user_id"]])
    for split in ("validation", "test"):
        assert canonical(click_examples(tmp_path / "user", split)) == canonical(
            click_examples(tmp_path / "click", split)
        )


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


def test_a_truncated_log_is_one_clear_error(kuairand: Config, tmp_path: Path) -> None:
    cut = kuairand.model_dump(mode="json")
    source = next(Path(kuairand.data.events.path).parent.glob("log*.parquet"))
    content = bytearray(source.read_bytes())
    content[20_000:400_000] = bytes(380_000)  # the footer is whole, the columns are not
    (tmp_path / "log.parquet").write_bytes(content)
    cut["data"]["events"]["path"] = str(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"log.parquet: cannot be read as parquet"):
        prepare(Config.model_validate(cut), tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_a_full_disk_leaves_nothing(kuairand: Config, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(kuairand.to_yaml())
    # No file may pass 2 MB: a shard of training examples has 5 MB.
    result = subprocess.run(
        [sys.executable, "-m", "pipelines.training_data", "--config", str(tmp_path / "config.yaml"),
         "--out", str(tmp_path / "data")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)),
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1], env={**os.environ},
    )  # fmt: skip
    assert result.returncode == 1
    assert "could not be written" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


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
