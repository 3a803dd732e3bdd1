"""Input that is odd rather than wrong: clocks, time zones, ids of any text, type and size, and very long lists."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.training_data import prepare
from recall.config.experiment import load_config
from recall.config.index import IndexConfig
from recall.core.errors import DataError
from recall.data.prepared import PreparedData
from recall.index import LivingIndex, build_index, save_index
from recall.serving.recaller import Recaller
from tests.faults import test_bad_input

LARGE = "x" * 10_000_000
ODD_IDS = {
    "composed": "caf\u00e9",
    "decomposed": "cafe\u0301",
    "emoji": "\U0001f469\u200d\U0001f680",
    "right to left": "\u05e9\u05dc\u05d5\u05dd\u202e!",
    "spaces within": "a  b\u00a0c",
    "NUL": "a\0b",
    "separators": 'a,b;"c"|d\te\nf',
    "path": "../../etc/passwd",
    "10 MB": LARGE,
}
SURROGATE = "half \ud83d of a pair"


# Logs

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000
# An hour: four users, ten items, a click at two of three exposures.
EVENTS = [(str(n % 4), str(n * 7 % 10), START_MS + n * 60_000, int(n % 3 > 0)) for n in range(60)]


class Logs:
    """Prepares logs of the same events that are written in different ways."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._count = folder, 0

    def prepared(
        self, *files: dict[str, Any], time_unit: str = "ms", items: Sequence[str] = [str(n) for n in range(10)]
    ) -> PreparedData:
        """The data of a log in several Parquet files, in their order."""
        self._count += 1
        folder = self.folder / str(self._count)
        folder.mkdir()
        inputs = test_bad_input.Inputs(folder)
        for number, columns in enumerate(files):
            pq.write_table(pa.table(columns), folder / f"log-{number}.parquet")
        pq.write_table(
            pa.table({"item": items, "name": items, "kind": ["k"] * len(items), "length": [1.0] * len(items)}),
            folder / "items.parquet",
        )
        pq.write_table(pa.table({"user": ["0", "1"], "region": ["r", "s"]}), folder / "users.parquet")
        inputs.replace(inputs.experiment, "path: log.csv", "path: log-*.parquet")
        inputs.replace(inputs.experiment, "path: items.csv", "path: items.parquet")
        inputs.replace(inputs.experiment, "path: users.csv", "path: users.parquet")
        inputs.replace(inputs.experiment, "time_unit: s", f"time_unit: {time_unit}")
        inputs.replace(inputs.experiment, "    - {name: text, type: embedding, path: text.npy}\n", "")
        prepare(load_config(inputs.experiment), folder / "data")
        return PreparedData.load(folder / "data")


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path)


def columns_of(events: Sequence[tuple[str, str, int, int]]) -> dict[str, Any]:
    users, items, times, clicks = map(list, zip(*events, strict=True))
    return {"user": users, "item": items, "at": times, "click": clicks}


def assert_same(found: PreparedData, expected: PreparedData) -> None:
    for name in ("counts", "split", "last_time_ms"):
        assert found.manifest[name] == expected.manifest[name], name
    for name in (
        "items.parquet",
        "users.parquet",
        "posterior_buckets.parquet",
        "histories.parquet",
        "sampling.parquet",
    ):
        assert pq.read_table(found.directory / name) == pq.read_table(expected.directory / name), name


def test_a_clock_that_goes_backwards_within_and_between_files_changes_nothing(logs: Logs) -> None:
    shuffled = [EVENTS[place] for place in np.random.default_rng(0).permutation(60)]
    backwards = logs.prepared(columns_of(EVENTS[40:]), columns_of(EVENTS[:40][::-1]))
    expected = logs.prepared(columns_of(EVENTS))
    assert_same(backwards, expected)
    assert_same(logs.prepared(columns_of(shuffled[:30]), columns_of(shuffled[30:])), expected)


def test_files_in_different_time_zones_are_one_log(logs: Logs) -> None:
    def texts(events: Sequence[tuple[str, str, int, int]], zone: datetime.timezone | None) -> dict[str, Any]:
        moments = [datetime.datetime.fromtimestamp(at / 1000, zone or datetime.timezone.utc) for _, _, at, _ in events]
        written = [(moment if zone else moment.replace(tzinfo=None)).isoformat() for moment in moments]
        return columns_of(events) | {"at": written}

    def moments(events: Sequence[tuple[str, str, int, int]], kind: pa.DataType) -> dict[str, Any]:
        return columns_of(events) | {"at": pa.array([at for _, _, at, _ in events], pa.timestamp("ms")).cast(kind)}

    expected = logs.prepared(columns_of(EVENTS))
    east = datetime.timezone(datetime.timedelta(hours=5, minutes=45))
    parts = EVENTS[:20], EVENTS[20:40], EVENTS[40:]
    as_text = (texts(part, zone) for part, zone in zip(parts, (east, datetime.timezone.utc, None), strict=True))
    assert_same(logs.prepared(*as_text, time_unit="iso"), expected)
    kinds = pa.timestamp("us", "America/New_York"), pa.timestamp("ns", "Asia/Kathmandu"), pa.timestamp("ms")
    as_moments = (moments(part, kind) for part, kind in zip(parts, kinds, strict=True))
    assert_same(logs.prepared(*as_moments), expected)


