"""The posterior history in blocks against the whole one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.exchange import Scratch
from pipelines.posterior_blocks import history_tables, read_history, whole_history, write_history
from recall.config.data import DataConfig
from recall.data.event_counts import count_buckets
from recall.data.posterior import PosteriorHistory, Prior
from recall.data.posterior_blocks import PosteriorBlocks, block_starts

HOUR = 3_600_000
PRIOR = Prior(ctr=0.25, strength=20.0)


def test_blocks_begin_with_the_item_that_fills_the_one_before() -> None:
    # Entries before each item: 0, 2, 2, 5, 6, 14; with four to a block these lie in blocks 0, 0, 0, 1, 1, 3.
    assert block_starts(np.array([2, 0, 3, 1, 8, 1]), most=4).tolist() == [0, 3, 5]
    assert block_starts(np.zeros(5, np.int64), most=4).tolist() == [0]


@pytest.mark.parametrize("most", [1, 40, 10_000])
@pytest.mark.parametrize("clock", [True, False])
def test_lookups_block_by_block_equal_those_in_the_whole_history(most: int, clock: bool) -> None:
    rng = np.random.default_rng(8)
    item, time, click = rng.integers(0, 30, 400), rng.integers(0, 40 * HOUR, 400), rng.random(400) < 0.3
    counts = count_buckets(item, time, click, bucket_ms=HOUR)
    settings: dict[str, Any] = {"bucket_ms": HOUR, "delay_ms": HOUR, "prior": PRIOR, "clock": clock}
    whole = PosteriorHistory.from_counts(counts, **settings)
    starts = block_starts(np.bincount(whole.item, minlength=33), most=most)
    stops = [*starts[1:], 33]

    def block(number: int) -> PosteriorHistory:
        inside = (whole.item >= starts[number]) & (whole.item < stops[number])
        return PosteriorHistory.from_table(whole.table().filter(pa.array(inside)), **settings)

    rows, times, own = rng.integers(0, 33, 300), rng.integers(-HOUR, 60 * HOUR, 300), rng.random(300) < 0.1
    own &= np.isin(rows, item[click])
    found = PosteriorBlocks(starts, block).as_of(rows, times, own=own)
    for name, expected in whole.as_of(rows, times, own=own).columns().items():
        assert getattr(found, name).tolist() == expected.tolist(), name


@pytest.mark.parametrize("entries_per_block", [1, 50, 10_000])
def test_counts_of_item_partitions_become_the_history_by_rows_of_the_catalogue(
    entries_per_block: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    ids = np.array([f"item {row}" for row in range(30)])
    item, time, click = rng.integers(0, 25, 400), rng.integers(0, 40 * HOUR, 400), rng.random(400) < 0.3
    partition, code = rng.integers(0, 3, 30), rng.permutation(30)  # codes of a partition follow no order
    buckets = []
    for number in range(3):
        inside = partition[item] == number
        counts = count_buckets(code[item[inside]], time[inside], click[inside], bucket_ms=HOUR)
        buckets.append(counts.table(pa.array(ids[np.argsort(code)])))
    data = DataConfig.model_validate({"events": {"path": "log.csv"}, "items": {"path": "items.csv"}})
    scratch, between = Scratch(str(tmp_path / "scratch")), tmp_path / "between"
    scratch.storage.make()
    between.mkdir()
    write_history(
        scratch, iter(buckets), item_ids=pa.array(ids), data=data, prior=PRIOR, folder=between,
        entries_per_block=entries_per_block,
    )  # fmt: skip
    assert not list(between.iterdir())

    expected = PosteriorHistory.from_counts(
        count_buckets(item, time, click, bucket_ms=HOUR), bucket_ms=HOUR, delay_ms=HOUR, prior=PRIOR
    )
    assert pa.concat_tables(history_tables(scratch)).equals(expected.table())
    assert whole_history(scratch, data=data, prior=PRIOR).table().equals(expected.table())
    rows, times = rng.integers(0, 30, 200), rng.integers(0, 50 * HOUR, 200)
    found = read_history(scratch, data=data, prior=PRIOR).as_of(rows, times)
    assert found.stacked().tolist() == expected.as_of(rows, times).stacked().tolist()
