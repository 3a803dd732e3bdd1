"""Counts events per item and time bucket; counts of parts of a log add up to the counts of the log.

`posterior.py` looks up what was known at a moment from them; `item_totals.py` adds them up by split.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recall.core.arrays import AnyInts, Bools, Int64s
from recall.core.ordering import order_of
from recall.data.splits import TRAIN

NEVER_MS = np.iinfo(np.int64).max
BUCKET_SCHEMA = pa.schema(
    [
        ("item", pa.int32()),
        ("bucket", pa.int64()),
        ("exposures", pa.int64()),
        ("clicks", pa.int64()),
        ("first_time_ms", pa.int64()),
    ]
)


class BucketCounts(NamedTuple):
    """Hold events per item and time bucket; parts of a log concatenate, and aggregate to the counts of the log.

    Attributes:
      item: int [n], any code of an item.
      bucket: int64 [n], floor(time_ms / bucket_ms).
      exposures: int64 [n], clicks included.
      clicks: int64 [n].
      first_time_ms: int64 [n], of the earliest event.
    """

    item: AnyInts
    bucket: Int64s
    exposures: Int64s
    clicks: Int64s
    first_time_ms: Int64s

    @classmethod
    def from_tables(cls, tables: Iterable[pa.Table], item: AnyInts | None = None) -> BucketCounts:
        """Join the tables of parts of a log; `item`, int [n], replaces their item columns."""
        whole = pa.concat_tables([*tables]) if (tables := list(tables)) else BUCKET_SCHEMA.empty_table()
        columns = [whole[name].to_numpy() for name in BUCKET_SCHEMA.names[1:]]
        return cls(whole["item"].to_numpy() if item is None else item, *columns)

    def table(self, items: pa.StringArray | None = None) -> pa.Table:
        """Make a table as `BUCKET_SCHEMA`; with `items`, whose positions are the codes, a dictionary of these ids."""
        item = pa.array(self.item.astype(np.int32))
        if items is not None:
            item = pa.DictionaryArray.from_arrays(item, items)
        return pa.table(dict(zip(BUCKET_SCHEMA.names, [item, *self[1:]], strict=True)))

    def take(self, positions: Int64s) -> BucketCounts:
        """Select the entries at `positions`."""
        return BucketCounts(
            self.item[positions],
            self.bucket[positions],
            self.exposures[positions],
            self.clicks[positions],
            self.first_time_ms[positions],
        )

    def aggregated(self) -> BucketCounts:
        """Merge to one entry per item and bucket, in that order."""
        if not len(self.item):
            return self
        if (dense := self._aggregated_densely()) is not None:
            return dense
        order = order_of(self.item, self.bucket)
        item, bucket = self.item[order], self.bucket[order]
        starts = np.flatnonzero(np.r_[True, (item[1:] != item[:-1]) | (bucket[1:] != bucket[:-1])])
        return BucketCounts(
            item[starts],
            bucket[starts],
            np.add.reduceat(self.exposures[order], starts),
            np.add.reduceat(self.clicks[order], starts),
            np.minimum.reduceat(self.first_time_ms[order], starts),
        )

    def _aggregated_densely(self) -> BucketCounts | None:
        """Merge in a table with a cell for each item and bucket; None if it would outgrow the entries."""
        first, last = int(self.bucket.min()), int(self.bucket.max())
        shape = int(self.item.max()) + 1, last - first + 1
        size = shape[0] * shape[1]
        if size > len(self.item):
            return None
        cell = self.item.astype(np.int64) * shape[1] + (self.bucket - first)
        filled = np.flatnonzero(np.bincount(cell, minlength=size))
        # bincount adds in float64, which is exact up to 2^53 events.
        totals = (np.bincount(cell, counts, minlength=size) for counts in (self.exposures, self.clicks))
        exposures, clicks = (total[filled].astype(np.int64) for total in totals)
        earliest = np.full(size, NEVER_MS)
        np.minimum.at(earliest, cell, self.first_time_ms)
        item, bucket = np.divmod(filled, shape[1])
        return BucketCounts(item.astype(self.item.dtype), bucket + first, exposures, clicks, earliest[filled])


def count_buckets(item: AnyInts, time_ms: Int64s, click: Bools, *, bucket_ms: int) -> BucketCounts:
    """Count events per item and bucket.

    Args:
      item: int [events], any code of an item.
      time_ms: int64 [events].
      click: bool [events].
      bucket_ms: length of a bucket.
    """
    if not len(item):
        return BucketCounts(item, *(np.zeros(0, np.int64) for _ in range(4)))
    bucket = time_ms // bucket_ms
    order = order_of(item, bucket)
    item, bucket = item[order], bucket[order]
    starts = np.flatnonzero(np.append(True, (item[1:] != item[:-1]) | (bucket[1:] != bucket[:-1])))
    clicks_before = np.append(0, np.cumsum(click[order]))
    ends = np.append(starts[1:], len(item))
    first_time_ms = np.minimum.reduceat(time_ms[order], starts)
    return BucketCounts(
        item[starts], bucket[starts], ends - starts, clicks_before[ends] - clicks_before[starts], first_time_ms
    )


def count_totals(item: AnyInts, split: npt.NDArray[np.int8], click: Bools) -> BucketCounts:
    """Count training totals per item in a single bucket, for logs without a clock; other items are there with 0."""
    training = split == TRAIN
    zero = np.zeros(len(item), np.int64)
    counts = BucketCounts(item, zero, training.astype(np.int64), (training & click).astype(np.int64), zero)
    return counts.aggregated()
