"""Finds the items and users that nobody saw for long, whose ids give their rows back: `data.retire_after`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.exchange import Scratch
from pipelines.posterior_blocks import read_base
from recall.config.data import DataConfig
from recall.core.arrays import Bools
from recall.data.features.table_encoder import TableEncoder
from recall.data.features.vocabulary import FIRST_CODE
from recall.data.prepared_files import flat
from recall.data.settled import ITEM_SCHEMA, Settled, keeps_state

_NEVER = 0


class Gone(NamedTuple):
    """Say since when nobody saw an item, or heard of a user.

    Attributes:
      items: bool [items], not exposed since then.
      user_ids: string [users], users with a click.
      users: bool [users], without a click since then.
    """

    items: Bools
    user_ids: pa.StringArray
    users: Bools

    def users_among(self, ids: pa.StringArray) -> Bools:
        """Mark the users of a list that are gone, bool [ids]; one without any click is."""
        places = pc.index_in(ids, value_set=self.user_ids).fill_null(-1).to_numpy()
        return np.append(self.users, True)[places]


def find_gone(
    scratch: Scratch, data: DataConfig, *, item_ids: pa.StringArray, end_ms: int, settled: Settled | None
) -> Gone | None:
    """Write `last_exposures` for the state of this run, and find who is gone, where `data.retire_after` asks for it."""
    if not keeps_state(data):
        return None
    seen = last_exposures(scratch, settled, item_ids=item_ids, bucket_ms=data.posterior.bucket)
    scratch.write("last_exposures", 0, seen)
    if data.retire_after is None:
        return None
    return gone_since(scratch, seen, moment_ms=end_ms - data.retire_after)


def last_exposures(scratch: Scratch, settled: Settled | None, *, item_ids: pa.StringArray, bucket_ms: int) -> pa.Table:
    """Find the end of the last bucket in which each item was exposed: `ITEM_SCHEMA`, 0 where it never was.

    Args:
      scratch: holds `buckets`. Of compacted entries the bucket is not the item's last one; what is settled knows that.
      settled: of the earlier run.
      item_ids: string [items], the catalogue.
      bucket_ms: length of a bucket.
    """
    last_ms = np.full(len(item_ids), _NEVER, np.int64)
    if settled is not None:
        before, rows = settled.last_exposures(), settled.rows_in(item_ids)
        last_ms[rows[rows >= 0]] = before[rows >= 0]
    base = read_base(scratch)
    for table in scratch.each("buckets"):
        items = table["item"].combine_chunks()
        rows = pc.index_in(items.dictionary, value_set=item_ids).to_numpy()[items.indices.to_numpy()]
        bucket = table["bucket"].to_numpy()
        own = bucket > base.bucket if base else np.ones(len(bucket), bool)
        np.maximum.at(last_ms, rows[own], (bucket[own] + 1) * bucket_ms - 1)
    return pa.table([item_ids, last_ms], schema=ITEM_SCHEMA)


def gone_since(scratch: Scratch, items: pa.Table, *, moment_ms: int) -> Gone:
    """Mark what nobody saw since a moment.

    Args:
      scratch: holds `histories` by user partition.
      items: of `last_exposures`.
      moment_ms: see above.
    """
    ids, last = [pa.array([], pa.string())], [np.zeros(0, np.int64)]
    for table in scratch.each("histories"):
        times = flat(table["recent_time_ms"])
        ends = times.offsets.to_numpy()[1:]
        ids.append(table["user_id"].combine_chunks())
        last.append(np.append(times.values.to_numpy(), _NEVER)[ends - 1])
    return Gone(items["last_ms"].to_numpy() < moment_ms, pa.concat_arrays(ids), np.concatenate(last) < moment_ms)


def reused_codes(before: TableEncoder, after: TableEncoder) -> Mapping[str, Any]:
    """List the codes that stood for nothing and stand for a value now, by feature; see `PreparedData.reused_codes`."""
    found = {}
    for name, vocabulary in before.vocabularies.items():
        was_free = vocabulary.is_retired
        is_free = after.vocabularies[name].is_retired[: len(was_free)]
        if codes := (np.flatnonzero(was_free & ~is_free) + FIRST_CODE).tolist():
            found[name] = codes
    return found
