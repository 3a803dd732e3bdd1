"""Plays one arm with one seed, and publishes its log and its measures: `python -m recall.runs.loop.worker`.

Standard input has the task as a line of JSON, and stays open: when it ends, the loop has been ended, and so does this
process.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recall.core.artifacts import fingerprint, publish, read_json, read_manifest, write_json
from recall.core.errors import ArtifactError, RecallError
from recall.core.locks import sole_writer
from recall.data.datasets.feed import Log
from recall.data.datasets.live_community import LiveCommunity
from recall.runs.loop.arms import MODELS, Arm
from recall.runs.loop.metrics import Measured

LOG, METRICS = "log.parquet", "metrics.json"
_MADE_BY = "recall loop"


@dataclass(frozen=True)
class Task:
    """Describe one arm with one seed.

    Attributes:
      folder: what is published: log.parquet and metrics.json.
      arm: the arm, as text.
      seed: of the community and the model.
      users, items, days, warm_up_days, authors: as of `LiveCommunity.make`.
      config: an experiment file in place of the example's; None: the example's.
      overrides: `dotted.key=value` pairs for all models.
      steps: of each training, about.
    """

    folder: str
    arm: str
    seed: int
    users: int
    items: int
    days: int
    warm_up_days: int
    authors: int
    config: str | None = None
    overrides: tuple[str, ...] = ()
    steps: int = 300

    @property
    def fingerprint(self) -> str:
        """Hash everything that the result depends on."""
        settings = asdict(self)
        del settings["folder"]
        if Arm.parse(self.arm).kind in MODELS:
            settings["experiment"] = self.experiment()
        else:
            del settings["config"], settings["overrides"], settings["steps"]
        return fingerprint(settings)

    def experiment(self) -> dict[str, Any]:
        """Return the resolved experiment of the arm's model.

        Raises:
          ConfigError: a setting is wrong.
        """
        from recall.runs.loop.experiment import loop_experiment

        config = Path(self.config) if self.config else None
        return loop_experiment(Arm.parse(self.arm).settings, config=config, overrides=self.overrides).model_dump(
            mode="json"
        )

    def result(self) -> dict[str, Any] | None:
        """Read the measures, if they are there and made of these settings."""
        folder = Path(self.folder)
        try:
            manifest = read_manifest(folder, made_by=_MADE_BY, verify=lambda name: name == METRICS)
        except ArtifactError:
            return None
        return read_json(folder / METRICS) if manifest.get("fingerprint") == self.fingerprint else None


def run_task(task: Task) -> dict[str, Any]:
    """Play, measure and publish; return the measures.

    Raises:
      RecallError: the model cannot be trained, or another process plays the same.
    """
    from recall.runs.loop.knowledge import Knowledge
    from recall.runs.loop.play import make_policy, play

    started, cpu = time.perf_counter(), time.process_time()
    arm, folder = Arm.parse(task.arm), Path(task.folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.with_name(f".{folder.name}.work")
    with sole_writer(folder, step="playing"):
        community = LiveCommunity.make(
            users=task.users, items=task.items, days=task.days, warm_up_days=task.warm_up_days, authors=task.authors,
            seed=task.seed,
        )  # fmt: skip
        knowledge = Knowledge(community)
        try:
            policy = make_policy(
                arm, knowledge, config=Path(task.config) if task.config else None, overrides=list(task.overrides),
                steps=task.steps, folder=scratch,
            )  # fmt: skip
            log = play(community, arm, policy, knowledge)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        found = {"arm": arm.name, "seed": task.seed, **Measured(community, log).result()}
        found["seconds"] = {"wall": time.perf_counter() - started, "cpu": time.process_time() - cpu}
        with publish(folder, manifest={"fingerprint": task.fingerprint, "task": asdict(task)}) as place:
            pq.write_table(log_table(community, log), place / LOG)
            write_json(place / METRICS, found, checksummed=True)
    return found


def log_table(community: LiveCommunity, log: Log) -> pa.Table:
    """Make the table of a loop's log: rows of user and item, time_ms, is_click, and the true probability of it."""
    return pa.table(
        {
            "user": log.user.astype(np.int32),
            "item": log.item.astype(np.int32),
            "time_ms": log.time_ms,
            "is_click": log.click,
            "probability": community.probabilities(log.user, log.item),
        }
    )


def task_of(content: Mapping[str, Any]) -> Task:
    """Read a task from JSON."""
    return Task(**{**content, "overrides": tuple(content["overrides"])})


def _end_with_the_loop() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    from recall.runs.console import silence_libraries

    silence_libraries()
    received = task_of(json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_the_loop, daemon=True).start()
    try:
        run_task(received)
    except RecallError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
