"""Writes and reads the posterior history in the scratch folder: a table per block of items, to bound memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.exchange import Scratch
from recall.config.data import DataConfig
from recall.core.arrays import Float32s
from recall.core.ordering import order_of
from recall.data.compaction import Base
from recall.data.event_counts import BucketCounts
from recall.data.fresh_evidence import COLUMNS, Feed, FreshEvidence
from recall.data.posterior import PosteriorHistory, Prior
from recall.data.posterior_blocks import PosteriorBlocks, block_starts

_BLOCKS, _STARTS, _BASE = "history", "history_starts", "history_base"
_ENTRIES_PER_BLOCK = 1 << 20  # 36 MB


class _Settings(TypedDict):
    bucket_ms: int
    delay_ms: int
    prior: Prior
    clock: bool


def write_history(
    scratch: Scratch,
    buckets: Iterable[pa.Table],
    *,
    item_ids: pa.StringArray,
    data: DataConfig,
    prior: Prior,
    folder: Path,
    entries_per_block: int = _ENTRIES_PER_BLOCK,
) -> None:
    """Join the counts of all item partitions, by rows of the catalogue.

    Args:
      scratch: folder of the blocks.
      buckets: counts per item and bucket, a table per item partition, as `CountBuckets` leaves them.
      item_ids: string [items], the catalogue.
      data: settings of buckets, delay and clock.
      prior: prior of the smoothed CTR.
      folder: local folder for temporary files.
      entries_per_block: largest number of entries, see `block_starts`.
    """
    with tempfile.TemporaryDirectory(dir=folder) as between:
        parts, entries = Scratch(between), np.zeros(len(item_ids), np.int64)
        histories = (_history_of(table, item_ids=item_ids, data=data, prior=prior) for table in buckets)
        for partition, history in enumerate(histories):
            entries += np.bincount(history.item, minlength=len(item_ids))
            parts.write("part", partition, history.table())
        starts = block_starts(entries, most=entries_per_block)
        for block, (start, stop) in enumerate(zip(starts, [*starts[1:], len(item_ids)], strict=True)):
            scratch.write(_BLOCKS, block, _items_of(parts, start, stop))
    scratch.write(_STARTS, 0, pa.table({"row": starts}))


def read_history(scratch: Scratch, *, data: DataConfig, prior: Prior) -> PosteriorBlocks:
    """Open the history that `write_history` wrote."""

    def read(block: int) -> PosteriorHistory:
        return _with_settings(scratch.read(_BLOCKS, block), data=data, prior=prior)

    return PosteriorBlocks(scratch.read(_STARTS)["row"].to_numpy(), read)


def write_base(scratch: Scratch, base: Base) -> None:
    """Write what compacted entries of the history were made of."""
    scratch.write(_BASE, 0, base.table())


def read_base(scratch: Scratch) -> Base | None:
    """Read what `write_base` wrote; None where nothing is compacted."""
    return Base.from_table(scratch.read(_BASE)) if scratch.exists(_BASE, 0) else None


def history_tables(scratch: Scratch) -> Iterator[pa.Table]:
    """Iterate over the entries of the history, by item and bucket, a block at a time: `BUCKET_SCHEMA`."""
    return (scratch.read(_BLOCKS, block) for block in range(len(scratch.read(_STARTS))))


def fresh_snapshots(
    scratch: Scratch, *, data: DataConfig, moments_ms: Mapping[str, int], prior: Prior, items: int
) -> dict[str, Float32s]:
    """Look up the fresh evidence of every item at some moments, block by block.

    Args:
      scratch: holds the history that `write_history` wrote.
      data: settings of buckets, delay and half-lives.
      moments_ms: the moments by name. At each all buckets that closed before it are known, whatever the delay: the
        evidence is what an example one delay later sees. At `serving`, when the log has ended, its last bucket is over.
      prior: prior of the smoothed CTR.
      items: size of the catalogue.

    Returns:
      float32 [items, 3 * half-lives] by name of the moment; empty without half-lives.
    """
    if not data.half_lives_ms:
        return {}
    bucket_ms, half_lives_ms = data.posterior.bucket, data.half_lives_ms
    ended = {name: moment // bucket_ms * bucket_ms for name, moment in moments_ms.items()}
    if "serving" in ended:
        ended["serving"] += bucket_ms
    blocks = read_history(scratch, data=data, prior=prior)
    parts = (blocks.read(block).entries() for block in range(len(blocks.starts)))
    base = read_base(scratch)
    feed = Feed.of(parts, bucket_ms=bucket_ms, half_lives_ms=half_lives_ms, base=base)
    result = {name: np.zeros((items, len(COLUMNS) * len(half_lives_ms)), np.float32) for name in moments_ms}
    for block, (start, stop) in enumerate(zip(blocks.starts, [*blocks.starts[1:], items], strict=True)):
        history, rows = blocks.read(block), np.arange(start, stop)
        entries = history.entries()
        evidence = FreshEvidence.of(entries, bucket_ms=bucket_ms, half_lives_ms=half_lives_ms, feed=feed, base=base)
        for name, moment_ms in ended.items():
            times_ms = np.full(len(rows), moment_ms + data.posterior.delay)
            position, known = history.visible(rows, times_ms)
            result[name][start:stop] = evidence.as_of(
                position, known, entries.bucket, times_ms, delay_ms=data.posterior.delay
            )
    return result


def whole_history(scratch: Scratch, *, data: DataConfig, prior: Prior) -> PosteriorHistory:
    """Read the whole history into memory, for computations over all moments of the log."""
    return _with_settings(pa.concat_tables(history_tables(scratch)), data=data, prior=prior)


def _history_of(table: pa.Table, *, item_ids: pa.StringArray, data: DataConfig, prior: Prior) -> PosteriorHistory:
    ids = table["item"].combine_chunks()
    rows = pc.index_in(ids.dictionary, value_set=item_ids).to_numpy()[ids.indices.to_numpy()]
    return PosteriorHistory.from_counts(BucketCounts.from_tables([table], item=rows), **_settings(data, prior))


def _with_settings(table: pa.Table, *, data: DataConfig, prior: Prior) -> PosteriorHistory:
    return PosteriorHistory.from_table(table, **_settings(data, prior))


def _settings(data: DataConfig, prior: Prior) -> _Settings:
    return {
        "bucket_ms": data.posterior.bucket,
        "delay_ms": data.posterior.delay,
        "prior": prior,
        "clock": data.events.time_unit != "order",
    }


def rows_between(parts: Iterable[pa.Table], start: int, stop: int) -> pa.Table:
    """Collect the entries of some rows of the catalogue from parts that are each sorted by row (`item`)."""
    slices = []
    for part in parts:
        first, last = np.searchsorted(part["item"].to_numpy(), [start, stop])
        slices.append(part.slice(first, last - first))
    return pa.concat_tables(slices).combine_chunks()


def _items_of(parts: Scratch, start: int, stop: int) -> pa.Table:
    """Collect and sort the entries of some rows; an item's entries all come from one part."""
    entries = rows_between(parts.each("part"), start, stop)
    return entries.take(pa.array(order_of(entries["item"].to_numpy())))
