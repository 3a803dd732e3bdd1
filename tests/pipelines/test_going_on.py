"""Tests that a job that goes on from an earlier one finds what it would have found in the whole log."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.training_data import prepare
from recall.config.experiment import Config, load_config
from recall.core.errors import DataError
from recall.data.datasets import simulate
from recall.data.prepared import PreparedData
from recall.data.settled import SETTLED
from recall.data.splits import TimeBoundaries, TimeHistogram
from recall.evaluation.trending import HALF_LIVES_HOURS
from recall.model.batches.dataset import Examples, read_examples
from recall.runs.moments import decayed_clicks
from tests.conftest import EXPERIMENT
from tests.helpers.training_examples import canonical, parse

DAY_MS = 86_400_000
FIRST, LAST = 3, 6
SETTINGS = ("training.refit=continue", "data.posterior.audience=5", "data.tail=30h", "data.history=4")
Times = npt.NDArray[np.int64]


class Days(NamedTuple):
    """Hold a log in files by the day they were written, and the data of each day's job."""

    folder: Path
    data: dict[int, Path]  # of the last day of each job

    def config(self, until: int, *overrides: str) -> Config:
        names = ",".join(f"day{day}.parquet" for day in range(FIRST, until + 1))
        path = f"data.events.path={self.folder}/log/{{{names},none}}"
        return load_config(self.folder / "experiment.yaml", [*SETTINGS, path, *overrides])


def _day(time_ms: Times) -> Times:
    start = int(time_ms.min()) // DAY_MS * DAY_MS
    return (time_ms - start) // DAY_MS


def _write_log(folder: Path, events: pa.Table, written: Times) -> None:
    """Write the events into a file per day; the days up to the first one are one file."""
    (folder / "log").mkdir(exist_ok=True)
    for day in range(FIRST, LAST + 1):
        chosen = np.maximum(written, FIRST) == day
        pq.write_table(events.filter(pa.array(chosen)), folder / "log" / f"day{day}.parquet")


def _late(time_ms: Times, *, share: float, seed: int) -> Times:
    """Choose the day whose file has each event: its own, or for a few the next one."""
    is_late = np.random.default_rng(seed).random(len(time_ms)) < share
    return np.minimum(_day(time_ms) + is_late, LAST)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Days:
    """Go on from day to day over a simulated log of which 4% come a day late, and some rows twice."""
    folder = tmp_path_factory.mktemp("days")
    simulate(users=120, items=160, days=LAST + 1, authors=30, topics=8, exposures=9_000).write(folder)
    events = pq.read_table(folder / "events.parquet")
    written = _late(events["time_ms"].to_numpy(), share=0.04, seed=1)
    twice = np.random.default_rng(2).choice(len(events), 40, replace=False)
    events = pa.concat_tables([events, events.take(pa.array(twice))])
    written = np.append(written, np.minimum(written[twice] + np.arange(40) % 2, LAST))
    _write_log(folder, events, written)
    (folder / "experiment.yaml").write_text(EXPERIMENT)
    found = Days(folder, {})
    for day in range(FIRST, LAST + 1):
        prepare(found.config(day), folder / f"data{day}", since=found.data.get(day - 1))
        found.data[day] = folder / f"data{day}"
    return found


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> Callable[[Config, Path, Path], PreparedData]:
    """Prepare a whole log with the boundaries of other data."""

    def make(config: Config, directory: Path, like: Path) -> PreparedData:
        split = PreparedData.load(like).manifest["split"]
        boundaries = TimeBoundaries(split["validation_start_ms"], split["test_start_ms"])
        monkeypatch.setattr(TimeHistogram, "boundaries", lambda self, **shares: boundaries)
        prepare(config, directory)
        return PreparedData.load(directory)

    return make


def _tables(data: PreparedData) -> Iterator[tuple[str, pa.Table]]:
    names = ["posterior", "posterior_validation", "posterior_test", "sampling"]
    for name in names:
        yield name, pq.read_table(data.directory / f"{name}.parquet")
    yield "histories", pq.read_table(data.directory / "histories.parquet").sort_by("user_id")
    yield "state", pq.read_table(data.directory / "state" / "users.parquet").sort_by("user_id")
    order = [(name, "ascending") for name in ("user", "time_ms", "item")]
    yield "tail", pq.read_table(data.directory / "state" / "tail.parquet").sort_by(order)