def test_ids_may_be_text_in_one_file_and_numbers_in_the_next(logs: Logs) -> None:
    parts = [columns_of(EVENTS[start : start + 20]) for start in (0, 20, 40)]
    as_numbers = {name: pa.array([int(value) for value in parts[1][name]]) for name in ("user", "item")}
    as_floats = {name: pa.array([float(value) for value in parts[2][name]]) for name in ("user", "item")}
    expected = logs.prepared(columns_of(EVENTS))
    assert_same(logs.prepared(parts[0], parts[1] | as_numbers, parts[2] | as_floats), expected)


def test_ids_of_any_text_and_size_stay_apart_and_stay_what_they_are(logs: Logs) -> None:
    names = [name for name in ODD_IDS.values() if name != LARGE]
    users, items = ([names[n * step % len(names)] for n in range(60)] for step in (1, 3))
    events = [(*pair, *rest) for pair, (_, _, *rest) in zip(zip(users, items, strict=True), EVENTS, strict=True)]
    data = logs.prepared(columns_of(events), items=names)
    assert data.item_ids.to_pylist() == names
    assert data.manifest["counts"]["rejected"] == {}
    clicked = {user: {item for who, item, _, click in events if click and who == user} for user in names}
    for user in names:
        assert {names[row] for row in data.histories.seen(user)} == clicked[user]


def test_a_large_id_that_no_file_knows_is_set_aside(logs: Logs) -> None:
    data = logs.prepared(columns_of([*EVENTS, ("0", LARGE, START_MS, 1)]))
    assert data.manifest["counts"]["rejected"] == {"item id is longer than 512 characters": 1}


def test_ids_that_are_no_text_are_one_clear_error(logs: Logs) -> None:
    bad = columns_of(EVENTS) | {"user": pa.array([b"\xed\xa0\xbd"] * 60, pa.binary())}
    with pytest.raises(DataError, match=r"log-0\.parquet.*UTF-?8"):
        logs.prepared(bad)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_vectors_that_are_not_finite_are_refused_by_every_way_in(value: float, tmp_path: Path) -> None:
    vectors = np.eye(4, dtype=np.float64)
    save_index(build_index(list("abcd"), vectors, config=IndexConfig(kind="exact", k=2)), tmp_path, fingerprint="model")
    vectors[2, 1] = value
    with pytest.raises(DataError, match="vectors: 1 of 4 rows hold NaN or infinite numbers: rows 2"):
        build_index(list("abcd"), vectors, config=IndexConfig(kind="exact", k=2))
    with LivingIndex.open(tmp_path) as index:
        with pytest.raises(DataError, match="vectors: 1 of 2 rows hold NaN or infinite numbers: rows 0"):
            index.upsert(["e", "f"], vectors[2:])
        assert len(index) == 4
    with LivingIndex.open(tmp_path) as index:
        assert len(index) == 4


# Serving


@pytest.fixture(scope="module")
def served(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recaller]:
    directory = Path(shutil.copytree(finished, tmp_path_factory.mktemp("odd") / "run"))
    recaller = Recaller.load(directory, living=True)
    yield recaller
    recaller.close()


@pytest.mark.parametrize("name", [name for name, text in ODD_IDS.items() if text != LARGE])
def test_users_of_any_id_get_the_answer_to_an_unknown_user(name: str, served: Recaller) -> None:
    asked = ODD_IDS[name]
    found = served.recall([asked, "nobody"], k=5)
    assert found.queries[0] == asked
    assert found.ids[0].tolist() == found.ids[1].tolist()
    assert served.recall(["nobody"], k=5, histories={"nobody": [asked]}).ids.tolist() == found.ids[1:].tolist()
    assert served.recall(["nobody"], k=5, exclude=[asked], filters={"deny": [asked]}).ids.shape == (1, 5)


def test_an_id_that_is_too_long_is_refused_by_every_way_in(served: Recaller) -> None:
    for call in (
        lambda: served.recall([LARGE], k=5),
        lambda: served.recall(["nobody"], k=5, exclude=[LARGE]),
        lambda: served.add_items([{"item_id": LARGE, "category": "c"}]),
        lambda: served.delete_items([LARGE]),
    ):
        with pytest.raises(DataError, match="at most 512 characters") as refused:
            call()
        assert len(str(refused.value)) < 2_000


