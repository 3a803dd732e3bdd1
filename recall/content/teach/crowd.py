"""Lists pairs of items that users clicked one after the other in the training period."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from recall.core.arrays import Bools, Float32s, Int32s, Int64s
from recall.data.prepared import PreparedData
from recall.model.batches.dataset import read_examples

_BATCH = 8192


class ClickPairs(NamedTuple):
    """Hold pairs of items of one user, the second clicked after the first.

    Attributes:
      before: int32 [pairs], item rows.
      after: int32 [pairs], item rows, never the same item.
    """

    before: Int32s
    after: Int32s

    def log_frequency(self, items: int) -> Float32s:
        """Compute the log of the share of pairs that an item is second in, at least of one pair; float32 [items]."""
        counts = np.bincount(self.after, minlength=items)
        return np.log(np.maximum(counts, 1) / max(1, len(self.after))).astype(np.float32)


def click_pairs(prepared: PreparedData, present: Bools, *, window: int) -> ClickPairs:
    """Pair every training click with each of the `window` clicks before it, of either layout of the records.

    Point in time: the later one is a training click, and the earlier ones were clicked strictly before it.

    Args:
      prepared: the run's data.
      present: bool [items]; pairs with an item that has no vector are left out.
      window: number of clicks before.
    """
    by_user = prepared.manifest["layout"] == "user"
    before, after = (_of_users if by_user else _of_clicks)(prepared, window)
    kept = (before != after) & present[before] & present[after]
    return ClickPairs(before[kept], after[kept])


def _of_clicks(prepared: PreparedData, window: int) -> ClickPairs:
    examples = read_examples(prepared.shards("train"))
    return _pairs_at(
        examples.history.values, examples.history.offsets[:-1], examples.history.offsets[1:], examples.targets, window
    )


def _of_users(prepared: PreparedData, window: int) -> ClickPairs:
    lists = {name: tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64) for name in ("items", "split", "time_ms")}
    found = [ClickPairs(np.zeros(0, np.int32), np.zeros(0, np.int32))]
    records = tf.data.TFRecordDataset([str(path) for path in prepared.shards("train")])
    for serialized in records.batch(_BATCH):
        parsed = tf.io.parse_example(serialized, lists)
        items, split, times_ms = (parsed[name].flat_values.numpy() for name in ("items", "split", "time_ms"))
        rows, starts = parsed["items"].value_rowids().numpy(), parsed["items"].row_starts().numpy()
        place = np.arange(len(items))
        # Clicks of one moment have the same past: it ends where the first of them stands.
        is_first = np.r_[True, (rows[1:] != rows[:-1]) | (times_ms[1:] != times_ms[:-1])][: len(items)]
        ends = np.maximum.accumulate(np.where(is_first, place, 0))
        chosen = split == 0
        found.append(
            _pairs_at(
                items.astype(np.int32), starts[rows][chosen], ends[chosen], items[chosen].astype(np.int32), window
            )
        )
    return ClickPairs(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _pairs_at(
    values: Int32s,
    starts: Int64s,
    ends: Int64s,
    targets: Int32s,
    window: int,
) -> ClickPairs:
    """Pair each target with the last entries of `values[start:end]`."""
    places = ends[:, np.newaxis] - 1 - np.arange(window)  # [targets, window]
    is_real = places >= starts[:, np.newaxis]
    return ClickPairs(values[places[is_real]], np.repeat(targets, is_real.sum(axis=1)))
