"""Reads training records into batches, and held-out records into arrays. Whole batches are parsed at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recall.config.training import StageData
from recall.core.arrays import Float32s, Int32s, Int64s, Intps
from recall.core.ragged import Ragged
from recall.data.examples import REFUSED
from recall.data.further_histories import PREFIX
from recall.data.prepared import PreparedData
from recall.evaluation.ranking import EvaluationSet

Batch = dict[str, tf.Tensor]
POSTERIOR = ("exposures", "clicks", "smoothed_ctr", "age_hours")
_SCALARS = {
    "user_id": tf.io.FixedLenFeature([], tf.string),
    "item": tf.io.FixedLenFeature([], tf.int64),
    "time_ms": tf.io.FixedLenFeature([], tf.int64),
    "trigger": tf.io.FixedLenFeature([], tf.int64),
    "exposures": tf.io.FixedLenFeature([], tf.int64),
    "clicks": tf.io.FixedLenFeature([], tf.int64),
    "smoothed_ctr": tf.io.FixedLenFeature([], tf.float32),
    "age_hours": tf.io.FixedLenFeature([], tf.float32),
    "weight": tf.io.FixedLenFeature([], tf.float32, default_value=1.0),
}


def _ragged(name: str, dtype: tf.DType) -> tf.io.RaggedFeature:
    return tf.io.RaggedFeature(dtype, value_key=name, row_splits_dtype=tf.int64)


class UserRows:
    """Look up the row of a user id in the user table; unknown users get the row after the last one."""

    def __init__(self, user_ids: Sequence[str] | npt.NDArray[np.object_]) -> None:
        keys = tf.constant(list(user_ids), tf.string)
        initializer = tf.lookup.KeyValueTensorInitializer(keys, tf.range(len(user_ids), dtype=tf.int32))
        self.table = tf.lookup.StaticHashTable(initializer, default_value=len(user_ids))

    def __call__(self, user_ids: tf.Tensor) -> tf.Tensor:
        """Look up rows of users: string [...] -> int32 [...]."""
        return self.table.lookup(user_ids)


def training_dataset(
    prepared: PreparedData,
    users: UserRows,
    *,
    batch_size: int,
    history: int,
    shuffle_buffer: int,
    seed: int,
    min_steps: int = 0,
    part: range | None = None,
) -> tf.data.Dataset:
    """Return shuffled training batches of one epoch; the layout of the records decides what a batch holds.

    An epoch goes over all records once, or as often as it takes to have `min_steps` batches.

    Layout click: user int32 [batch], item int32 [batch], time_ms int64 [batch], posterior float32 [batch, 4],
    history int32 [batch, longest] padded with -1, oldest first, history_time_ms int64 [batch, longest], trigger int32
    [batch], -1 where there is none, weight float32 [batch], of each further history `history.NAME` int32 [batch, its
    longest] padded with -1, and `refused` likewise where the examples carry it (`data.refused`), the nearest first.
    Layout user: user int32 [batch], items int32 [batch, time] padded with -1, time_ms int64 [batch, time],
    posterior float32 [batch, time, 4], trigger int32 [batch, time], weight float32 [batch, time], is_target bool
    [batch, time], before int32 [batch, time]: the last position strictly earlier in time, -1 for none. Of a longer
    sequence each epoch sees another window of history + 1 clicks; a click with a history of which the window holds
    nothing is no target.

    The last batch of a pass is dropped when it is not full, unless it is the only one.

    With `part` a batch holds only these of its records, such as the share of one of several workers: together the
    workers see the batches of one. All read all records and parse their own.
    """
    layout = prepared.manifest["layout"]
    records = _training_records(prepared)
    records = records.shuffle(shuffle_buffer, seed=seed, reshuffle_each_iteration=True)
    records = records.batch(batch_size, drop_remainder=prepared.training_records >= batch_size)
    if part is not None:
        records = records.map(lambda serialized: serialized[part.start : part.stop])
    if layout == "click":
        further = [PREFIX + name for name in prepared.history_lengths]
        further += [REFUSED] if prepared.has_refusals else []
        batches = records.map(lambda serialized: _parse_clicks(serialized, users, further), num_parallel_calls=2)
    else:
        # A seed per batch: a random operation in a parallel map would give numbers in the order of its threads.
        seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
        batches = tf.data.Dataset.zip(records, seeds).map(
            lambda serialized, seed: _parse_users(
                serialized, users, length=history + 1, seed=seed, weighted=prepared.is_weighted
            ),
            num_parallel_calls=2,
        )
    # Keras learns the length of an epoch by running into its end, where whatever of a step needs no data still runs.
    steps = max(1, prepared.training_records // batch_size)
    batches = batches.apply(tf.data.experimental.assert_cardinality(steps))
    return batches.repeat(max(1, math.ceil(min_steps / steps))).prefetch(2)


def _training_records(prepared: PreparedData) -> tf.data.Dataset:
    """Read the training examples, of those that were learned before the share `prepared.replay`, evenly spread."""
    paths = [str(path) for path in prepared.shards("train")]
    if prepared.replay == 1 or not prepared.learns_from_all or prepared.manifest["layout"] == "user":
        return tf.data.TFRecordDataset(paths)
    learned = [str(path) for path in prepared.judged().shards("train")]

    def is_replayed(number: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        before = tf.cast(number, tf.float64) * prepared.replay
        return tf.floor(before + prepared.replay) > tf.floor(before)

    again = tf.data.TFRecordDataset(learned).enumerate().filter(is_replayed).map(lambda _, record: record)
    return again.concatenate(tf.data.TFRecordDataset([path for path in paths if path not in set(learned)]))


def of_stage(batches: tf.data.Dataset, data: StageData, *, until_ms: int | None) -> tf.data.Dataset:
    """Make only some clicks of `training_dataset` targets: the others get weight 0.

    They stay in the batch, where they are the in-batch negatives that the logQ correction counts on.

    Args:
      batches: of either layout.
      data: which clicks count, and how much.
      until_ms: when the training period ends; needed for `data.recent`.
    """
    if data.is_everything:
        return batches

    def weighed(batch: Batch) -> Batch:
        weight = batch["weight"]
        counts = weight >= data.min_weight
        if data.recent is not None:
            assert until_ms is not None, "data.recent needs a split by time, which the config checks"
            counts &= batch["time_ms"] >= until_ms - data.recent
        given = weight if data.weights == "given" else tf.ones_like(weight)
        return {**batch, "weight": tf.where(counts, given, 0.0)}

    return batches.map(weighed, num_parallel_calls=2).prefetch(2)


@tf.autograph.experimental.do_not_convert  # no control flow of Python depends on a tensor: faster to trace
def _parse_clicks(serialized: tf.Tensor, users: UserRows, further: Sequence[str]) -> Batch:
    lists = {name: _ragged(name, tf.int64) for name in ("history", "history_time_ms", *further)}
    parsed = tf.io.parse_example(serialized, {**_SCALARS, **lists})
    return {
        "user": users(parsed["user_id"]),
        "item": tf.cast(parsed["item"], tf.int32),
        "time_ms": parsed["time_ms"],
        "trigger": tf.cast(parsed["trigger"], tf.int32),
        "weight": parsed["weight"],
        **{name: tf.cast(parsed[name].to_tensor(-1), tf.int32) for name in ("history", *further)},
        "history_time_ms": parsed["history_time_ms"].to_tensor(0),
        "posterior": tf.stack([tf.cast(parsed[name], tf.float32) for name in POSTERIOR], axis=-1),
    }


@tf.autograph.experimental.do_not_convert  # no control flow of Python depends on a tensor: faster to trace
def _parse_users(serialized: tf.Tensor, users: UserRows, *, length: int, seed: tf.Tensor, weighted: bool) -> Batch:
    names = {"items": tf.int64, "time_ms": tf.int64, "split": tf.int64, "trigger": tf.int64}
    names |= {"exposures": tf.int64, "clicks": tf.int64}
    names |= {"smoothed_ctr": tf.float32, "age_hours": tf.float32, "weight": tf.float32}
    lists = {name: _ragged(name, dtype) for name, dtype in names.items()}
    parsed = tf.io.parse_example(serialized, {"user_id": _SCALARS["user_id"], **lists})
    if not weighted:
        parsed["weight"] = tf.ones_like(parsed["smoothed_ctr"])
    is_training = parsed["split"] == 0
    lengths = tf.reduce_sum(tf.cast(is_training, tf.int64), axis=1)  # training clicks stand first
    room = tf.cast(tf.maximum(lengths - length, 0) + 1, tf.float64)
    uniform = tf.random.stateless_uniform(tf.shape(lengths), [seed, 0], dtype=tf.float64)  # [batch]
    start = tf.cast(uniform * room, tf.int64)  # [batch]
    lengths = tf.minimum(lengths, length)
    column = tf.range(tf.reduce_max(lengths))  # [time]
    is_real = column[tf.newaxis, :] < lengths[:, tf.newaxis]  # [batch, time]

    def cut(name: str, padding: int) -> tf.Tensor:
        splits = parsed[name].row_starts() + start  # [batch]
        place = tf.where(is_real, splits[:, tf.newaxis] + column, 0)
        return tf.where(is_real, tf.gather(parsed[name].flat_values, place), tf.cast(padding, names[name]))

    time_ms = cut("time_ms", 0)
    earlier = time_ms[:, tf.newaxis, :] < time_ms[:, :, tf.newaxis]  # [batch, now, then]
    earlier &= is_real[:, tf.newaxis, :]
    before = tf.reduce_sum(tf.cast(earlier, tf.int32), axis=2) - 1  # [batch, time]
    first_ms = tf.gather(parsed["time_ms"].flat_values, parsed["time_ms"].row_starts())  # [batch]
    # Where the window cuts a history off whole, the example would teach what users without history click.
    is_target = is_real & ((before >= 0) | (time_ms == first_ms[:, tf.newaxis]))
    is_target = tf.where(tf.reduce_any(is_target), is_target, is_real)  # no step works without any target
    return {
        "user": users(parsed["user_id"]),
        "items": tf.cast(cut("items", -1), tf.int32),
        "time_ms": time_ms,
        "posterior": tf.stack([tf.cast(cut(name, 0), tf.float32) for name in POSTERIOR], axis=-1),
        "is_target": is_target,
        "before": before,
        "trigger": tf.cast(cut("trigger", -1), tf.int32),
        "weight": cut("weight", 0),
    }


@dataclass(frozen=True)
class Examples(EvaluationSet):
    """Hold clicks as arrays, in order of (time, user, item), with everything that a query is made of.

    Attributes:
      times_ms: int64 [examples].
      triggers: int32 [examples], item row that the user came from, -1 where there is none.
      weights: float32 [examples], how much the click counts in training; 1 where the log has no weights.
      history_times_ms: per example when the clicks of its history happened, int64.
      further: further histories by name, per example its item rows or codes, oldest first.
    """

    times_ms: Int64s
    triggers: Int32s
    weights: Float32s
    history_times_ms: Ragged
    further: Mapping[str, Ragged]

    def select(self, chosen: Intps) -> Examples:
        """Return the examples at some positions."""
        return Examples(
            users=self.users[chosen],
            targets=self.targets[chosen],
            history=self.history.take(chosen),
            seen=self.seen.take(chosen),
            times_ms=self.times_ms[chosen],
            triggers=self.triggers[chosen],
            weights=self.weights[chosen],
            history_times_ms=self.history_times_ms.take(chosen),
            further={name: lists.take(chosen) for name, lists in self.further.items()},
        )


def read_examples(paths: Sequence[Path], *, batch_size: int = 8192) -> Examples:
    """Read records of the click layout into memory; `seen` is empty where records carry none."""
    further = _further_histories(paths)
    names = ("history", "history_time_ms", "seen", *(PREFIX + name for name in further))
    features = {**_SCALARS, **{name: _ragged(name, tf.int64) for name in names}}
    batches = [
        tf.io.parse_example(serialized, features)
        for serialized in tf.data.TFRecordDataset([str(path) for path in paths]).batch(batch_size)
    ]

    def column(name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return np.concatenate([np.zeros(0, dtype), *(batch[name].numpy().astype(dtype) for batch in batches)])

    def lists(name: str, dtype: npt.DTypeLike = np.int32) -> Ragged:
        values = [batch[name].flat_values.numpy().astype(dtype) for batch in batches]
        lengths = [batch[name].row_lengths().numpy() for batch in batches]
        return Ragged.from_lengths(
            np.concatenate([np.zeros(0, dtype), *values]), np.concatenate([np.zeros(0, np.int64), *lengths])
        )

    users = np.array([user.decode() for batch in batches for user in batch["user_id"].numpy()], dtype=object)
    examples = Examples(
        users=users,
        targets=column("item", np.int32),
        history=lists("history"),
        seen=lists("seen"),
        times_ms=column("time_ms", np.int64),
        triggers=column("trigger", np.int32),
        weights=column("weight", np.float32),
        history_times_ms=lists("history_time_ms", np.int64),
        further={name: lists(PREFIX + name) for name in further},
    )
    return examples.select(np.lexsort((examples.targets, users.astype(str), examples.times_ms)))


def _further_histories(paths: Sequence[Path]) -> list[str]:
    """Return the names of the further histories in the records: all carry the same, so that the first one tells."""
    for serialized in tf.data.TFRecordDataset([str(path) for path in paths]).take(1):
        names = tf.train.Example.FromString(serialized.numpy()).features.feature
        return sorted(name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX) and name.count(".") == 1)
    return []


def pad(lists: Ragged, *, width: int) -> Int32s:
    """Return the last `width` entries of each list, padded at the end with -1: int32 [lists, width]."""
    lengths = np.minimum(lists.lengths, width)
    column = np.arange(width)
    is_real = column < lengths[:, np.newaxis]  # [lists, width]
    place = (lists.offsets[1:] - lengths)[:, np.newaxis] + column
    padded = np.full(is_real.shape, -1, lists.values.dtype)
    padded[is_real] = lists.values[place[is_real]]
    return padded


def training_clicks(prepared: PreparedData) -> tuple[Int64s, Int32s]:
    """Return user codes int64 [clicks] and item rows int32 [clicks] of all training clicks, of either layout."""
    paths = prepared.shards("train")
    if prepared.manifest["layout"] == "click":
        examples = read_examples(paths)
        return np.unique(examples.users.astype(str), return_inverse=True)[1], examples.targets
    features = {"items": _ragged("items", tf.int64), "split": _ragged("split", tf.int64)}
    users, items, count = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)], 0
    for serialized in tf.data.TFRecordDataset([str(path) for path in paths]).batch(8192):
        parsed = tf.io.parse_example(serialized, features)
        is_training = parsed["split"].flat_values.numpy() == 0
        users.append(parsed["items"].value_rowids().numpy()[is_training] + count)
        items.append(parsed["items"].flat_values.numpy()[is_training].astype(np.int32))
        count += len(serialized)
    return np.concatenate(users), np.concatenate(items)
