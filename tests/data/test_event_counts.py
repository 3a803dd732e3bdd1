"""Counts per item and bucket, against plain sums."""

from __future__ import annotations

import numpy as np
import pytest

from recall.data.event_counts import BucketCounts, count_buckets

HOUR = 3_600_000


def test_parts_of_a_log_aggregate_to_the_whole() -> None:
    rng = np.random.default_rng(2)
    item, time, click = rng.integers(0, 5, 200), rng.integers(0, 9 * HOUR, 200), rng.random(200) < 0.5
    whole = count_buckets(item, time, click, bucket_ms=HOUR)
    parts = [
        count_buckets(item[part], time[part], click[part], bucket_ms=HOUR).table()
        for part in np.array_split(rng.permutation(200), 3)
    ]
    assert BucketCounts.from_tables(parts).aggregated().table().equals(whole.table())


@pytest.mark.parametrize("buckets", [3, 10_000], ids=["by a table", "by sorting"])
def test_counts_add_up_per_item_and_bucket(buckets: int) -> None:
    generator = np.random.default_rng(5)
    item, bucket = generator.integers(0, 40, 500), generator.integers(-buckets // 2, buckets // 2, 500)
    clicks, first = generator.integers(0, 2, 500), generator.integers(0, 10**12, 500)
    found = BucketCounts(item, bucket, np.ones(500, np.int64), clicks, first).aggregated()
    expected: dict[tuple[int, int], list[int]] = {}
    for row in zip(item.tolist(), bucket.tolist(), clicks.tolist(), first.tolist(), strict=True):
        total = expected.setdefault(row[:2], [0, 0, row[3]])
        expected[row[:2]] = [total[0] + 1, total[1] + row[2], min(total[2], row[3])]
    rows = [column.tolist() for column in found]
    assert list(zip(rows[0], rows[1], strict=True)) == sorted(expected)
    assert [list(counts) for counts in zip(*rows[2:], strict=True)] == [expected[key] for key in sorted(expected)]
