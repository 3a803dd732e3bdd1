"""Training steps of the gated model, and reading the batches for them; by the library and by a TFRS model.

Both sides get the same batches (4096 clicks with 20 history items each), the same features, towers of the same sizes,
a mean of the history, one loss against the 4096 candidates of the batch, and no negatives beside. What the tutorials do
without is switched off in the library where that can be done: logQ, learned temperature, appeal, dropout, averaging of
weights. Two things remain that the library does and `TFRS` does not: history items are encoded by id and content, and
accidental hits are masked. `TFRS, same inputs` reads history items by id and content too, at every place of a history.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.speed.prepared import CATEGORIES, HISTORY, USERS, write_prepared
from recall.config.experiment import Config, load_config

# `recall, all losses` has the defaults.
_EXPERIMENT = f"""
data:
  events: {{path: none.parquet}}
  items: {{path: items.parquet}}
  history: {HISTORY}
features:
  user: [{{name: user_id, type: id}}]
  behaviour: [{{name: item_id, type: id}}, {{name: author_id, type: id}}]
  meta: [{{name: category, type: category}}, {{name: duration_s, type: number}}]
model: {{query: user, structure: gated, gate: sum, dim: 64, hidden: [128], dropout: 0.0}}
training: {{table_optimizer: adagrad}}
"""
_ONE_LOSS = [
    "model.history_encoder=mean",
    "model.history_time=none",
    "model.cold_simulation.enabled=false",
    "model.loss={behaviour: 0.0, meta: 0.0, triplet: 0.0, negatives: none, logq: false}",
    "model.appeal=false",
    "model.learn_temperature=false",
    "training.ema=null",
]
_BATCHES, _WARM_UP = 8, 3


def prepare(scratch: Path, *, system: str, items: int, batch: int, steps: int) -> None:
    """Writes prepared data with enough clicks for the batches."""
    config = _config(scratch, batch=batch, all_losses=False)
    write_prepared(scratch / f"data-{items}-{batch}", config, items=items, examples=4 * _BATCHES * batch)


def measure(scratch: Path, *, system: str, items: int, batch: int, steps: int) -> dict[str, float]:
    """Median seconds of a step once it is warm, or of what it takes to read a batch."""
    from recall.data.prepared import PreparedData

    prepared = PreparedData.load(scratch / f"data-{items}-{batch}")
    config = _config(scratch, batch=batch, all_losses=system == "recall, all losses")
    if system == "input":
        return _reading(prepared, config, batch=batch)
    steps_seconds = (
        _library_steps(prepared, config, steps=steps)
        if system.startswith("recall")
        else _tfrs_steps(prepared, config, steps=steps, system=system)
    )
    seconds = statistics.median(steps_seconds[_WARM_UP:])
    return {"seconds_per_step": seconds, "examples_per_second": batch / seconds}


def _config(scratch: Path, *, batch: int, all_losses: bool) -> Config:
    path = scratch / "experiment.yaml"
    for name in ("none.parquet", "items.parquet"):
        (scratch / name).touch()
    path.write_text(_EXPERIMENT)
    return load_config(path, [f"training.batch_size={batch}", *([] if all_losses else _ONE_LOSS)])


def _batches(prepared: Any, config: Config, users: Any, *, shuffle_buffer: int = 1) -> Any:
    from recall.model.batches.dataset import training_dataset

    return training_dataset(
        prepared, users, batch_size=config.training.batch_size, history=config.data.history,
        shuffle_buffer=shuffle_buffer, seed=1,
    )  # fmt: skip


def _reading(prepared: Any, config: Config, *, batch: int) -> dict[str, float]:
    """One pass over all records, shuffled as in training."""
    from recall.model.batches.dataset import UserRows

    users = UserRows(prepared.user_ids.to_pylist())
    dataset = _batches(prepared, config, users, shuffle_buffer=config.training.shuffle_buffer)
    list(dataset.take(1))  # traced and warm
    started = time.perf_counter()
    count = sum(1 for _ in dataset)
    seconds = (time.perf_counter() - started) / count
    return {"seconds_per_step": seconds, "examples_per_second": batch / seconds}


def _library_steps(prepared: Any, config: Config, *, steps: int) -> list[float]:
    from recall.model.recall_model import RecallModel

    model = RecallModel(config, prepared)
    model.prepare_optimizers()
    return _timed_fit(model, _batches(prepared, config, model.user_rows).take(_BATCHES).cache(), steps)


def _tfrs_steps(prepared: Any, config: Config, *, steps: int, system: str) -> list[float]:
    import numpy as np
    import tensorflow as tf

    from benchmarks.speed.peers.tfrs_gated import GatedModel
    from benchmarks.speed.peers.tfrs_gated import optimizer as keras_optimizer
    from recall.model.batches.dataset import UserRows

    columns = prepared.items.select(["author_id", "category", "duration_s"])
    author, category, duration = (np.asarray(column.combine_chunks()) for column in columns.columns)
    sizes = {column.name: column.size for column in prepared.item_encoder.columns}

    optimizer, _, variant = system.removeprefix("TFRS ").partition(", ")

    def with_features(batch: dict[str, Any]) -> dict[str, Any]:
        rows, clicked = batch["item"].numpy(), batch["history"].numpy()
        kept = {name: batch[name] for name in ("user", "item", "history", "posterior")}
        features = {**kept, "author": author[rows], "category": category[rows], "duration": duration[rows]}
        if variant == "same inputs":
            features |= {"history_category": category[clicked], "history_duration": duration[clicked]}
        return features

    read = _batches(prepared, config, UserRows(prepared.user_ids.to_pylist())).take(_BATCHES)
    parts = [with_features(batch) for batch in read]
    dataset = tf.data.Dataset.from_tensor_slices({name: tf.stack([part[name] for part in parts]) for name in parts[0]})
    model = GatedModel(
        sizes={
            "item": sizes["item_id"],
            "author": sizes["author_id"],
            "category": max(sizes["category"], CATEGORIES),
            "user": USERS + 2,
        },
        dim=config.model.dim,
        hidden=config.model.hidden[0],
    )
    model.compile(optimizer=keras_optimizer(optimizer))
    return _timed_fit(model, dataset, steps)


def _timed_fit(model: Any, batches: Any, steps: int) -> list[float]:
    """Seconds of each step in Keras' own loop; the batches are in memory."""
    import tensorflow as tf

    seconds: list[float] = []

    class Clock(tf.keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.started = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            float(logs["loss"])  # waits for the step
            seconds.append(time.perf_counter() - self.started)

    model.fit(batches.repeat().prefetch(1), steps_per_epoch=_WARM_UP + steps, epochs=1, verbose=0, callbacks=[Clock()])
    return seconds
