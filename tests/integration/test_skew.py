"""A log in which one item has half of all exposures and one user a third of all clicks: what any partition holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipelines.exchange import Handed, Scratch, from_bytes
from pipelines.further_histories import plan_sources
from pipelines.training_data import prepare
from pipelines.transforms import ReadEvents, SortUsers
from recall.config.experiment import Config
from recall.data.tfrecords import encode_examples
from tests.helpers import oracle
from tests.helpers.training_examples import assert_agrees, experiment

HOURS, EVENTS, ITEMS, PARTITIONS = 48, 12_000, 200, 8
EXPOSURES_OF_HOT = EVENTS // 2


class Skewed(NamedTuple):
    log: pd.DataFrame
    config: Config


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Skewed:
    folder = tmp_path_factory.mktemp("skewed")
    random = np.random.default_rng(3)
    log = pd.DataFrame(
        {
            "user_id": [f"u{number}" for number in random.integers(0, 400, EVENTS)],
            "item_id": [f"i{number}" for number in random.integers(1, ITEMS, EVENTS)],
            "time": random.integers(0, HOURS * 3_600_000, EVENTS),
            "click": (random.random(EVENTS) < 0.3).astype(int),
        }
    )
    log.loc[: EXPOSURES_OF_HOT - 1, "item_id"] = "hot"
    # The busy user: every fourth row, half of them clicks.
    log.loc[::4, "user_id"] = "busy"
    log.loc[::8, "click"] = 1
    log.sample(frac=1, random_state=4).to_csv(folder / "log.csv", index=False)
    (folder / "items.csv").write_text(
        "\n".join(["item_id", "hot", *(f"i{number}" for number in range(1, ITEMS))]) + "\n"
    )
    events = {"path": str(folder / "log.csv"), "click": "click"}
    config = experiment(events, {"path": str(folder / "items.csv")}, history=10, shards=4)
    return Skewed(pd.read_csv(folder / "log.csv", dtype=str), config)


def read(skewed: Skewed, scratch: Scratch) -> dict[int, list[tuple[str, Handed]]]:
    """What GroupByUser brings together, by user partition."""
    groups = defaultdict(list)
    for element in enumerate(plan_sources(skewed.config.data)):
        for partition, batch in ReadEvents(skewed.config.data, scratch, PARTITIONS).process(element):
            groups[partition].append(batch)
    return groups


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(str(tmp_path))


def test_the_log_is_as_skewed_as_it_says(skewed: Skewed) -> None:
    clicks = skewed.log[skewed.log["click"] == "1"]
    assert (skewed.log["item_id"] == "hot").mean() == 0.5
    assert (clicks["user_id"] == "busy").mean() > 0.3
    assert clicks["user_id"].value_counts().iloc[1] < 30


def test_a_hot_item_brings_its_partition_counts_per_hour_and_not_events(skewed: Skewed, scratch: Scratch) -> None:
    rows: dict[int, Counter[str]] = defaultdict(Counter)
    for group in read(skewed, scratch).items():
        for partition, batch in SortUsers(skewed.config.data, scratch, PARTITIONS).process(group):
            rows[partition].update(from_bytes([scratch.taken(batch)])["item"].to_pylist())
    of_hot = [partition for partition, counter in rows.items() if "hot" in counter]
    assert len(of_hot) == 1
    # Every user partition sends at most one row per hour, however often the item was shown in it.
    assert rows[of_hot[0]]["hot"] <= PARTITIONS * HOURS < EXPOSURES_OF_HOT / 10
    others = (EVENTS - EXPOSURES_OF_HOT) / PARTITIONS
    assert max(sum(counter.values()) for counter in rows.values()) < PARTITIONS * HOURS + 1.5 * others


def test_a_busy_user_brings_his_partition_his_own_events_and_no_more(skewed: Skewed, scratch: Scratch) -> None:
    groups = {key: [scratch.taken(batch) for _, batch in batches] for key, batches in read(skewed, scratch).items()}
    users = {partition: Counter(from_bytes(batches)["user"].to_pylist()) for partition, batches in groups.items()}
    own = [counter.pop("busy") for counter in users.values() if "busy" in counter]
    assert own == [EVENTS / 4]  # in one partition, as order and history of a user need all his events at once
    share = (EVENTS - own[0]) / PARTITIONS
    assert max(counter.total() for counter in users.values()) < 1.5 * share
    # Text of the ids (some 8 bytes and their offsets), a time, a bit, an empty trigger; and the frames of the batches.
    rows = EVENTS + 50 * len(groups)
    assert sum(len(batch) for batches in groups.values() for batch in batches) < 48 * rows


def test_examples_of_a_busy_user_are_made_in_parts(
    skewed: Skewed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[int] = []

    def measured(table: pa.Table) -> pa.BinaryArray:
        lists = [column for column in table.columns if pa.types.is_list(column.type)]
        parts.append(sum(pc.sum(pc.list_value_length(column)).as_py() for column in lists))
        return encode_examples(table)

    monkeypatch.setattr("pipelines.transforms.encode_examples", measured)
    monkeypatch.setattr("recall.data.tfrecords._VALUES_PER_BATCH", 5_000)
    monkeypatch.setattr("pipelines.training_data._BYTES_PER_PARTITION", 50_000)
    prepare(skewed.config, tmp_path / "data")
    longest = ITEMS + 2 * skewed.config.data.history  # what was seen, and the history with its times
    assert sum(parts) > 20 * 5_000
    assert max(parts) <= 5_000 + longest


def test_a_skewed_log_agrees_with_the_oracle(skewed: Skewed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.training_data._BYTES_PER_PARTITION", 50_000)
    prepare(skewed.config, tmp_path / "data")
    rows: list[dict[str, Any]] = skewed.log.rename(columns={"user_id": "user", "item_id": "item"}).to_dict("records")
    items = ["hot", *(f"i{number}" for number in range(1, ITEMS))]
    assert_agrees(tmp_path / "data", oracle.recompute(rows, items, oracle.Settings(history=10)), items)
