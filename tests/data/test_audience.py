"""Audiences against a plain walk through the clicks of a log, and their files."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.audience_blocks import audience_blocks
from pipelines.exchange import Scratch
from pipelines.training_data import prepare
from recall.core.errors import ConfigError
from recall.data.audience import NOBODY, AudienceHistory, audience_columns
from recall.data.prepared import PreparedData
from tests.conftest import Experiment
from tests.helpers.made_once import MakeOnce

HOUR = 3_600_000
Clicks = tuple[np.ndarray, np.ndarray, np.ndarray]  # items, times, sources


@pytest.fixture
def clicks() -> Clicks:
    rng = np.random.default_rng(3)
    times = rng.permutation(np.arange(400)) * 613_000 - 20 * HOUR  # no two at once
    return rng.integers(0, 9, 400), times, rng.integers(-1, 12, 400)


def walk(clicks: Clicks, row: int, now: int, *, last: int, bucket: int, delay: int) -> list[int]:
    """List the sources of the clicks whose bucket closed `delay` before now, the latest first."""
    found = [
        (time, source)
        for item, time, source in zip(*(part.tolist() for part in clicks), strict=True)
        if item == row and source >= 0 and (time // bucket + 1) * bucket <= now - delay
    ]
    latest = [source for _, source in sorted(found, reverse=True)][:last]
    return latest + [NOBODY] * (last - len(latest))


@pytest.mark.parametrize(("bucket", "delay"), [(HOUR, HOUR), (HOUR, 0), (7_000, 123)])
def test_lookups_equal_a_walk_through_the_clicks(bucket: int, delay: int, clicks: Clicks) -> None:
    rng = np.random.default_rng(4)
    rows, times = rng.integers(0, 11, 300), rng.integers(-30 * HOUR, 90 * HOUR, 300)
    history = AudienceHistory.of(*clicks, bucket_ms=bucket, delay_ms=delay)
    expected = [
        walk(clicks, row, now, last=5, bucket=bucket, delay=delay)
        for row, now in zip(rows.tolist(), times.tolist(), strict=True)
    ]
    assert history.as_of(rows, times, last=5).tolist() == expected
    again = AudienceHistory.from_table(history.table(), bucket_ms=bucket, delay_ms=delay)
    assert again.as_of(rows, times, last=5).tolist() == expected


def test_a_log_without_a_second_click_gives_nobody() -> None:
    nothing = np.zeros(0, np.int64)
    history = AudienceHistory.of(nothing, nothing, nothing, bucket_ms=HOUR, delay_ms=0)
    assert history.as_of(np.array([0, 3]), np.array([0, HOUR]), last=2).tolist() == [[NOBODY] * 2] * 2


def test_columns_are_the_mean_of_the_tokens_and_how_many_there_are() -> None:
    tokens = np.random.default_rng(5).normal(size=(6, 3)).astype(np.float32)
    sources = np.array([[2, 2, 5], [NOBODY] * 3, [0, NOBODY, NOBODY], [4, 1, NOBODY]], np.int32)
    expected = [np.mean([tokens[2], tokens[2], tokens[5]], axis=0), np.zeros(3), tokens[0], (tokens[4] + tokens[1]) / 2]
    for block in (1, 3, 8192):
        found = audience_columns(tokens, sources, block=block)
        np.testing.assert_allclose(found[:, :-1], expected, rtol=1e-6)
        assert found[:, -1].tolist() == [3, 0, 1, 2]


# In the prepared data


@pytest.fixture(scope="module")
def with_audience(experiment: Experiment, made_once: MakeOnce) -> PreparedData:
    config = experiment("data.posterior.audience=4")
    return PreparedData.load(made_once("data", config.to_yaml(), lambda directory: prepare(config, directory)))


def clicks_of(config_folder: str, prepared: PreparedData) -> Clicks:
    """Find what each user of the log had clicked before each click, one user at a time."""
    events = pq.read_table(config_folder).to_pandas().drop_duplicates(["user_id", "item_id", "time_ms", "is_click"])
    rows = dict(zip(prepared.item_ids.to_pylist(), range(len(prepared.item_ids)), strict=True))
    found = []
    for _, own in events[events["is_click"] == 1].groupby("user_id"):
        own = own.sort_values("time_ms", kind="stable")
        moments = [(row.time_ms, rows[row.item_id]) for row in own.itertuples()]
        for (before, source), (time, item) in pairwise(moments):
            if before < time:
                found.append((item, time, source))
    items, times, sources = zip(*found, strict=True)
    return np.array(items), np.array(times), np.array(sources)


def test_prepared_audiences_are_what_users_had_clicked_before(
    with_audience: PreparedData, experiment: Experiment
) -> None:
    clicks = clicks_of(str(experiment().data.events.path), with_audience)
    manifest = with_audience.manifest
    ends = {
        "validation": manifest["split"]["validation_start_ms"],
        "test": manifest["split"]["test_start_ms"],
        "serving": manifest["last_time_ms"] + HOUR,
    }
    for name, end in ends.items():
        found = with_audience.posterior(name).sources  # type: ignore[arg-type]
        assert found is not None
        expected = [walk(clicks, row, end, last=4, bucket=HOUR, delay=0) for row in range(len(found))]
        # Two users may click an item in the same millisecond; their order is then anybody's.
        same = [sorted(one) == sorted(other) for one, other in zip(found.tolist(), expected, strict=True)]
        assert np.mean(same) > 0.99
        assert (found >= 0).mean() > 0.3
    rows = np.arange(len(with_audience.item_ids))
    at_test = with_audience.audience_history.as_of(rows, np.full(len(rows), ends["test"] + HOUR), last=4)
    np.testing.assert_array_equal(at_test, with_audience.posterior("test").sources)


def test_data_without_audiences_has_none(prepared: PreparedData) -> None:
    assert prepared.audience == 0
    assert prepared.posterior("serving").sources is None
    assert "audience.parquet" not in prepared.manifest["files"]


def test_blocks_of_items_give_what_the_whole_does(experiment: Experiment, tmp_path: object) -> None:
    import pyarrow as pa

    rng = np.random.default_rng(8)
    scratch, parts = Scratch(str(tmp_path)), []
    for partition in range(3):
        items, times = np.sort(rng.integers(0, 20, 50)), rng.permutation(np.arange(50)) * 3 + partition
        sources = rng.integers(0, 20, 50)
        parts.append((items, times, sources))
        scratch.write("audience", partition, pa.table({"item": items, "time_ms": times, "source": sources}))
    data = experiment("data.posterior.audience=4").data
    whole = AudienceHistory.of(
        *(np.concatenate(column) for column in zip(*parts, strict=True)), bucket_ms=1, delay_ms=0
    )
    blocks = list(audience_blocks(scratch, data=data, items=20, clicks_per_block=30))
    assert len(blocks) > 2
    assert [stop for _, stop, _ in blocks[:-1]] == [start for start, _, _ in blocks[1:]]
    np.testing.assert_array_equal(np.concatenate([block.item for _, _, block in blocks]), whole.item)
    np.testing.assert_array_equal(np.concatenate([block.source for _, _, block in blocks]), whole.source)


def test_audiences_need_moments(experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match=r"posterior\.audience: 4 .*split: \{by: last_click\}.*split: \{by: time\}"):
        experiment("data.posterior.audience=4", "data.split={by: last_click}")