@pytest.mark.parametrize("name", [name for name, text in ODD_IDS.items() if text != LARGE])
def test_items_of_any_id_are_added_found_and_deleted(name: str, served: Recaller) -> None:
    added = ODD_IDS[name]
    assert served.add_items([{"item_id": added, "category": "c"}]) == [added]
    assert np.isfinite(served.vectors([added])).all()
    assert added in served.recall(["u001"], k=len(served.index), exclude_seen=False).ids[0]
    assert served.delete_items([added]) == 1
    with pytest.raises(DataError, match="not in the index") as refused:
        served.delete_items([added])
    assert len(str(refused.value)) < 2_000


@pytest.mark.parametrize(
    "use",
    [
        lambda recaller, name: recaller.recall([name], k=1),
        lambda recaller, name: recaller.recall(["u001"], k=1, histories={"u001": [name]}),
        lambda recaller, name: recaller.recall(["u001"], k=1, exclude=[name]),
        lambda recaller, name: recaller.recall(features=[{"age_band": name}], k=1),
        lambda recaller, name: recaller.recall(features=[{"history": [name]}], k=1),
        lambda recaller, name: recaller.similar([name], k=1),
        lambda recaller, name: recaller.add_items([{"item_id": name}]),
        lambda recaller, name: recaller.add_items([{"item_id": "new", "category": name}]),
        lambda recaller, name: recaller.add_items([{"item_id": "new", "remark": name}]),
        lambda recaller, name: recaller.delete_items([name]),
    ],
)
def test_half_a_pair_of_surrogates_is_a_clear_error_everywhere(
    use: Callable[[Recaller, str], object], served: Recaller
) -> None:
    before = len(served.index)
    with pytest.raises(DataError, match=r"surrogates not allowed"):
        use(served, SURROGATE)
    assert len(served.index) == before
    assert served.recall(["u001"], k=3).ids.shape == (1, 3)


def test_a_text_of_10_mb_in_the_place_of_a_list_is_not_repeated_in_the_error(served: Recaller) -> None:
    with pytest.raises(DataError, match="expected a list of ids") as refused:
        served.recall(LARGE, k=1)
    assert len(str(refused.value)) < 2_000


def test_lists_of_a_million_ids_are_taken(served: Recaller) -> None:
    million = [f"unknown {number}" for number in range(1_000_000)]
    expected = served.recall(["u001"], k=5).ids.tolist()
    assert served.recall(["u001"], k=5, exclude=million).ids.tolist() == expected
    assert served.recall(["u001"], k=5, filters={"deny": million}).ids.tolist() == expected
    allowed = [*million, *expected[0][:2]]
    assert served.recall(["u001"], k=2, filters={"allow": allowed}).ids.tolist() == [expected[0][:2]]
    assert served.delete_items(million, missing_ok=True) == 0
    with pytest.raises(DataError, match="1,000,000 of 1,000,000 ids are not in the index") as refused:
        served.delete_items(million)
    assert len(str(refused.value)) < 2_000
    history = [*million, *expected[0]]
    short = served.recall(["u001"], k=5, histories={"u001": expected[0]}).ids.tolist()
    assert served.recall(["u001"], k=5, histories={"u001": history}).ids.tolist() == short


# Clocks


@pytest.mark.parametrize("now_ms", [0, -1, 1, START_MS, 4 * START_MS, 2**62])
def test_a_query_at_any_moment_is_answered(now_ms: int, served: Recaller) -> None:
    found = served.recall(["u001", "nobody"], k=5, now_ms=now_ms, fallback=True)
    assert (found.ids != None).all()  # noqa: E711 - elementwise
    assert np.isfinite(found.scores).all()
    fresh = served.recall(["u001"], k=5, now_ms=now_ms, filters={"where": [{"newer_than_hours": 24}]})
    assert fresh.ids.shape == (1, 5)


@pytest.mark.parametrize("now_ms", [None, 0, START_MS, 4 * START_MS])
@pytest.mark.parametrize("first_ms", [0, START_MS, 3 * START_MS, 2**53])
def test_counts_from_the_future_and_before_the_log_give_finite_vectors(
    first_ms: int, now_ms: int | None, served: Recaller
) -> None:
    counts = pd.DataFrame(
        {"item_id": ["i002", "i003"], "exposures": [30, 0], "clicks": [3, 0], "first_time_ms": [first_ms, 0]}
    )
    assert served.refresh_posterior(counts, now_ms=now_ms) == 2
    assert np.isfinite(served.vectors(["i002", "i003"])).all()
    assert np.isfinite(served.recall(["u001"], k=5).scores).all()


def test_an_exposure_after_the_moment_of_asking_counts_as_one_of_that_moment(served: Recaller) -> None:
    def vector(first_ms: int) -> Any:
        counts = pd.DataFrame({"item_id": ["i004"], "exposures": [30], "clicks": [3], "first_time_ms": [first_ms]})
        served.refresh_posterior(counts, now_ms=2 * START_MS)
        return served.vectors(["i004"])

    np.testing.assert_array_equal(vector(3 * START_MS), vector(2 * START_MS))
