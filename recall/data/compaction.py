"""Holds what compacted counts were made of, so that a log that never ends is kept in tables that do not grow with it.

Of each item the buckets before a moment become one entry, with their totals. Lookups after that moment read totals as
before. Counts that decay cannot be told from a total: `Base` holds them beside it, as of the end of the entry's bucket.
`posterior.py` -> `PosteriorHistory.compacted` makes both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from recall.core.arrays import AnyInts, Float64s, Int64s

_DECAYED = pa.list_(pa.float64())
BASE_SCHEMA = pa.schema([("item", pa.int32()), ("exposures", _DECAYED), ("clicks", _DECAYED)])
_BUCKET, _HALF_LIVES = b"bucket", b"half_lives_ms"


class Base(NamedTuple):
    """Hold decayed counts of compacted items, as of the end of one bucket.

    Attributes:
      bucket: the bucket of the compacted entries; no other entry of their table lies in it or before.
      half_lives_ms: of the decays.
      item: int64 [items], rows of the catalogue, rising.
      exposures: float64 [items, half-lives].
      clicks: float64 [items, half-lives].
    """

    bucket: int
    half_lives_ms: tuple[int, ...]
    item: Int64s
    exposures: Float64s
    clicks: Float64s

    def started(self, counts: AnyInts, item: AnyInts, bucket: Int64s, *, name: str, half_life_ms: int) -> Float64s:
        """Replace the totals of compacted entries by what has decayed of them.

        Args:
          counts: int [entries], of the bucket of each entry alone.
          item: int [entries].
          bucket: int64 [entries].
          name: `exposures` or `clicks`.
          half_life_ms: one of `half_lives_ms`.

        Returns:
          float64 [entries].
        """
        result = counts.astype(np.float64)
        places = np.flatnonzero(bucket == self.bucket)
        result[places] = self.of_items(name, half_life_ms)[np.searchsorted(self.item, item[places])]
        return result

    def of_items(self, name: str, half_life_ms: int) -> Float64s:
        """Return the decayed `exposures` or `clicks` of the items, float64 [items]."""
        values: Float64s = getattr(self, name)
        return values[:, self.half_lives_ms.index(half_life_ms)]

    def of_feed(self, counts: Float64s, buckets: Int64s, half_life_ms: int) -> Float64s:
        """Replace the clicks of all compacted entries, in float64 [buckets], by what has decayed of them."""
        return np.where(buckets == self.bucket, self.of_items("clicks", half_life_ms).sum(), counts)

    def remapped(self, rows: Int64s) -> Base:
        """Return the items by their rows in another catalogue, int64 [items]; those with -1 are left out."""
        item = rows[self.item]
        order = np.argsort(item, kind="stable")
        order = order[item[order] >= 0]
        return self._replace(item=item[order], exposures=self.exposures[order], clicks=self.clicks[order])

    def table(self) -> pa.Table:
        """Make a table of the items, as `BASE_SCHEMA`; the rest is in its metadata."""
        lists = [_lists(values) for values in (self.exposures, self.clicks)]
        about = {_BUCKET: str(self.bucket), _HALF_LIVES: " ".join(map(str, self.half_lives_ms))}
        return pa.table([self.item.astype(np.int32), *lists], schema=BASE_SCHEMA.with_metadata(about))

    @classmethod
    def from_table(cls, table: pa.Table) -> Base:
        """Read the result of `table`."""
        about = table.schema.metadata
        half_lives = tuple(int(text) for text in about[_HALF_LIVES].split())
        exposures, clicks = (
            table[name].combine_chunks().flatten().to_numpy().reshape(len(table), len(half_lives))
            for name in ("exposures", "clicks")
        )
        return cls(int(about[_BUCKET]), half_lives, table["item"].to_numpy().astype(np.int64), exposures, clicks)


def _lists(values: Float64s) -> pa.ListArray:
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))


def joined_half_lives(*given: Sequence[int]) -> tuple[int, ...]:
    """Return all half-lives, each once, rising."""
    return tuple(sorted({half_life for half_lives in given for half_life in half_lives}))
