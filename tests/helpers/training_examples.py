"""Reads published training data back and compares it with the oracle; makes an experiment on any log."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from recall.config.experiment import Config
from recall.data.prepared import PreparedData
from tests.helpers import oracle

SPLITS = ("train", "validation", "test")
CLICK_LISTS = ("history", "history_time_ms")


def experiment(events: dict[str, Any], items: dict[str, Any], **data: Any) -> Config:
    features = {"behaviour": [{"name": items.get("id", "item_id"), "type": "id"}]}
    return Config.model_validate(
        {
            "data": {"events": events, "items": items, **data},
            "features": features | {"user": [{"name": "user_id", "type": "id"}]},
            "model": {"structure": "behaviour_only"},
        }
    )


def parse(paths: list[Path], *, lists: tuple[str, ...], scalars: tuple[str, ...]) -> list[dict[str, Any]]:
    floats = ("smoothed_ctr", "age_hours", "weight")
    spec: dict[str, Any] = {"user_id": tf.io.FixedLenFeature([], tf.string)}
    spec |= {name: tf.io.FixedLenFeature([], tf.float32 if name in floats else tf.int64) for name in scalars}
    spec |= {
        name: tf.io.RaggedFeature(tf.float32 if name in floats else tf.int64, row_splits_dtype=tf.int64)
        for name in lists
    }
    rows: list[dict[str, Any]] = []
    for serialized in records(paths):
        parsed = tf.io.parse_example(serialized, spec)
        columns: dict[str, list[Any]] = {"user_id": [user.decode() for user in parsed["user_id"].numpy()]}
        columns |= {
            name: list(parsed[name].numpy()) if name in floats else parsed[name].numpy().tolist() for name in scalars
        }
        for name in lists:
            flat, splits = parsed[name].values.numpy(), parsed[name].row_splits.numpy().tolist()
            values = list(flat) if name in floats else flat.tolist()
            columns[name] = [values[start:stop] for start, stop in itertools.pairwise(splits)]
        rows += [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return rows


def records(paths: list[Path]) -> Iterator[tf.Tensor]:
    """Yield batches of serialised examples."""
    return iter(tf.data.TFRecordDataset([str(path) for path in paths]).batch(8192))


def click_examples(directory: Path, split: str) -> list[dict[str, Any]]:
    lists = CLICK_LISTS if split == "train" else (*CLICK_LISTS, "seen")
    scalars: tuple[str, ...] = ("item", "time_ms", "trigger", "exposures", "clicks", "smoothed_ctr", "age_hours")
    if PreparedData.load(directory).is_weighted:
        scalars += ("weight",)
    return parse(PreparedData.load(directory).shards(split), lists=lists, scalars=scalars)


def canonical(examples: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    def frozen(value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    return sorted(tuple(frozen(example[name]) for name in sorted(example)) for example in examples)


def assert_agrees(directory: Path, expected: oracle.Expected, item_ids: list[str]) -> None:
    """Check that all examples, counts, snapshots and as-of lookups of a DIR/data agree with the oracle."""
    prepared = PreparedData.load(directory)
    manifest = prepared.manifest
    assert manifest["counts"]["duplicates"] == expected.duplicates
    assert manifest["counts"]["events"] == len(expected.events)
    assert sum(manifest["counts"]["rejected"].values()) == len(expected.rejected)
    assert manifest["posterior"]["prior_ctr"] == expected.prior_ctr
    if expected.boundaries:
        assert manifest["split"]["validation_start_ms"] == expected.boundaries[0]
        assert manifest["split"]["test_start_ms"] == expected.boundaries[1]
    assert prepared.item_ids.to_pylist() == item_ids
    for code, split in enumerate(SPLITS):
        wanted = [dict(example) for example in expected.examples if example["split"] == code]
        for example in wanted:
            del example["split"]
            if not code:
                del example["seen"]
            if not prepared.is_weighted:
                del example["weight"]
        assert manifest["counts"]["examples"][split] == len(wanted)
        assert canonical(click_examples(directory, split)) == canonical(wanted)
    assert prepared.sampling_counts.tolist() == expected.sampling_counts
    for name, rows in expected.snapshots.items():
        assert list(zip(*prepared.posterior(name).columns().values(), strict=True)) == rows, name
