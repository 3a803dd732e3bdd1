"""Synthetic prepared data with as many items as wanted: what `recall prepare` leaves, without a log behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.speed.logs import START_MS, zipf
from recall.config.experiment import Config
from recall.core.artifacts import publish
from recall.data.event_counts import BucketCounts
from recall.data.events import REJECTED_SCHEMA
from recall.data.examples import CLICK_SCHEMA, HISTORY_SCHEMA
from recall.data.features.table_encoder import TableEncoder
from recall.data.posterior import Posterior, PosteriorHistory, Prior
from recall.data.prepared import FORMAT_VERSION
from recall.data.prepared_files import EncodedRows, shard_path, write_tables
from recall.data.tfrecords import encode_examples, frame_records

USERS, AUTHORS_SHARE, CATEGORIES, HISTORY = 50_000, 0.05, 500, 20
_HOUR_MS = 3_600_000
_PRIOR = Prior(0.1, 20.0)
_RECORDS_AT_ONCE = 16_384


def write_prepared(directory: Path, config: Config, *, items: int, examples: int) -> None:
    """Writes DIR/data of `items` items, all of which were clicked, and `examples` training clicks with full histories.

    Clicked items follow Zipf's law. A directory that exists is left as it is.
    """
    if directory.exists():
        return
    generator = np.random.default_rng(3)
    numbers = np.arange(items).astype(str)
    item_table = pa.table(
        {
            "item_id": pa.array(np.char.add("i", numbers).astype(object), pa.string()),
            "author_id": _named("a", generator.integers(0, max(int(items * AUTHORS_SHARE), 1), items)),
            "category": _named("c", generator.integers(0, CATEGORIES, items)),
            "duration_s": generator.integers(5, 600, items),
        }
    )
    user_table = pa.table({"user_id": _named("u", np.arange(USERS))})
    clicks = np.ones(items, np.int64)
    features = config.features
    item_encoder = TableEncoder.fit({"behaviour": features.behaviour, "meta": features.meta}, item_table, clicks=clicks)
    user_encoder = TableEncoder.fit({"user": features.user}, user_table, clicks=np.ones(USERS, np.int64))
    exposures = 10 * clicks
    snapshot = Posterior(exposures, clicks, np.full(items, 0.1, np.float32), np.full(items, 24.0, np.float32))
    rows = np.arange(items)
    counts = BucketCounts(rows, np.full(items, START_MS // _HOUR_MS), exposures, clicks, np.full(items, START_MS))
    times = {"bucket_ms": _HOUR_MS, "delay_ms": _HOUR_MS}
    manifest = {
        "format_version": FORMAT_VERSION,
        "fingerprint": "synthetic",
        "layout": "click",
        "time_unit": "ms",
        "shards": 1,
        "counts": {"records": {"train": examples}},
        "split": {"by": "time", "validation_start_ms": START_MS, "test_start_ms": START_MS},
        "posterior": {**times, "prior_ctr": _PRIOR.ctr, "prior_strength": _PRIOR.strength},
        "history": HISTORY,
        "item_id_feature": "item_id",
        "user_id_column": "user_id",
        "examples": {"train": {field.name: str(field.type) for field in CLICK_SCHEMA}},
    }
    directory.parent.mkdir(parents=True, exist_ok=True)
    with publish(directory, manifest=manifest) as folder:
        write_tables(
            folder,
            items=EncodedRows(item_table["item_id"].combine_chunks(), item_encoder.encode(item_table), item_encoder),
            users=EncodedRows(user_table["user_id"].combine_chunks(), user_encoder.encode(user_table), user_encoder),
            history=[PosteriorHistory.from_counts(counts, **times, prior=_PRIOR).table()],
            snapshots=dict.fromkeys(("validation", "test", "serving"), snapshot),
            sampling_counts=clicks,
            histories=HISTORY_SCHEMA.empty_table(),
            further_histories={},
            history_vocabularies={},
            rejected=REJECTED_SCHEMA.empty_table(),
        )
        with shard_path(folder, "train", shard=0, shards=1).open("wb") as file:
            for start in range(0, examples, _RECORDS_AT_ONCE):
                count = min(_RECORDS_AT_ONCE, examples - start)
                file.write(frame_records(encode_examples(_clicks(generator, count, items=items))))


def _clicks(generator: np.random.Generator, count: int, *, items: int) -> pa.Table:
    offsets = pa.array(np.arange(0, (count + 1) * HISTORY, HISTORY, dtype=np.int32))
    history = zipf(generator, count * HISTORY, largest=items)
    time_ms = START_MS + generator.integers(0, 30 * 24 * _HOUR_MS, count)
    ages_ms = np.sort(generator.integers(1, 7 * 24 * _HOUR_MS, (count, HISTORY)), axis=1)[:, ::-1]
    exposures = generator.integers(0, 1000, count)
    clicks = exposures // 10
    columns = {
        "user_id": _named("u", generator.integers(0, USERS, count)),
        "item": zipf(generator, count, largest=items),
        "time_ms": time_ms,
        "history": pa.ListArray.from_arrays(offsets, pa.array(history)),
        "history_time_ms": pa.ListArray.from_arrays(offsets, pa.array((time_ms[:, np.newaxis] - ages_ms).ravel())),
        "trigger": np.full(count, -1),
        "exposures": exposures,
        "clicks": clicks,
        "smoothed_ctr": ((clicks + 2) / (exposures + 20)).astype(np.float32),
        "age_hours": generator.random(count).astype(np.float32) * 100,
    }
    return pa.table(columns, schema=CLICK_SCHEMA)


def _named(letter: str, numbers: np.ndarray) -> pa.Array:
    return pa.array(np.char.add(letter, numbers.astype(str)).astype(object), pa.string())
