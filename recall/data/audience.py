"""Looks up the audience of an item at a moment: what the users who clicked it lately had clicked just before.

An audience needs no training of the item's own id, so that it speaks for items that were published after the training
as soon as somebody clicked them. (The nearest published idea is the Item History Model, Meta, KDD 2024.)
`recall.model.towers.audience` makes a vector of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from recall.core.arrays import AnyInts, Float32s, Int32s, Int64s
from recall.core.ordering import order_of
from recall.data.posterior import Posterior

NOBODY = -1
"""Fills the sources of an item with fewer than were asked for."""

TOKENS = "tokens.npy"
"""Float32 [items, dim], tokens of the catalogue, in the directory of a model that reads audiences."""

AUDIENCE_SCHEMA = pa.schema([("item", pa.int32()), ("bucket", pa.int64()), ("source", pa.int32())])


@dataclass(frozen=True)
class AudienceHistory:
    """Hold the clicks that followed another click of their user, by item and in order of time.

    A click becomes known as an event of the posterior does: its bucket closed `delay_ms` before the moment.

    Attributes:
      item: int32 [clicks], rows of the catalogue, rising.
      bucket: int64 [clicks], rising within an item.
      source: int32 [clicks], row of the item that the user had clicked just before.
      bucket_ms: length of a bucket.
      delay_ms: time until a closed bucket becomes known.
    """

    item: Int32s
    bucket: Int64s
    source: Int32s
    bucket_ms: int
    delay_ms: int

    @classmethod
    def of(cls, item: AnyInts, time_ms: Int64s, source: AnyInts, *, bucket_ms: int, delay_ms: int) -> AudienceHistory:
        """Order clicks by item and time; a click without a source (-1) is left out."""
        chosen = np.flatnonzero(source >= 0)
        order = chosen[np.lexsort((source[chosen], time_ms[chosen], item[chosen]))]
        bucket = time_ms[order] // bucket_ms
        return cls(item[order].astype(np.int32), bucket, source[order].astype(np.int32), bucket_ms, delay_ms)

    @classmethod
    def from_table(cls, table: pa.Table, *, bucket_ms: int, delay_ms: int) -> AudienceHistory:
        """Read the result of `table`."""
        item, bucket, source = (table[name].to_numpy() for name in AUDIENCE_SCHEMA.names)
        return cls(item, bucket, source, bucket_ms, delay_ms)

    def table(self) -> pa.Table:
        """Make a table of the clicks, as `AUDIENCE_SCHEMA`."""
        return pa.table([self.item, self.bucket, self.source], schema=AUDIENCE_SCHEMA)

    def as_of(self, rows: AnyInts, times_ms: Int64s, *, last: int) -> Int32s:
        """Look up the sources of the last visible clicks of items at moments.

        Args:
          rows: int [n], rows of the catalogue.
          times_ms: int64 [n].
          last: sources at most.

        Returns:
          int32 [n, last], the latest first, `NOBODY` after the end.
        """
        if not len(self.source):
            return np.full((len(rows), last), NOBODY, np.int32)
        buckets, keys = self.lookup
        visible = np.searchsorted(buckets, (times_ms - self.delay_ms) // self.bucket_ms)
        sought = rows.astype(np.int64) * (len(buckets) + 1)
        order = order_of(sought + visible)  # neighbours find what they need where the processor has just looked
        first, end = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        first[order] = np.searchsorted(keys, sought[order])
        end[order] = np.searchsorted(keys, (sought + visible)[order])
        places = end[:, np.newaxis] - 1 - np.arange(last)
        found = self.source[np.maximum(places, 0)]
        return np.where(places >= first[:, np.newaxis], found, np.int32(NOBODY))

    @cached_property
    def lookup(self) -> tuple[Int64s, Int64s]:
        """Return the distinct buckets, and a rising key per click made of item and rank of the bucket."""
        buckets = np.unique(self.bucket)
        return buckets, self.item.astype(np.int64) * (len(buckets) + 1) + np.searchsorted(buckets, self.bucket)


def audience_columns(tokens: Float32s, sources: Int32s, *, block: int = 8192) -> Float32s:
    """Average the tokens of audiences, as `recall.model.towers.audience.Audience.of` does inside the graph.

    Args:
      tokens: float32 [catalogue, dim], `RecallModel.item_tokens` of every item.
      sources: int32 [n, last], of `AudienceHistory.as_of`.
      block: rows that are gathered at once.

    Returns:
      float32 [n, dim + 1]: mean of the sources' tokens, 0 without any, and the number of sources.
    """
    result = np.zeros((len(sources), tokens.shape[1] + 1), np.float32)
    for start in range(0, len(sources), block):
        part = sources[start : start + block]
        is_there = part >= 0
        sizes = is_there.sum(axis=1)
        some = np.flatnonzero(sizes)
        if not len(some):
            continue
        sums = np.add.reduceat(tokens[part[is_there]], (np.cumsum(sizes) - sizes)[some], axis=0)
        result[start + some, :-1] = sums / sizes[some, np.newaxis]
        result[start : start + block, -1] = sizes
    return result


def posterior_columns(posterior: Posterior | Float32s, *, tokens: Float32s | None) -> Float32s:
    """Return a posterior as the item side reads it: the numbers, and behind them the audiences, if it reads audiences.

    Args:
      posterior: a posterior; or the result itself.
      tokens: float32 [catalogue, dim], of `audience_tokens`; None where the model reads no audiences.

    Returns:
      float32 [items, posterior width].

    Raises:
      ValueError: the model reads audiences, and the posterior has none.
    """
    if not isinstance(posterior, Posterior):
        return posterior
    if tokens is None:
        return posterior.stacked()
    if posterior.sources is None:
        raise ValueError(
            "posterior: found no sources, but the model reads audiences; take prepared.posterior(moment), or add "
            "sources=prepared.audience_history.as_of(...)"
        )
    return np.concatenate([posterior.stacked(), audience_columns(tokens, posterior.sources)], axis=1)
