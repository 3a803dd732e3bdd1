"""Batches and arrays out of the published records, against the oracle that recomputes the log row by row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from pipelines.training_data import prepare
from recall.core.ragged import Ragged
from recall.data.prepared import PreparedData
from recall.model.batches.dataset import UserRows, pad, read_examples, training_clicks, training_dataset
from tests.conftest import Experiment
from tests.helpers import oracle

HISTORY = 4
HOUR_MS = 3_600_000
Prepare = Callable[..., PreparedData]
Batch = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def log(community: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The community's log in steps of three hours, so that many clicks of a user fall into one moment."""
    events = pq.read_table(community / "events.parquet")
    time_ms = events["time_ms"].to_numpy() // (3 * HOUR_MS) * (3 * HOUR_MS)
    path = tmp_path_factory.mktemp("log") / "events.parquet"
    pq.write_table(events.set_column(events.column_names.index("time_ms"), "time_ms", pa.array(time_ms)), path)
    return path


@pytest.fixture(scope="module")
def prepare_log(log: Path, experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Prepare:
    def prepare_it(*, layout: str = "click", shards: int = 3) -> PreparedData:
        config = experiment(
            f"data.events.path={log}", f"data.history={HISTORY}", f"data.layout={layout}", f"data.shards={shards}"
        )
        directory = tmp_path_factory.mktemp("data") / "data"
        prepare(config, directory)
        return PreparedData.load(directory)

    return prepare_it


@pytest.fixture(scope="module")
def by_click(prepare_log: Prepare) -> PreparedData:
    return prepare_log()


@pytest.fixture(scope="module")
def by_user(prepare_log: Prepare) -> PreparedData:
    return prepare_log(layout="user")


@pytest.fixture(scope="module")
def expected(log: Path, by_click: PreparedData) -> list[dict[str, Any]]:
    """All examples of all splits, users one after another, in the order of their clicks."""
    columns = pq.read_table(log).to_pydict()
    names = ("user_id", "item_id", "time_ms", "is_click")
    rows = [
        dict(zip(("user", "item", "time", "click"), row, strict=True))
        for row in zip(*(columns[name] for name in names), strict=True)
    ]
    settings = oracle.Settings(history=HISTORY, window_ms=12 * HOUR_MS)
    return oracle.recompute(rows, by_click.item_ids.to_pylist(), settings).examples


@pytest.fixture(scope="module")
def clicks_of(expected: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Training clicks of each user in order."""
    clicks = defaultdict(list)
    for example in expected:
        if example["split"] == 0:
            clicks[example["user_id"]].append(example)
    return clicks


def epoch(
    prepared: PreparedData, *, batch_size: int, seed: int = 1, history: int = HISTORY, min_steps: int = 0
) -> list[Batch]:
    users = UserRows(prepared.user_ids.to_pylist())
    dataset = training_dataset(
        prepared,
        users,
        batch_size=batch_size,
        history=history,
        shuffle_buffer=10_000,
        seed=seed,
        min_steps=min_steps,
    )
    assert dataset.cardinality() == sum(1 for _ in dataset)
    return [{name: value.numpy() for name, value in batch.items()} for batch in dataset]


def posterior(example: dict[str, Any]) -> tuple[float, ...]:
    return tuple(np.float32(example[name]).item() for name in ("exposures", "clicks", "smoothed_ctr", "age_hours"))


def click_record(user_id: str, example: dict[str, Any]) -> tuple[Any, ...]:
    """An example of the oracle as a hashable record."""
    entries = (example["item"], example["time_ms"], example["trigger"])
    return (user_id, *entries, tuple(example["history"]), tuple(example["history_time_ms"]), posterior(example))


def click_records(batch: Batch, user_ids: list[str]) -> Iterator[tuple[Any, ...]]:
    for row, user in enumerate(batch["user"]):
        history = batch["history"][row]
        length = int((history >= 0).sum())
        assert (history[length:] == -1).all(), "padding stands at the end"
        entries = (int(batch[name][row]) for name in ("item", "time_ms", "trigger"))
        lists = (tuple(batch[name][row, :length].tolist()) for name in ("history", "history_time_ms"))
        yield (user_ids[user], *entries, *lists, tuple(batch["posterior"][row].tolist()))


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 7])
def test_an_epoch_yields_every_training_click_once_but_for_the_dropped_last_batch(
    shards: int, prepare_log: Prepare, expected: list[dict[str, Any]]
) -> None:
    prepared = prepare_log(shards=shards)
    wanted = Counter(click_record(example["user_id"], example) for example in expected if example["split"] == 0)
    user_ids = prepared.user_ids.to_pylist()
    batches = epoch(prepared, batch_size=100)
    found = Counter(record for batch in batches for record in click_records(batch, user_ids))
    assert {len(batch["user"]) for batch in batches} == {100}
    assert len(batches) == wanted.total() // 100
    assert not found - wanted
    whole = epoch(prepared, batch_size=10_000)
    assert Counter(record for batch in whole for record in click_records(batch, user_ids)) == wanted


@pytest.mark.slow
def test_an_epoch_goes_round_until_it_has_its_steps_each_time_in_another_order(
    by_click: PreparedData, expected: list[dict[str, Any]]
) -> None:
    wanted = Counter(click_record(example["user_id"], example) for example in expected if example["split"] == 0)
    user_ids = by_click.user_ids.to_pylist()
    rounds = epoch(by_click, batch_size=10_000, min_steps=3)
    assert [Counter(click_records(batch, user_ids)) == wanted for batch in rounds] == [True] * 3
    assert len({tuple(batch["time_ms"]) for batch in rounds}) == 3
    several = len(epoch(by_click, batch_size=100))
    assert several > 1
    assert len(epoch(by_click, batch_size=100, min_steps=several)) == several
    assert len(epoch(by_click, batch_size=100, min_steps=several + 1)) == 2 * several


def test_a_seed_gives_the_same_batches_and_another_seed_others(by_click: PreparedData) -> None:
    first, again, other = (epoch(by_click, batch_size=100, seed=seed)[0]["time_ms"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_epochs_come_in_different_order(by_click: PreparedData) -> None:
    users = UserRows(by_click.user_ids.to_pylist())
    dataset = training_dataset(by_click, users, batch_size=10_000, history=HISTORY, shuffle_buffer=10_000, seed=1)
    first, second = (next(iter(dataset))["time_ms"].numpy() for _ in range(2))
    assert sorted(first) == sorted(second)
    assert (first != second).any()


def test_windows_of_users_match_the_log(by_user: PreparedData, clicks_of: dict[str, list[dict[str, Any]]]) -> None:
    user_ids = by_user.user_ids.to_pylist()
    seen_users, cut_windows, ties = Counter[str](), 0, 0
    for batch in epoch(by_user, batch_size=10_000):
        for row, user in enumerate(batch["user"]):
            clicks = clicks_of[user_ids[user]]
            seen_users[user_ids[user]] += 1
            length = min(len(clicks), HISTORY + 1)
            window = find_window(batch, row, clicks, length)
            cut_windows += len(clicks) > length
            times = [click["time_ms"] for click in window]
            ties += len(set(times)) < len(times)
            for place, click in enumerate(window):
                before = max((then for then in range(length) if times[then] < times[place]), default=-1)
                assert batch["before"][row, place] == before
                assert batch["trigger"][row, place] == click["trigger"]
                assert tuple(batch["posterior"][row, place].tolist()) == posterior(click)
                # A click whose whole history was cut off would look like the first click of a new user.
                assert batch["is_target"][row, place] == (before >= 0 or not click["history"])
            assert not batch["is_target"][row, length:].any()
            assert (batch["items"][row, length:] == -1).all()
            assert (batch["trigger"][row, length:] == -1).all()
    assert seen_users == Counter(dict.fromkeys(clicks_of, 1))
    assert cut_windows > 10
    assert ties > 10


def find_window(batch: Batch, row: int, clicks: list[dict[str, Any]], length: int) -> list[dict[str, Any]]:
    """The run of a user's training clicks that a row shows; fails if it shows anything else."""
    found = list(zip(batch["items"][row, :length].tolist(), batch["time_ms"][row, :length].tolist(), strict=True))
    for start in range(len(clicks) - length + 1):
        window = clicks[start : start + length]
        if [(click["item"], click["time_ms"]) for click in window] == found:
            return window
    raise AssertionError(f"no run of the user's training clicks: {found}")


@pytest.mark.slow
def test_windows_reach_every_training_click_over_the_epochs(
    by_user: PreparedData, clicks_of: dict[str, list[dict[str, Any]]]
) -> None:
    user_ids = by_user.user_ids.to_pylist()
    users = UserRows(user_ids)
    # As wide as the widest moment and one click before it: then some window shows every click with a history.
    widest = max(max(Counter(click["time_ms"] for click in clicks).values()) for clicks in clicks_of.values())
    history = max(HISTORY, widest)
    assert any(len(clicks) > history + 1 for clicks in clicks_of.values())
    tf.keras.utils.set_random_seed(1)  # windows depend on the global seed, too, which other tests set
    dataset = training_dataset(by_user, users, batch_size=10_000, history=history, shuffle_buffer=10_000, seed=1)
    wanted = {(user, click["item"], click["time_ms"]) for user, clicks in clicks_of.items() for click in clicks}
    reached: set[tuple[str, int, int]] = set()
    for _ in range(100):  # a click that a single one of twenty windows shows is missed by all with probability 0.006
        for batch in dataset:
            row, place = np.nonzero(batch["is_target"].numpy())
            keys = (batch[name].numpy()[row, place].tolist() for name in ("items", "time_ms"))
            reached |= set(zip([user_ids[user] for user in batch["user"].numpy()[row]], *keys, strict=True))
        if reached == wanted:
            break
    assert reached == wanted


@pytest.mark.parametrize(("split", "code"), [("train", 0), ("validation", 1), ("test", 2)])
def test_examples_are_read_as_the_oracle_makes_them(
    split: str, code: int, by_click: PreparedData, expected: list[dict[str, Any]]
) -> None:
    examples = read_examples(by_click.shards(split), batch_size=50)
    wanted = [example for example in expected if example["split"] == code]
    wanted.sort(key=lambda example: (example["time_ms"], example["user_id"], example["item"]))
    assert examples.users.tolist() == [example["user_id"] for example in wanted]
    assert examples.targets.tolist() == [example["item"] for example in wanted]
    assert examples.times_ms.tolist() == [example["time_ms"] for example in wanted]
    assert examples.triggers.tolist() == [example["trigger"] for example in wanted]
    assert as_lists(examples.history) == [example["history"] for example in wanted]
    assert as_lists(examples.history_times_ms) == [example["history_time_ms"] for example in wanted]
    assert as_lists(examples.seen) == [example["seen"] or [] for example in wanted]


def test_held_out_examples_do_not_depend_on_the_layout_of_training(
    by_click: PreparedData, by_user: PreparedData
) -> None:
    for split in ("validation", "test"):
        one, other = (read_examples(prepared.shards(split)) for prepared in (by_click, by_user))
        np.testing.assert_array_equal(one.targets, other.targets)
        np.testing.assert_array_equal(one.users, other.users)
        assert as_lists(one.history) == as_lists(other.history)


def test_training_clicks_are_the_same_in_both_layouts(
    by_click: PreparedData, by_user: PreparedData, clicks_of: dict[str, list[dict[str, Any]]]
) -> None:
    wanted = sorted(sorted(click["item"] for click in clicks) for clicks in clicks_of.values())
    for prepared in (by_click, by_user):
        users, items = training_clicks(prepared)
        assert sorted(sorted(items[users == user].tolist()) for user in np.unique(users)) == wanted


def test_users_are_found_by_their_ids_in_any_script_and_others_get_the_last_row() -> None:
    rows = UserRows(["zoë", "u1", "李"])
    assert rows(tf.constant([["李", "u1"], ["zoë", "nobody"]])).numpy().tolist() == [[2, 1], [0, 3]]


LISTS = [[1, 2, 3, 4, 5], [], [6], [7, 8, 9], []]


def as_lists(ragged: Ragged) -> list[list[int]]:
    return [ragged.values[slice(*ends)].tolist() for ends in np.c_[ragged.offsets[:-1], ragged.offsets[1:]]]


def test_pad_keeps_the_last_entries_and_fills_up_at_the_end() -> None:
    assert pad(Ragged.from_lists(LISTS), width=3).tolist() == [
        [3, 4, 5],
        [-1, -1, -1],
        [6, -1, -1],
        [7, 8, 9],
        [-1, -1, -1],
    ]


def test_pad_of_nothing_is_empty() -> None:
    assert pad(Ragged.from_lists([]), width=3).shape == (0, 3)


def test_select_takes_whole_examples_in_the_order_asked_for(by_click: PreparedData) -> None:
    examples = read_examples(by_click.shards("test"))
    chosen = np.random.default_rng(3).integers(len(examples), size=40)  # with repetitions
    selected = examples.select(chosen)
    assert len(selected) == 40
    for name in ("users", "targets", "times_ms", "triggers", "weights"):
        assert getattr(selected, name).tolist() == [getattr(examples, name)[place] for place in chosen]
    for name in ("history", "history_times_ms", "seen"):
        lists = as_lists(getattr(examples, name))
        assert as_lists(getattr(selected, name)) == [lists[place] for place in chosen]
    assert len(examples.select(np.zeros(0, np.int64))) == 0
