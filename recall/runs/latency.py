"""Measures the time of a query vector: the exported query model, asked about real users."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from recall.data.prepared import PreparedData
from recall.model.batches.dataset import Examples, pad, read_examples
from recall.serving.users.vectors import load_query_model

BATCH_SIZES = (1, 256)


def query_latency_ms(
    run: Path, prepared: PreparedData, *, seed: int, batch_sizes: Sequence[int] = BATCH_SIZES, calls: int = 50
) -> dict[str, float]:
    """Measure the median time of a call of the signatures `user` and, if the model has a student, `student`.

    The calls of both alternate, with the same users (drawn from the test examples, with their clicks by then): so
    other load of the machine meets both. Lookups and padding before the call are not measured.

    Args:
      run: a run directory whose model has a user tower.
      prepared: the data that it was trained on.
      seed: seed of the draw.
      batch_sizes: users per call.
      calls: calls of each signature and batch size, after a few to warm up.

    Returns:
      Milliseconds per call, by names like `user_query_of_256_ms`.
    """
    loaded = load_query_model(run, tower="user")
    names = [name for name in ("user", "student") if name in loaded.signatures]
    examples = read_examples(prepared.shards("test"))
    generator = np.random.default_rng(seed)
    found: dict[str, float] = {}
    for size in batch_sizes:
        rounds = [
            _inputs(examples.select(generator.integers(0, len(examples), size)), prepared)
            for _ in range(min(calls, 16))
        ]
        times: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(-5, calls):
            for name in names:
                started = time.perf_counter()
                loaded.signatures[name](**rounds[turn % len(rounds)])["vector"].numpy()
                if turn >= 0:
                    times[name].append(time.perf_counter() - started)
        found |= {f"{name}_query_of_{size}_ms": 1e3 * float(np.median(times[name])) for name in names}
    return found


def _inputs(examples: Examples, prepared: PreparedData) -> dict[str, tf.Tensor]:
    history = pad(examples.history, width=int(prepared.manifest["history"]))
    ids = np.asarray(prepared.item_ids.to_pylist(), object)
    return {
        "user_id": tf.constant(examples.users.tolist(), tf.string),
        "history": tf.constant(np.where(history >= 0, ids[history], ""), tf.string),
    }
