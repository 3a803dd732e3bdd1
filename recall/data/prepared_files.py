"""Writes and reads the tables of DIR/data: each file has its one writer and its one reader here.

`pipelines` writes the shards of examples beside them; `prepared.py` opens the whole directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recall.core.arrays import Int64s
from recall.core.parquet import write_parts
from recall.data.audience import AUDIENCE_SCHEMA
from recall.data.compaction import Base
from recall.data.content_prior.prior import ContentPrior
from recall.data.event_counts import BUCKET_SCHEMA
from recall.data.features.table_encoder import TableEncoder
from recall.data.features.vocabulary import Vocabulary
from recall.data.posterior import COLUMNS, Posterior

ITEMS, USERS = "items.parquet", "users.parquet"
ATTRIBUTES = "attributes.parquet"
ITEM_VOCABULARIES, USER_VOCABULARIES = "vocabularies/item", "vocabularies/user"
POSTERIORS = {
    "serving": "posterior.parquet",
    "validation": "posterior_validation.parquet",
    "test": "posterior_test.parquet",
}
POSTERIOR_BUCKETS = "posterior_buckets.parquet"
POSTERIOR_BASE = "posterior_base.parquet"
AUDIENCE = "audience.parquet"
SAMPLING_COUNTS = "sampling.parquet"
HISTORIES = "histories.parquet"
REJECTED = "rejected.parquet"
ITEM_PRIORS = "item_priors.parquet"
CONTENT_PRIOR = "content_prior"
SHARD_ENDING = ".tfrecord"
REFIT = "refit"
"""Names the shards with the held-out clicks as training examples."""

ITEM_ID, USER_ID, TITLE = "item_id", "user_id", "title"
_FEATURE = "feature."  # in front of encoded columns: a feature, too, may be called item_id
_ATTRIBUTE = "attribute."
_FRESH, _SOURCES = "fresh", "sources"
_COUNT, _COUNT_OF_ALL = "count", "count_of_all"


class EncodedRows(NamedTuple):
    """Hold items or users as the towers read them.

    Attributes:
      ids: string [rows].
      table: encoded columns.
      encoder: the encoder of these columns.
      titles: string [rows] for people, where the catalogue has some.
      attributes: columns of items that filters and caps of served lists may name; see `item_attributes.py`.
    """

    ids: pa.StringArray
    table: pa.Table
    encoder: TableEncoder
    titles: pa.Array | None = None
    attributes: pa.Table | None = None


def shard_path(directory: Path, name: str, *, shard: int, shards: int) -> Path:
    """Name the place of a TFRecord shard of a split or of `REFIT`, e.g. train-00000-of-00004.tfrecord."""
    return directory / f"{name}-{shard:05d}-of-{shards:05d}{SHARD_ENDING}"


def further_history(name: str) -> str:
    """Name the file of a further history, relative to the directory."""
    return f"histories/{name}.parquet"


def history_vocabulary(name: str) -> str:
    """Name the file with the ids of a further history of its own domain, relative to the directory."""
    return f"vocabularies/history.{name}.parquet"


def write_tables(
    directory: Path,
    *,
    items: EncodedRows,
    users: EncodedRows,
    history: Iterable[pa.Table],
    snapshots: dict[str, Posterior],
    sampling_counts: Int64s,
    histories: pa.Table,
    further_histories: Mapping[str, pa.Table],
    history_vocabularies: Mapping[str, Vocabulary],
    rejected: pa.Table,
    all_counts: Int64s | None = None,
    content_prior: ContentPrior | None = None,
    audience: Iterable[pa.Table] | None = None,
    base: Base | None = None,
) -> None:
    """Write all files but shards and manifest into a directory that exists.

    Args:
      directory: the place.
      items: the catalogue.
      users: users with a profile or an event.
      history: the posterior history (`BUCKET_SCHEMA`) in parts, by item and bucket.
      snapshots: the posterior of every item at `serving`, `validation` and `test`.
      sampling_counts: int64 [items], training examples of each item.
      histories: clicks of each user at the end of the log.
      further_histories: entries of each user at the end of the log, by name of a further history.
      history_vocabularies: item ids of the further histories of a domain of their own, by name.
      rejected: events that were set aside, with reasons.
      all_counts: int64 [items], `sampling_counts` with the held-out clicks, where what is served learns from them.
      content_prior: prior CTRs from content, where the experiment asks for them.
      audience: the clicks of audiences (`AUDIENCE_SCHEMA`) in parts, by item and time, where it asks for audiences.
      base: what the oldest entries of the history were made of, where they are compacted.
    """
    _write_rows(directory, items, table=ITEMS, id_column=ITEM_ID, vocabularies=ITEM_VOCABULARIES)
    _write_rows(directory, users, table=USERS, id_column=USER_ID, vocabularies=USER_VOCABULARIES)
    for name, posterior in snapshots.items():
        _write(directory / POSTERIORS[name], _posterior_columns(items.ids, posterior))
    write_parts(directory / POSTERIOR_BUCKETS, history, BUCKET_SCHEMA)
    if base is not None:
        pq.write_table(base.table(), directory / POSTERIOR_BASE)
    if audience is not None:
        write_parts(directory / AUDIENCE, audience, AUDIENCE_SCHEMA)
    in_all = {} if all_counts is None else {_COUNT_OF_ALL: all_counts}
    _write(directory / SAMPLING_COUNTS, {ITEM_ID: items.ids, _COUNT: sampling_counts, **in_all})
    pq.write_table(histories, directory / HISTORIES)
    for name, table in further_histories.items():
        path = directory / further_history(name)
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, path)
    for name, vocabulary in history_vocabularies.items():
        vocabulary.save(directory / history_vocabulary(name))
    pq.write_table(rejected, directory / REJECTED)
    if content_prior and content_prior.items and content_prior.serving:
        pq.write_table(content_prior.items.table(), directory / ITEM_PRIORS)
        content_prior.serving.save(directory / CONTENT_PRIOR)


def _write_rows(directory: Path, rows: EncodedRows, *, table: str, id_column: str, vocabularies: str) -> None:
    """Write the encoded rows, their attributes and their encoder."""
    titles = {} if rows.titles is None else {TITLE: rows.titles}
    columns = zip(rows.table.column_names, rows.table.columns, strict=True)
    features = {_FEATURE + name: _storable(column) for name, column in columns}
    _write(directory / table, {id_column: rows.ids} | titles | features)
    if rows.attributes is not None:
        named = {_ATTRIBUTE + name: rows.attributes[name] for name in rows.attributes.column_names}
        _write(directory / ATTRIBUTES, {id_column: rows.ids} | named)
    rows.encoder.save(directory / vocabularies)


def read_column(path: Path, name: str) -> pa.Array:
    """Read one column of `ITEMS` or `USERS`: ids or titles."""
    return flat(pq.read_table(path, columns=[name])[name])


def read_titles(path: Path) -> pa.Array | None:
    """Read the titles of `ITEMS`, string [items]; None if it has none."""
    return read_column(path, TITLE) if TITLE in pq.read_schema(path).names else None


def read_features(path: Path, names: list[str]) -> pa.Table:
    """Read encoded columns of `ITEMS` or `USERS`; vectors are list<float32>, null where missing."""
    return pq.read_table(path, columns=[_FEATURE + name for name in names]).rename_columns(names)


def read_attributes(path: Path) -> pa.Table:
    """Read `ATTRIBUTES`, one column an attribute."""
    table = pq.read_table(path).drop_columns([ITEM_ID])
    return table.rename_columns([name.removeprefix(_ATTRIBUTE) for name in table.column_names])


def read_posterior(path: Path) -> Posterior:
    """Read one of `POSTERIORS`."""
    table = pq.read_table(path)
    columns = {name: table[name].to_numpy() for name in COLUMNS}
    lists = {name: flat(table[name]) for name in (_FRESH, _SOURCES) if name in table.column_names}
    return Posterior(
        **columns, **{name: array.flatten().to_numpy().reshape(len(table), -1) for name, array in lists.items()}
    )


def _posterior_columns(ids: pa.StringArray, posterior: Posterior) -> dict[str, Any]:
    """Return the columns of `POSTERIORS`: fresh evidence and audience are a list of each item."""
    columns: dict[str, Any] = {ITEM_ID: ids, **posterior.columns()}
    for name, values in {_FRESH: posterior.fresh, _SOURCES: posterior.sources}.items():
        if values is not None:
            offsets = pa.array(np.arange(len(ids) + 1, dtype=np.int64) * values.shape[1])
            columns[name] = pa.LargeListArray.from_arrays(offsets, pa.array(values.ravel()))
    return columns


def read_sampling_counts(path: Path, *, of_all: bool = False) -> Int64s:
    """Read `SAMPLING_COUNTS`, int64 [items]; `of_all` with the held-out clicks."""
    name = _COUNT_OF_ALL if of_all else _COUNT
    return pq.read_table(path, columns=[name])[name].to_numpy()


def flat(column: pa.ChunkedArray) -> pa.Array:
    """Give a column as one array, without a copy where it has one chunk."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _storable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn vectors into lists of any length: Parquet keeps no values of a null, and pyarrow then fails to read them."""
    if not pa.types.is_fixed_size_list(column.type):
        return column
    return column.cast(pa.list_(column.type.value_type))


def _write(path: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), path)
