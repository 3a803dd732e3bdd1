"""Takes one trial: trains a model on prepared data that other trials share, and judges it on validation clicks.

A trial never reads the test split: `WithoutTest` refuses it.
"""

from __future__ import annotations

import gc
import math
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from recall.config.experiment import Config, load_config
from recall.core.artifacts import write_json, write_text
from recall.core.errors import RecallError
from recall.data.posterior import Posterior
from recall.data.prepared import Moment, PreparedData
from recall.evaluation.slices import metric_value

EXPERIMENT, METRICS, MODEL, ERROR = "experiment.yaml", "metrics.json", "model", "error.txt"
GoesOn = Callable[[Mapping[str, Any]], bool]
"""Takes the history entry of an epoch; False ends the trial."""


class Task(NamedTuple):
    """Hold what a trial is made of.

    Attributes:
      folder: holds experiment.yaml; metrics.json and model/ are written there.
      data: the prepared data.
    """

    folder: Path
    data: Path


class Outcome(NamedTuple):
    """Hold how a trial ended.

    Attributes:
      state: `pruned`: it was ended early, as it was behind the others.
      value: the objective of a complete trial.
      reason: why it failed.
      diverged: the loss was no number any more.
    """

    state: Literal["complete", "pruned", "failed"]
    value: float | None = None
    reason: str = ""
    diverged: bool = False


class WithoutTest(PreparedData):
    """Open prepared data without its test split, so that no trial can be chosen by it."""

    def shards(self, split: str) -> list[Path]:
        """List the TFRecord files of `train` or `validation`.

        Raises:
          ValueError: the split is `test`.
        """
        if split == "test":
            raise ValueError("tuning reads no test examples")
        return super().shards(split)

    def posterior(self, moment: Moment) -> Posterior:
        """Read the posterior of every item at a moment.

        Raises:
          ValueError: the moment is the start of the test period.
        """
        if moment == "test":
            raise ValueError("tuning reads no posterior of the test period")
        return super().posterior(moment)


class _PrunedError(Exception):
    """End a trial that is behind the others."""


class _DivergedError(Exception):
    """End a trial whose loss is no number."""


def objective_name(config: Config) -> str:
    """Name what trials are judged by: `rolling recall@50`, with the cut-off of the experiment that is nearest to 50."""
    k = min(config.evaluation.k, key=lambda k: abs(k - 50))
    return f"recall@{k}" if config.refresh_ms is None else f"rolling recall@{k}"


def objective(config: Config, validation: Mapping[str, Any]) -> float:
    """Return the objective of a model's validation metrics; NaN where it has none."""
    *rolling, metric = objective_name(config).split(" ")
    part = validation["rolling"] if rolling else validation
    return metric_value(part["all"], metric)


def run_trial(task: Task, goes_on: GoesOn) -> Outcome:
    """Take a trial; whatever goes wrong in it is its outcome.

    Args:
      task: the trial.
      goes_on: is asked after each epoch.
    """
    try:
        return Outcome("complete", _train_and_judge(task, goes_on))
    except _PrunedError:
        return Outcome("pruned")
    except _DivergedError as error:
        return Outcome("failed", reason=str(error), diverged=True)
    except RecallError as error:
        return Outcome("failed", reason=str(error))
    except Exception as error:  # a trial that fails must not end the others; its folder keeps where it failed
        write_text(task.folder / ERROR, traceback.format_exc())
        return Outcome("failed", reason=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}")
    finally:
        _clean_up(task.folder)


def _train_and_judge(task: Task, goes_on: GoesOn) -> float:
    """Train, write metrics.json, and return the objective."""
    from recall.runs.assessment import assess_models
    from recall.training.train import train

    started, config, history = time.perf_counter(), load_config(task.folder / EXPERIMENT), list[dict[str, Any]]()
    prepared = WithoutTest.load(task.data)

    def on_epoch(entry: Mapping[str, Any]) -> None:
        history.append(dict(entry))
        if not math.isfinite(entry["loss"]):
            raise _DivergedError(f"the loss is {entry['loss']} in epoch {entry['epoch']}")
        if not goes_on(entry):
            raise _PrunedError

    model = train(config, prepared, task.folder / MODEL, saved_models=False, on_epoch=on_epoch)
    found = assess_models(
        config, prepared, [config.model.structure], load=lambda _: model, splits=["validation"], with_baselines=False
    )
    validation = found.metrics["validation"][config.model.structure]
    value = objective(config, validation)
    if not math.isfinite(value):
        raise RecallError(f"{objective_name(config)} of the validation clicks is {value}")
    content = {"metric": objective_name(config), "value": value, "seconds": time.perf_counter() - started}
    write_json(task.folder / METRICS, {**content, "history": history, "validation": validation})
    return value


def _clean_up(folder: Path) -> None:
    """Free what a training leaves in memory, and the checkpoints of one that was ended."""
    import tensorflow as tf

    tf.keras.backend.clear_session()
    gc.collect()
    for left in folder.glob(f".{MODEL}*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