def _examples(examples: Examples) -> list[tuple[Any, ...]]:
    lists = (examples.history, examples.history_times_ms, examples.seen)
    columns = [[tuple(ragged[row].tolist()) for row in range(len(examples))] for ragged in lists]
    own = (examples.users, examples.targets, examples.times_ms, examples.triggers, *columns)
    return sorted(zip(*own, strict=True), key=str)


def _close(found: pa.Table, expected: pa.Table) -> bool:
    """Compare tables; evidence that decays may differ in its last digit, as it was added up in two steps."""
    if "fresh" in found.column_names:
        pairs = [table["fresh"].combine_chunks().flatten().to_numpy() for table in (found, expected)]
        np.testing.assert_allclose(*pairs, rtol=1e-6, atol=1e-30)
        found, expected = (table.drop_columns(["fresh"]) for table in (found, expected))
    return bool(found.equals(expected))


def _same_lookups(data: PreparedData, whole: PreparedData, *, from_ms: int) -> None:
    """Compare what is known of all items at moments from the first training example to the end of the log."""
    end_ms, rows = data.manifest["last_time_ms"], np.arange(len(data.item_ids))
    moments = np.linspace(from_ms, end_ms + 2 * DAY_MS, 40).astype(np.int64)
    for moment in moments:
        times = np.full(len(rows), moment)
        found, expected = (side.posterior_history.as_of(rows, times) for side in (data, whole))
        for name, column in found.columns().items():
            assert (column == getattr(expected, name)).all(), name
        assert found.fresh is not None
        np.testing.assert_allclose(found.fresh, expected.fresh, rtol=1e-6, atol=1e-30)
        sources = (side.audience_history.as_of(rows, times, last=side.audience) for side in (data, whole))
        assert np.array_equal(*sources)
    for hours in HALF_LIVES_HOURS:
        counts = [list(decayed_clicks(side).at(moments.tolist(), half_life_hours=hours)) for side in (data, whole)]
        np.testing.assert_allclose(*counts, rtol=1e-9, atol=1e-30)


def _same(data: PreparedData, whole: PreparedData, *, from_ms: int) -> None:
    for (name, found), (_, expected) in zip(_tables(data), _tables(whole), strict=True):
        assert _close(found, expected), name
    _same_lookups(data, whole, from_ms=from_ms)
    for name in ("prior_ctr", "prior_strength"):
        assert data.manifest["posterior"][name] == whole.manifest["posterior"][name]
    for name in ("events", "clicks", "first_ms", "from_ms"):
        assert data.manifest["state"][name] == whole.manifest["state"][name], name
    for name in ("first_time_ms", "last_time_ms"):
        assert data.manifest[name] == whole.manifest[name]
    assert sorted(data.user_ids.to_pylist()) == sorted(whole.user_ids.to_pylist())
    for split in ("validation", "test"):
        assert _examples(read_examples(data.shards(split))) == _examples(read_examples(whole.shards(split)))
    for view in (lambda data: data, lambda data: data.judged()):
        learned, expected = (read_examples(view(side).shards("train")) for side in (data, whole))
        in_tail = expected.select(np.flatnonzero(expected.times_ms >= from_ms))
        assert _examples(learned) == _examples(in_tail)


