"""What several workers exchange in a step: rows that batches name, and how long two local processes take for it.

python -m benchmarks.scale_out rows DATA_DIR...        distinct rows of a batch of 4,096 clicks, over 1, 2 and 8 workers
python -m benchmarks.scale_out exchange ROWS           two workers: gather ROWS rows of 64 floats, update a large table
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

BATCH, NEGATIVES, HISTORY, DIM, TABLE_ROWS, STEPS = 4096, 512, 50, 64, 5_000_000, 10


def rows_per_step(data: Path, workers: int) -> dict[str, float]:
    """Means over ten batches: item rows that are sent by all workers, and distinct ones; the same of users."""
    from recall.data.prepared import PreparedData
    from recall.model.batches.dataset import read_examples

    prepared = PreparedData.load(data)
    examples, items = read_examples(prepared.shards("train")), len(prepared.item_ids)
    users = np.unique(examples.users.astype(str), return_inverse=True)[1]
    random, found = np.random.default_rng(1), []
    for _ in range(STEPS):
        batch = random.choice(len(examples), min(BATCH, len(examples)), replace=False)
        parts = np.array_split(batch, workers)
        drawn = np.array_split(random.integers(0, items, NEGATIVES), workers)
        named = []
        for part, negatives in zip(parts, drawn, strict=True):
            history = examples.history.take(part)
            named.append(np.unique(np.concatenate([examples.targets[part], history.values, negatives])))
        found.append(
            {
                "items_sent": sum(map(len, named)),
                "items": len(np.unique(np.concatenate(named))),
                "items_named": len(examples.history.take(batch).values) + len(batch) + NEGATIVES,
                "users_sent": sum(len(np.unique(users[part])) for part in parts),
                "users": len(np.unique(users[batch])),
            }
        )
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def exchange(rows: int) -> dict[str, float]:
    """One of two workers: best time of a step that gathers all rows, and of one that updates the table with them."""
    import tensorflow as tf

    from recall.model.optimizers import RowwiseAdagrad, sum_duplicate_rows

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    table = tf.Variable(tf.zeros([TABLE_ROWS, DIM]))
    optimizer = RowwiseAdagrad([table])
    own = rows // 2

    @tf.function
    def gathered() -> tf.IndexedSlices:
        def send() -> tf.IndexedSlices:
            picked = tf.random.uniform([own], 0, TABLE_ROWS, tf.int32)
            mine = tf.IndexedSlices(tf.random.uniform([own, DIM]), picked)
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, mine)

        return strategy.run(send)

    @tf.function
    def update(values: tf.Tensor, indices: tf.Tensor) -> None:
        optimizer.apply([tf.IndexedSlices(*reversed(sum_duplicate_rows(tf.IndexedSlices(values, indices))))])

    times: dict[str, list[float]] = {"exchange_ms": [], "update_ms": []}
    for _ in range(STEPS):
        started = time.perf_counter()
        received = gathered()
        received.values.numpy()
        exchanged = time.perf_counter()
        update(received.values, received.indices)
        times["exchange_ms"].append(1e3 * (exchanged - started))
        times["update_ms"].append(1e3 * (time.perf_counter() - exchanged))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {**{name: min(values) for name, values in times.items()}, "peak_gb": peak, "rows": len(received.indices)}


def _two_workers(rows: int) -> None:
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in (first, second)]
    command = [sys.executable, "-m", "benchmarks.scale_out", "exchange", str(rows)]
    started = []
    for index in range(2):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        started.append(
            subprocess.Popen(command, env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CONFIG": json.dumps(task)})
        )
    for process in started:
        process.wait()


def main() -> None:
    """The command line."""
    what, *arguments = sys.argv[1:]
    if what == "rows":
        for data in map(Path, arguments):
            for workers in (1, 2, 8):
                print(json.dumps({"data": data.name, "workers": workers, **rows_per_step(data, workers)}))
    elif "TF_CONFIG" in os.environ:
        print(json.dumps(exchange(int(arguments[0]))), flush=True)
    else:
        _two_workers(int(arguments[0]))


if __name__ == "__main__":
    main()
