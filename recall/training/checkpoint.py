"""Keeps the state of a training on disk, so that a killed run can continue."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from recall.core.artifacts import fingerprint as fingerprint_of
from recall.core.artifacts import write_json
from recall.core.errors import ArtifactError
from recall.model.recall_model import RecallModel
from recall.training.student import StudentStage

_STATE = "state.json"


class TrainingProgress:
    """Hold the epochs of a training so far, and store its last and its best checkpoint.

    Attributes:
      directory: the folder of the checkpoints.
      trained: the Keras model that is trained.
      weights: checkpoint of its weights, without optimizers.
      writes: whether this process stores anything; False for a worker that is not the chief.
      history: one entry per finished epoch.
      best_epoch: from 1; 0 before the first epoch.
      best: validation metric of that epoch.

    Args:
      directory: see above.
      trained: see above.
      fingerprint: hash of everything that the training depends on beside the settings of the experiment.
      writes: see above.
    """

    def __init__(
        self, directory: Path, trained: RecallModel | StudentStage, *, fingerprint: str, writes: bool = True
    ) -> None:
        settings = trained.config.model_dump(mode="json", include={"model", "training", "seed"})
        self._fingerprint = fingerprint_of(fingerprint, settings)
        self.directory, self.trained, self.writes = directory, trained, writes
        self.weights = trained.weights_checkpoint()
        self._everything = tf.train.Checkpoint(model=trained, optimizer=trained.optimizer)
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.best = -np.inf

    @property
    def epoch(self) -> int:
        """Return the number of finished epochs."""
        return len(self.history)

    @property
    def best_weights(self) -> str:
        """Return the path of the checkpoint with the weights of the best epoch."""
        return self._path("best", self.best_epoch)

    def is_over(self, patience: int) -> bool:
        """Tell whether the last `patience` epochs have brought no better metric."""
        return self.epoch - self.best_epoch >= patience

    def clear(self) -> None:
        """Remove the checkpoints of an earlier training."""
        if not self.writes:
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)

    def restore(self) -> None:
        """Continue at the last checkpoint, or start over where there is none.

        Raises:
          ArtifactError: the checkpoint belongs to other settings or data.
        """
        state_path = self.directory / _STATE
        if not state_path.exists():
            self.clear()
            return
        state = json.loads(state_path.read_text())
        if state["fingerprint"] != self._fingerprint:
            raise ArtifactError(
                f"{self.directory}: the checkpoint was made with other settings or data; "
                "train without --resume to start over"
            )
        self.history, self.best_epoch, self.best = state["history"], state["best_epoch"], state["best"]
        self._everything.read(self._path("last", self.epoch)).assert_existing_objects_matched()

    def record(self, entry: dict[str, Any], value: float) -> None:
        """Finish an epoch: note its history entry and its validation metric, and store the checkpoints.

        The state file names its checkpoints and is replaced last: a kill leaves the epoch before.
        """
        self.history.append(entry)
        if value > self.best:
            self.best, self.best_epoch = value, self.epoch
        if not self.writes:
            return
        if self.best_epoch == self.epoch:
            with self.trained.averaged():
                self.weights.write(self.best_weights)
        self._everything.write(self._path("last", self.epoch))
        state = {"fingerprint": self._fingerprint, "best": self.best, "best_epoch": self.best_epoch}
        write_json(self.directory / _STATE, {**state, "history": self.history})
        self._remove_other_epochs()

    def restore_best(self) -> None:
        """Read the weights of the best epoch into the model."""
        self.weights.read(self.best_weights).assert_existing_objects_matched()

    def _path(self, kind: str, epoch: int) -> str:
        return str(self.directory / f"{kind}-{epoch:04d}")

    def _remove_other_epochs(self) -> None:
        kept = (f"best-{self.best_epoch:04d}.", f"last-{self.epoch:04d}.")
        for path in [*self.directory.glob("best-*"), *self.directory.glob("last-*")]:
            if not path.name.startswith(kept):
                path.unlink()


def work_folder(directory: Path) -> Path:
    """Return the hidden folder beside a model directory where the checkpoints of its training lie."""
    return directory.with_name(f".{directory.name}-training")


def seconds_so_far(directory: Path) -> float:
    """Add up the seconds of the epochs that a killed training of a model directory has finished; 0 without one."""
    states = [json.loads(path.read_text()) for path in work_folder(directory).rglob(_STATE)]
    return float(sum(entry.get("seconds", 0.0) for state in states for entry in state["history"]))
