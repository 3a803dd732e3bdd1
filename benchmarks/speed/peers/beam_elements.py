"""The training data job as Beam's tutorials write such a job: an element per event, tf.train.Example per example.

It does less than the library's: no rejected rows are kept, and of the tables beside the examples it writes none. The
bounds of the held-out periods are given to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions

from benchmarks.speed.logs import DAYS, START_MS
from benchmarks.speed.peers.job import BUCKET_MS, DELAY_MS, HELD_OUT, HISTORY, STRENGTH, WINDOW_MS

_SPLITS = ("train", "validation", "test")
_PRIOR = 0.1

Click = dict[str, Any]


def prepare(log: Path, out: Path) -> None:
    """Reads log-*.parquet and items.parquet, writes one TFRecord file per split."""
    out.mkdir(parents=True)
    rows = {item: row for row, item in enumerate(pq.read_table(log / "items.parquet")["item_id"].to_pylist())}
    day_ms = 86_400_000
    bounds = [START_MS + int(DAYS * day_ms * (1 - share)) for share in (sum(HELD_OUT), HELD_OUT[1])]
    with beam.Pipeline("FnApiRunner", options=PipelineOptions([])) as pipeline:
        events = (
            pipeline
            | "ReadLog" >> beam.io.ReadFromParquet(str(log / "log-*.parquet"))
            | "KeepUsable" >> beam.Filter(lambda event: event["user_id"] is not None and event["item_id"] in rows)
            | "AsTuples" >> beam.Map(_as_tuple)
            | "DropDuplicates" >> beam.Distinct()
        )
        counts = (
            events
            | "KeyByBucket" >> beam.Map(lambda event: ((event[1], event[2] // BUCKET_MS), (1, event[3], event[2])))
            | "CountBuckets" >> beam.CombinePerKey(_add)
            | "KeyCountsByItem" >> beam.MapTuple(lambda key, count: (key[0], (key[1], count)))
        )
        clicks = (
            events
            | "KeepClicks" >> beam.Filter(lambda event: event[3])
            | "KeyByUser" >> beam.Map(lambda event: (event[0], (event[2], event[1])))
            | "GroupByUser" >> beam.GroupByKey()
            | "TakeHistories" >> beam.FlatMapTuple(_with_histories)
        )
        joined = {"counts": counts, "clicks": clicks} | beam.CoGroupByKey() | beam.FlatMapTuple(_with_posteriors)
        parts = joined | "Split" >> beam.Partition(lambda click, _: sum(click["time_ms"] >= ms for ms in bounds), 3)
        for name, part in zip(_SPLITS, parts, strict=True):
            serialized = part | f"Serialise_{name}" >> beam.Map(_serialised, rows)
            serialized | f"Write_{name}" >> beam.io.WriteToTFRecord(str(out / name), file_name_suffix=".tfrecord")


def _as_tuple(event: dict[str, Any]) -> tuple[str, str, int, int]:
    return event["user_id"], event["item_id"], event["time_ms"], event["is_click"]


def _add(values: Iterable[tuple[int, int, int]]) -> tuple[int, int, int]:
    exposures, clicks, first_ms = zip(*values, strict=True)
    return sum(exposures), sum(clicks), min(first_ms)


def _with_histories(user: str, clicks: Iterable[tuple[int, str]]) -> Iterator[tuple[str, Click]]:
    """Item -> click with all that its user had clicked before."""
    ordered = sorted(clicks)
    for place, (time_ms, item) in enumerate(ordered):
        earlier = ordered[:place]
        recent = earlier and time_ms - earlier[-1][0] <= WINDOW_MS
        yield (
            item,
            {
                "user_id": user,
                "item": item,
                "time_ms": time_ms,
                "history": [item for _, item in earlier[-HISTORY:]],
                "history_time_ms": [time_ms for time_ms, _ in earlier[-HISTORY:]],
                "trigger": earlier[-1][1] if recent else None,
                "seen": sorted({item for _, item in earlier}),
            },
        )


def _with_posteriors(item: str, groups: dict[str, Iterable[Any]]) -> Iterator[Click]:
    counts, clicks = sorted(groups["counts"]), sorted(groups["clicks"], key=lambda click: click["time_ms"])
    exposures = clicked = place = 0
    first_ms = min((first for _, (_, _, first) in counts), default=0)
    for click in clicks:
        while place < len(counts) and (counts[place][0] + 1) * BUCKET_MS <= click["time_ms"] - DELAY_MS:
            exposures += counts[place][1][0]
            clicked += counts[place][1][1]
            place += 1
        age_hours = (click["time_ms"] - first_ms) / 3_600_000 if exposures else 0.0
        smoothed = (clicked + _PRIOR * STRENGTH) / (exposures + STRENGTH)
        yield {**click, "exposures": exposures, "clicks": clicked, "smoothed_ctr": smoothed, "age_hours": age_hours}


def _serialised(click: Click, rows: dict[str, int]) -> bytes:
    ints = {name: [click[name]] for name in ("time_ms", "exposures", "clicks")}
    ints |= {name: [rows[item] for item in click[name]] for name in ("history", "seen")}
    ints |= {"item": [rows[click["item"]]], "trigger": [rows[click["trigger"]] if click["trigger"] else -1]}
    ints["history_time_ms"] = click["history_time_ms"]
    floats = {name: [click[name]] for name in ("smoothed_ctr", "age_hours")}
    features = {
        "user_id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[click["user_id"].encode()])),
        **{name: tf.train.Feature(int64_list=tf.train.Int64List(value=value)) for name, value in ints.items()},
        **{name: tf.train.Feature(float_list=tf.train.FloatList(value=value)) for name, value in floats.items()},
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
