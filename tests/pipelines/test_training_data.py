"""The training data job on real logs: as the oracle says, however the input is cut; a damaged log and a full disk."""

from __future__ import annotations

import glob
import itertools
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.training_data import prepare
from recall.config.experiment import Config
from recall.core.errors import DataError
from recall.data.prepared import PreparedData
from tests.helpers import oracle
from tests.helpers.training_examples import SPLITS, assert_agrees, canonical, click_examples, experiment, parse, records

USER_LISTS = ("items", "time_ms", "trigger", "exposures", "clicks", "smoothed_ctr", "age_hours", "split")


def sorted_records(directory: Path, split: str) -> list[bytes]:
    batches = records(PreparedData.load(directory).shards(split))
    return sorted(itertools.chain.from_iterable(batch.numpy().tolist() for batch in batches))


def as_of_lookups_agree(directory: Path, examples: list[dict[str, Any]]) -> None:
    rows = np.array([example["item"] for example in examples])
    times = np.array([example["time_ms"] for example in examples])
    posterior = PreparedData.load(directory).posterior_history.as_of(rows, times)
    for name in ("exposures", "clicks", "smoothed_ctr", "age_hours"):
        assert getattr(posterior, name).tolist() == [example[name] for example in examples], name


def with_data(config: Config, *, events: dict[str, Any], **data: Any) -> Config:
    """The experiment with other settings of its events and data."""
    changed = config.model_dump(mode="json")
    changed["data"] = changed["data"] | data
    changed["data"]["events"] |= events
    return Config.model_validate(changed)


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


def log_of(config: Config) -> pd.DataFrame:
    """The log of KuaiRand as the oracle names its columns."""
    log = pd.concat(map(pd.read_parquet, sorted(glob.glob(config.data.events.path))))
    return log.rename(columns={"user_id": "user", "video_id": "item", "time_ms": "time", "is_click": "click"})


