"""Does the work that tests of faults kill, each in a real process forked from one that has imported all.

Importing this module imports TensorFlow and Beam, but runs nothing of them, so that forks are safe.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import pipelines.training_data  # noqa: F401
import recall.serving.recaller  # noqa: F401
from recall.config.experiment import load_config
from recall.data.prepared import PreparedData
from recall.index import LivingIndex
from recall.runs.daily.daily import daily
from recall.runs.daily.guard import Guard
from recall.runs.run import Run
from recall.training.train import train


def step(name: str, experiment: Path, directory: Path, overrides: tuple[str, ...] = ()) -> None:
    """Do one step of a run, as `recall prepare|train|vectors|index` does it, or "all"."""
    getattr(Run(load_config(experiment, overrides), directory), name)()


def train_until_validation(last: int, experiment: Path, data: Path, model: Path, overrides: tuple[str, ...]) -> None:
    """Train with fingerprint "this", and without SavedModels, until this process kills itself in a validation."""
    from recall.training import validation

    measure, measured = validation.validation_metric, itertools.count(1)

    def measure_or_die(*arguments: Any, **keywords: Any) -> float:
        if next(measured) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return measure(*arguments, **keywords)

    validation.validation_metric = measure_or_die
    train(load_config(experiment, overrides), PreparedData.load(data), model, fingerprint="this", saved_models=False)


DIM = 8


def change(directory: Path, log: Path, seed: int, rebalancing: bool = False) -> None:
    """Upsert and delete until killed; `log` says what is about to be done, and what was acknowledged.

    With `rebalancing` another thread builds and publishes one version after another meanwhile.
    """
    random = np.random.default_rng(seed)
    with LivingIndex.open(directory) as index, log.open("a") as stream:
        if rebalancing:
            threading.Thread(target=_rebalance_for_ever, args=(index,), daemon=True).start()
        for number in itertools.count():
            operation = "delete" if number % 4 == 3 else "upsert"
            ids = [f"new {item}" for item in random.choice(60, size=3, replace=False)]
            print(json.dumps([operation, ids, number + seed * 1_000_000]), file=stream, flush=True)
            if operation == "upsert":
                index.upsert(ids, vectors_of(number + seed * 1_000_000, len(ids)))
            else:
                index.delete(ids, missing_ok=True)
            print("done", file=stream, flush=True)


def vectors_of(number: int, count: int) -> np.ndarray:
    """Draw the vectors of the change of some number, float32 [count, DIM]."""
    return np.random.default_rng(number).normal(size=(count, DIM)).astype(np.float32)


def _rebalance_for_ever(index: LivingIndex) -> None:
    while True:
        index.rebalance()


def day(experiment: Path, runs: Path, log: str, overrides: tuple[str, ...], iso: str) -> None:
    """Take a day as `recall daily` does, whatever its model is worth."""
    guard = Guard(against_trending=0, against_before=0)
    daily(load_config(experiment, overrides), runs, log, day=date.fromisoformat(iso), guard=guard)
