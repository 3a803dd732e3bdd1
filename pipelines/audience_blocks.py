"""Writes the clicks of audiences, a table per part of the users, and reads them in blocks of items, to bound memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from pipelines.exchange import Scratch
from pipelines.posterior_blocks import rows_between
from recall.config.data import DataConfig
from recall.core.arrays import Int32s
from recall.core.ordering import order_of
from recall.data.audience import NOBODY, AudienceHistory
from recall.data.examples import Clicks
from recall.data.posterior_blocks import block_starts
from recall.data.splits import TRAIN

_CLICKS, _SETTLED = "audience", "settled_audience"
_CLICKS_PER_BLOCK = 1 << 22  # 84 MB


def write_sources(scratch: Scratch, partition: int, clicks: Clicks) -> None:
    """Write the item that led to each click of some users, by row of the clicked item."""
    source = np.where(clicks.split >= TRAIN, clicks.sources(), NOBODY)
    chosen = order_of(clicks.rows)
    chosen = chosen[source[chosen] >= 0]
    columns = {"item": clicks.rows, "time_ms": clicks.time_ms, "source": source}
    scratch.write(_CLICKS, partition, pa.table({name: column[chosen] for name, column in columns.items()}))


def _clicks(scratch: Scratch) -> Iterator[pa.Table]:
    """Iterate over all clicks of audiences, and over what an earlier run has settled of them."""
    return itertools.chain(scratch.each(_CLICKS), scratch.each(_SETTLED))


def audience_blocks(
    scratch: Scratch, *, data: DataConfig, items: int, clicks_per_block: int = _CLICKS_PER_BLOCK
) -> Iterator[tuple[int, int, AudienceHistory]]:
    """Join what `write_sources` wrote, a block of items at a time, to bound memory.

    Args:
      scratch: holds the clicks.
      data: settings of buckets and delay.
      items: size of the catalogue.
      clicks_per_block: largest number of clicks, which the last item of a block may exceed.

    Yields:
      First row, end, and history of each block, rows rising.
    """
    counts = np.zeros(items, np.int64)
    for table in _clicks(scratch):
        counts += np.bincount(table["item"].to_numpy(), minlength=items)
    starts = block_starts(counts, most=clicks_per_block)
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), items], strict=True):
        clicks = rows_between(_clicks(scratch), start, stop)
        item, time_ms, source = (clicks[name].to_numpy() for name in ("item", "time_ms", "source"))
        settings = data.posterior
        yield start, stop, AudienceHistory.of(item, time_ms, source, bucket_ms=settings.bucket, delay_ms=settings.delay)


def audience_snapshots(
    scratch: Scratch, *, data: DataConfig, moments_ms: Mapping[str, int], items: int
) -> dict[str, Int32s]:
    """Look up the audience of every item at some moments, block by block.

    Args:
      scratch: holds the clicks.
      data: settings of buckets, delay and audience.
      moments_ms: the moments by name, as of `fresh_snapshots`: all buckets that closed before one are known.
      items: size of the catalogue.

    Returns:
      int32 [items, audience] by name of the moment; empty without audiences.
    """
    if not data.audience:
        return {}
    result = {name: np.empty((items, data.audience), np.int32) for name in moments_ms}
    for start, stop, history in audience_blocks(scratch, data=data, items=items):
        rows = np.arange(start, stop)
        for name, moment_ms in moments_ms.items():
            ended = moment_ms + data.posterior.delay + (data.posterior.bucket if name == "serving" else 0)
            result[name][start:stop] = history.as_of(rows, np.full(len(rows), ended), last=data.audience)
    return result


def audience_tables(scratch: Scratch, *, data: DataConfig, items: int) -> Iterator[pa.Table]:
    """Iterate over the clicks of audiences, by item and time, a block at a time: `AUDIENCE_SCHEMA`."""
    return (history.table() for _, _, history in audience_blocks(scratch, data=data, items=items))