@pytest.fixture(scope="session")
def tenth(kuairand: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The same with the log of a tenth of the users: more than one test can prepare and recompute in little time."""
    path = tmp_path_factory.mktemp("tenth") / "log.parquet"
    log = pd.concat(map(pd.read_parquet, glob.glob(kuairand.data.events.path)))
    log[log.user_id % 10 == 0].to_parquet(path)
    return with_data(kuairand, events={"path": str(path)})


@pytest.fixture(scope="session")
def tenth_data(tenth: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tenth") / "data"
    prepare(tenth, directory)
    return directory


def test_kuairand_agrees_with_the_oracle(kuairand: Config, kuairand_data: Path) -> None:
    videos = pd.read_csv(kuairand.data.items.path, dtype=str)["video_id"].tolist()
    rows = log_of(kuairand)[["user", "item", "time", "click"]].to_dict("records")
    expected = oracle.recompute(rows, videos, oracle.Settings())
    assert_agrees(kuairand_data, expected, videos)
    as_of_lookups_agree(kuairand_data, expected.examples)


def test_weighted_clicks_agree_with_the_oracle_in_both_layouts(tenth: Config, tenth_data: Path, tmp_path: Path) -> None:
    rules = [{"column": "is_click", "weight": 1}, {"column": "long_view", "weight": 2}]
    rules.append({"column": "play_time_ms", "at_least": 30_000, "weight": 3.5})
    prepare(with_data(tenth, events={"weight": rules}), tmp_path / "click")
    prepare(with_data(tenth, events={"weight": rules}, layout="user"), tmp_path / "user")

    log = log_of(tenth)
    log["is_click"] = log["click"]
    videos = pd.read_csv(tenth.data.items.path, dtype=str)["video_id"].tolist()
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
        assert (tmp_path / "click" / name).read_bytes() == (tenth_data / name).read_bytes(), name


@pytest.fixture(scope="session")
def ratings(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MovieLens' ratings of a quarter of its users."""
    path = tmp_path_factory.mktemp("movielens") / "ratings.tsv"
    everything = pd.read_csv(shared_data / "ml-100k" / "ratings.tsv", sep="\t", dtype=str)
    everything[everything.user_id.astype(int) % 4 == 0].to_csv(path, sep="\t", index=False)
    return path


def movielens(shared_data: Path, ratings: Path, **data: Any) -> Config:
    folder = shared_data / "ml-100k"
    events = {"path": str(ratings), "time": "timestamp", "time_unit": "s"}
    events["click"] = {"column": "rating", "at_least": 4}
    return experiment(events, {"path": str(folder / "movies.tsv"), "title": "title"}, **data)


@pytest.mark.parametrize("by", ["time", "last_click"])
def test_movielens_agrees_with_the_oracle(shared_data: Path, ratings: Path, tmp_path: Path, by: str) -> None:
    history, bucket_ms, delay_ms = 20, 86_400_000, 7_200_000
    config = movielens(
        shared_data, ratings, split={"by": by}, history=history, posterior={"bucket": bucket_ms, "delay": delay_ms}
    )
    prepare(config, tmp_path / "data")
    log = pd.read_csv(ratings, sep="\t", dtype=str)
    log.columns = ["user", "item", "click", "time"]
    movies = pd.read_csv(config.data.items.path, sep="\t", dtype=str, quoting=3)["item_id"].tolist()
    settings = oracle.Settings(unit="s", at_least=4, split=by, history=history, bucket_ms=bucket_ms, delay_ms=delay_ms)
    expected = oracle.recompute(log.to_dict("records"), movies, settings)
    assert_agrees(tmp_path / "data", expected, movies)
    as_of_lookups_agree(tmp_path / "data", expected.examples)


def test_amazon_beauty_holds_out_the_last_two_items_of_every_user(shared_data: Path, tmp_path: Path) -> None:
    folder, log = shared_data / "amazon-beauty", tmp_path / "sequences.txt"
    with (folder / "sequences.txt").open() as everybody:
        log.write_text("".join(itertools.islice(everybody, 0, None, 10)))  # a tenth of the users
    config = experiment(
        {"path": str(log), "format": "sequences"},
        {"path": str(folder / "item_attributes.json"), "format": "attributes"},
        split={"by": "last_click"},
    )
    manifest = prepare(config, tmp_path / "data")
    sequences = {line.split()[0]: line.split()[1:] for line in log.read_text().splitlines()}
    items = list(json.loads((folder / "item_attributes.json").read_text()))
    training = sum(len(sequence) - 2 for sequence in sequences.values())
    assert manifest["counts"]["examples"] == {"train": training, "validation": 2_237, "test": 2_237}
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
    tenth: Config, tenth_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = pq.read_table(tenth.data.events.path)
    order = np.random.default_rng(5).permutation(len(log))
    columns = ["user_id", "video_id", "time_ms", "is_click"]
    for number, part in enumerate(np.array_split(order, 3)):
        pq.write_table(log.select(columns).take(pa.array(part)), tmp_path / f"{number}.parquet", row_group_size=3_000)
    monkeypatch.setattr("recall.data.events._ROWS_PER_PIECE", 5_000)
    monkeypatch.setattr("pipelines.training_data._BYTES_PER_PARTITION", 10_000)
    cut = with_data(tenth, events={"path": str(tmp_path / "*.parquet")}, shards=7)
    manifest = prepare(cut, tmp_path / "data")
    whole = PreparedData.load(tenth_data).manifest
    assert manifest["counts"] == whole["counts"]
    assert manifest["split"] == whole["split"]
    for split in SPLITS:
        assert len(PreparedData.load(tmp_path / "data").shards(split)) == 7
        assert sorted_records(tmp_path / "data", split) == sorted_records(tenth_data, split)
    for name in (
        "posterior.parquet",
        "posterior_buckets.parquet",
        "sampling.parquet",
        "items.parquet",
        "users.parquet",
    ):
        assert pq.read_table(tmp_path / "data" / name).equals(pq.read_table(tenth_data / name)), name


def test_layout_user_agrees_with_layout_click_position_by_position(
    shared_data: Path, ratings: Path, tmp_path: Path
) -> None:
    prepare(movielens(shared_data, ratings), tmp_path / "click")
    manifest = prepare(movielens(shared_data, ratings, layout="user", shards=3), tmp_path / "user")
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


def test_a_truncated_log_is_one_clear_error(kuairand: Config, tmp_path: Path) -> None:
    source = next(Path(kuairand.data.events.path).parent.glob("log*.parquet"))
    content = bytearray(source.read_bytes())
    content[20_000:400_000] = bytes(380_000)  # the footer is whole, the columns are not
    (tmp_path / "log.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"log.parquet: cannot be read as parquet"):
        prepare(with_data(kuairand, events={"path": str(tmp_path / "log.parquet")}), tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_a_full_disk_leaves_nothing(kuairand: Config, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(kuairand.to_yaml())
    # No file may pass 2 MB: a shard of training examples has 5 MB.
    result = subprocess.run(
        [sys.executable, "-m", "pipelines.training_data", "--config", str(tmp_path / "config.yaml"),
         "--out", str(tmp_path / "data")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)),
        capture_output=True, text=True, check=False, cwd=Path(__file__).resolve().parents[2], env={**os.environ},
    )  # fmt: skip
    assert result.returncode == 1
    assert "could not be written" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