@pytest.mark.parametrize("day", range(FIRST + 1, LAST + 1))
def test_a_continued_job_finds_what_the_whole_log_says(
    days: Days, anew: Callable[[Config, Path, Path], PreparedData], tmp_path: Path, day: int
) -> None:
    data = PreparedData.load(days.data[day])
    whole = anew(days.config(day), tmp_path / "whole", days.data[day])
    _same(data, whole, from_ms=PreparedData.load(days.data[day - 1]).manifest["state"]["from_ms"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_of_a_real_log_cut_anywhere_too(
    shared_data: Path, anew: Callable[[Config, Path, Path], PreparedData], tmp_path: Path, seed: int
) -> None:
    source = shared_data / "kuairand"
    events = pq.read_table(source / "log_standard_4_25_to_5_08_pure.parquet")
    users = events["user_id"].to_numpy()
    random = np.random.default_rng(seed)
    events = events.filter(pa.array(np.isin(users, random.choice(np.unique(users), 200, replace=False))))
    time_ms = events["time_ms"].to_numpy()
    cuts = np.sort(random.choice(time_ms[len(time_ms) // 2 :], LAST - FIRST, replace=False))
    written = FIRST + np.searchsorted(cuts, time_ms, side="right")
    late = (random.random(len(written)) < 0.03) & (written > FIRST)
    written = np.minimum(written + late, LAST)
    _write_log(tmp_path, events, written)
    text = (Path(__file__).parents[2] / "examples" / "kuairand.yaml").read_text()
    (tmp_path / "experiment.yaml").write_text(text.replace("../../shared/data/kuairand", str(source)))
    # A cut may be shorter than what comes late: such events have to lie in the tail.
    days = Days(tmp_path, {})
    settings = ("data.tail=20d", "data.posterior.audience=3")
    for day in range(FIRST, LAST + 1):
        prepare(days.config(day, *settings), tmp_path / f"data{day}", since=days.data.get(day - 1))
        days.data[day] = tmp_path / f"data{day}"
    settings = ("data.tail=2d", "data.posterior.audience=3")
    prepare(days.config(FIRST, *settings), tmp_path / "short")
    state = PreparedData.load(tmp_path / "short").manifest["state"]
    later = pq.read_table(tmp_path / "log" / f"day{FIRST + 1}.parquet")
    kept = later.filter(pa.array(later["time_ms"].to_numpy() >= state["from_ms"]))
    prepare(days.config(FIRST + 1, *settings), tmp_path / "short1", since=tmp_path / "short")
    rejected = pq.read_table(tmp_path / "short1" / "rejected.parquet")
    assert len(rejected) == len(later) - len(kept)
    whole = anew(days.config(LAST, "data.tail=20d", "data.posterior.audience=3"), tmp_path / "whole", days.data[LAST])
    _same(PreparedData.load(days.data[LAST]), whole, from_ms=0)


@pytest.mark.parametrize("gap", ["30m", "8h"])
def test_further_histories_and_what_was_refused_go_on(
    days: Days, anew: Callable[[Config, Path, Path], PreparedData], tmp_path: Path, gap: str
) -> None:
    (tmp_path / "log").mkdir()
    for name in ("items.parquet", "users.parquet", "experiment.yaml"):
        shutil.copy(days.folder / name, tmp_path)
    for day in range(FIRST, LAST + 1):
        table = pq.read_table(days.folder / "log" / f"day{day}.parquet")
        liked = pa.array((table["time_ms"].to_numpy() % 3 == 0).astype(np.int8))
        pq.write_table(table.append_column("liked", liked), tmp_path / "log" / f"day{day}.parquet")
    found = Days(tmp_path, {})
    settings = (
        "data.histories={likes: {column: liked, length: 3}}",
        f"data.refused={{count: 3, gap: {gap}}}",
    )
    for day in range(FIRST, LAST + 1):
        prepare(found.config(day, *settings), tmp_path / f"data{day}", since=found.data.get(day - 1))
        found.data[day] = tmp_path / f"data{day}"
    from_ms = PreparedData.load(found.data[LAST - 1]).manifest["state"]["from_ms"]
    data = PreparedData.load(found.data[LAST])
    whole = anew(found.config(LAST, *settings), tmp_path / "whole", found.data[LAST])
    _same(data, whole, from_ms=from_ms)
    likes = [pq.read_table(side.directory / "histories" / "likes.parquet").sort_by("user_id") for side in (data, whole)]
    assert likes[0].equals(likes[1])
    entries = [(name, "ascending") for name in ("user", "time_ms", "item")]
    kept = [pq.read_table(side.directory / "state" / "histories" / "likes.parquet") for side in (data, whole)]
    assert kept[0].sort_by(entries).equals(kept[1].sort_by(entries))
    further = ("history", "history_time_ms", "history.likes", "history.likes.time_ms")
    scalars = ("item", "time_ms", "trigger", "exposures", "clicks", "smoothed_ctr", "age_hours")
    refused = 0
    for split in ("train", "refit", "validation", "test"):
        lists = (*further, "refused") if split in ("train", "refit") else (*further, "seen")
        learned, expected = (
            parse(sorted(side.directory.glob(f"{split}-*.tfrecord")), lists=lists, scalars=scalars)
            for side in (data, whole)
        )
        expected = [example for example in expected if example["time_ms"] >= from_ms]
        assert canonical(learned) == canonical(expected)
        refused += sum(len(example.get("refused", ())) for example in learned)
    assert refused


def test_a_longer_tail_begins_where_the_old_one_did(days: Days, tmp_path: Path) -> None:
    before = PreparedData.load(days.data[FIRST]).manifest["state"]["from_ms"]
    manifest = prepare(days.config(FIRST + 1, "data.tail=60h"), tmp_path / "data", since=days.data[FIRST])
    assert manifest["state"]["from_ms"] == before  # nothing is kept of what came earlier
    tail = pq.read_table(tmp_path / "data" / "state" / "tail.parquet")
    log = [pq.read_table(days.folder / "log" / f"day{day}.parquet") for day in (FIRST, FIRST + 1)]
    columns = ["user_id", "item_id", "time_ms", "is_click"]
    events = pa.concat_tables(log).select(columns).group_by(columns).aggregate([])
    assert len(tail) == np.count_nonzero(events["time_ms"].to_numpy() >= before)


def test_what_comes_later_than_the_tail_is_set_aside_and_counted(
    days: Days, anew: Callable[[Config, Path, Path], PreparedData], tmp_path: Path
) -> None:
    shutil.copytree(days.folder, tmp_path / "days")
    copy = days._replace(folder=tmp_path / "days")
    day = pq.read_table(copy.folder / "log" / f"day{FIRST + 1}.parquet")
    old = pq.read_table(copy.folder / "log" / f"day{FIRST}.parquet").slice(0, 25)
    pq.write_table(pa.concat_tables([day, old]), copy.folder / "log" / f"day{FIRST + 1}.parquet")
    before = tmp_path / "before"
    prepare(copy.config(FIRST), before)
    manifest = prepare(copy.config(FIRST + 1), tmp_path / "data", since=before)
    reason = "came too late: its time is before the kept tail of the log (data.tail)"
    assert manifest["counts"]["rejected"] == {reason: 25}
    rejected = pq.read_table(tmp_path / "data" / "rejected.parquet")
    assert rejected["row"].to_pylist() == list(range(len(day), len(day) + 25))
    whole = anew(days.config(FIRST + 1), tmp_path / "whole", tmp_path / "data")
    _same(PreparedData.load(tmp_path / "data"), whole, from_ms=PreparedData.load(before).manifest["state"]["from_ms"])


def test_tables_do_not_grow_with_the_log(
    days: Days, anew: Callable[[Config, Path, Path], PreparedData], tmp_path: Path
) -> None:
    data = PreparedData.load(days.data[LAST])
    whole = anew(days.config(LAST), tmp_path / "whole", days.data[LAST])
    base = data.posterior_history.base
    assert base is not None
    assert whole.posterior_history.base is None
    # One entry of each item that is older, and none besides.
    buckets = data.posterior_history.bucket
    assert buckets.min() == base.bucket
    assert np.array_equal(data.posterior_history.item[buckets == base.bucket], base.item)
    assert np.array_equal(
        base.item, np.unique(whole.posterior_history.item[whole.posterior_history.bucket <= base.bucket])
    )
    old = data.audience_history.bucket <= base.bucket
    assert np.bincount(data.audience_history.item[old]).max() == data.audience
    newer = [side.audience_history.bucket > base.bucket for side in (data, whole)]
    assert newer[0].sum() == newer[1].sum()
    assert old.sum() < (~newer[1]).sum()


def test_ids_keep_their_codes_and_new_ones_stand_behind(days: Days) -> None:
    before, now = (PreparedData.load(days.data[day]) for day in (FIRST, FIRST + 1))
    for name, vocabulary in before.item_encoder.vocabularies.items():
        later = now.item_encoder.vocabularies[name]
        assert later.values[: len(vocabulary.values)].equals(vocabulary.values)
        assert later.first_size in (0, vocabulary.first_size or vocabulary.size)
    assert now.judged().item_encoder.columns == before.item_encoder.columns
    assert len(now.item_encoder.vocabularies["item_id"].values) > len(
        before.item_encoder.vocabularies["item_id"].values
    )


def test_settled_clicks_are_no_examples(days: Days) -> None:
    data = PreparedData.load(days.data[LAST])
    assert SETTLED == -1
    read = read_examples(data.shards("train"))
    assert read.times_ms.min() >= PreparedData.load(days.data[LAST - 1]).manifest["state"]["from_ms"]
    assert data.manifest["counts"]["records"]["refit"] == sum(
        data.manifest["counts"]["records"][split] for split in ("validation", "test")
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.split.by=last_click data.posterior.audience=0", "holds out the last clicks of all users"),
        ("data.layout=user", "take layout: click"),
        ("data.posterior.bucket=2h", "other buckets or another delay"),
        ("data.posterior.half_lives=[1d]", "other half_lives or another audience"),
        ("data.posterior.audience=3", "other half_lives or another audience"),
        ("data.histories.likes.column=is_click", "other names or lengths"),
    ],
)
def test_what_cannot_be_gone_on_from_is_said(days: Days, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(days.config(FIRST + 1, *override.split()), tmp_path / "data", since=days.data[FIRST])
    assert list(tmp_path.iterdir()) == []


def test_nothing_new_and_changed_files_are_refused(days: Days, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the 1 files of the log is new"):
        prepare(days.config(FIRST), tmp_path / "data", since=days.data[FIRST])
    shutil.copytree(days.folder, tmp_path / "days")
    copy = days._replace(folder=tmp_path / "days")
    prepare(copy.config(FIRST), tmp_path / "before")
    pq.write_table(pq.read_table(copy.folder / "log" / "day3.parquet").slice(1), copy.folder / "log" / "day3.parquet")
    with pytest.raises(DataError, match=r"day3.parquet: has changed since"):
        prepare(copy.config(FIRST + 1), tmp_path / "data", since=tmp_path / "before")
    assert not (tmp_path / "data").exists()


def _with_next_day(days: Days, folder: Path, change: Callable[[pa.Table], pa.Table]) -> Days:
    (folder / "log").mkdir()
    shutil.copy(days.folder / "experiment.yaml", folder)
    for name in ("items", "users"):
        shutil.copy(days.folder / f"{name}.parquet", folder)
    shutil.copy(days.folder / "log" / f"day{FIRST}.parquet", folder / "log")
    day = pq.read_table(days.folder / "log" / f"day{FIRST + 1}.parquet")
    pq.write_table(change(day), folder / "log" / f"day{FIRST + 1}.parquet")
    found = days._replace(folder=folder)
    prepare(found.config(FIRST), folder / "before")
    return found


def _unknown(table: pa.Table) -> pa.Table:
    place = table.column_names.index("item_id")
    return table.set_column(place, "item_id", pa.array([f"x{row}" for row in range(len(table))]))


def _earlier(table: pa.Table) -> pa.Table:
    place = table.column_names.index("time_ms")
    return table.set_column(place, "time_ms", pa.array(table["time_ms"].to_numpy() - DAY_MS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.slice(0, 0), "hold no event after"),
        (_unknown, "hold no event after"),
        (_earlier, "hold no event after"),
        (lambda table: table.slice(len(table) // 2, 2), "go on when there are more"),
    ],
    ids=["empty day", "unknown items", "backwards", "two events"],
)
def test_a_day_that_cannot_be_learned_is_one_line(
    days: Days, tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    found = _with_next_day(days, tmp_path, change)
    with pytest.raises(DataError, match=message) as error:
        prepare(found.config(FIRST + 1), tmp_path / "data", since=tmp_path / "before")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


def test_ids_that_nobody_saw_for_long_give_their_rows_to_new_ones(days: Days, tmp_path: Path) -> None:
    before = PreparedData.load(days.data[LAST - 1])
    prepare(days.config(LAST, "data.retire_after=8h"), tmp_path / "data", since=days.data[LAST - 1])
    data = PreparedData.load(tmp_path / "data")
    events = pq.read_table(days.folder / "events.parquet").to_pandas()
    since_ms = data.manifest["last_time_ms"] - DAY_MS // 3
    # An item is seen until the end of the hour of its last exposure.
    last_ms = (events.groupby("item_id")["time_ms"].max() // 3_600_000 + 1) * 3_600_000 - 1
    gone = set(last_ms[last_ms < since_ms].index)
    vocabularies = [side.item_encoder.vocabularies["item_id"].values.to_pylist() for side in (before, data)]
    left = gone & set(vocabularies[0])
    assert len(left) > 3
    assert not gone & set(vocabularies[1])
    places = [place for place, value in enumerate(vocabularies[0]) if value in left]
    taken = [vocabularies[1][place] for place in places]
    added = set(vocabularies[1]) - set(vocabularies[0])
    reused = data.reused_codes["items"]["item_id"]
    assert reused == [
        place + 2 for place, value in zip(places, taken, strict=True) if value in added and value[0] != "\0"
    ]
    assert reused
    clicked = events[events["is_click"] == 1]
    assert added - {value for value in added if value.startswith("\0")} <= set(clicked["item_id"])
    # A judged model knows neither the old nor the new value of such a row.
    judged = data.judged()
    assert set(judged.items["item_id"].to_numpy()[data.rows(list(left))]) == {1}
    assert set(judged.items["item_id"].to_numpy()[data.rows(taken[: len(reused)])]) <= {1}
    active = clicked[clicked["time_ms"] >= since_ms]["user_id"].unique()
    users = data.user_encoder.vocabularies["user_id"].values.to_pylist()
    assert {user for user in users if not user.startswith("\0")} <= set(active)
