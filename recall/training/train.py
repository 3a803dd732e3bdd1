"""Trains a model and publishes it: `recall.train`.

`stages.py` trains the stages, `loop.py` runs the epochs of each, `published.py` writes the model directory.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf

from recall.config.experiment import Config
from recall.core.locks import sole_writer
from recall.data.prepared import PreparedData
from recall.model.distributed.tf_config import Cluster
from recall.model.distributed.workers import Workers, reporting_loss_of
from recall.model.recall_model import RecallModel
from recall.training.checkpoint import TrainingProgress, work_folder
from recall.training.loop import fit
from recall.training.published import publish_model
from recall.training.stages import train_stages
from recall.training.student import StudentStage
from recall.training.validation import OnEpoch


def train(
    config: Config,
    prepared: PreparedData,
    directory: Path,
    *,
    fingerprint: str = "",
    resume: bool = False,
    saved_models: bool = True,
    verbose: int = 0,
    on_epoch: OnEpoch | None = None,
) -> RecallModel:
    """Train a model, keep the epoch with the best validation metric, and publish it.

    During the training the checkpoints lie in a hidden folder beside `directory`. The content of `directory` is
    replaced only at the end. With `training.stages` each stage starts at the best epoch of the stage before, with new
    optimizers; the best epoch of the last stage is published. A student with `stage: frozen` is trained afterwards
    against the published weights of the large towers, in the same way and for as many epochs, with its own history.

    Where `TF_CONFIG` names several workers, this process trains as one of them and waits for the others: see
    `Workers`. Only the chief validates and writes. The other workers read its folders when they resume.

    Args:
      config: the experiment. `training.batch_size` counts the examples of all workers together.
      prepared: the prepared data of the experiment.
      directory: the model directory to write: checkpoint/, query/ and item/ SavedModels, history.json, tensorboard/,
        and student_history.json for a student with `stage: frozen`.
      fingerprint: hash of everything the model depends on, stored in the manifest.
      resume: continue at the last checkpoint of a killed run instead of starting over.
      saved_models: whether to write the SavedModels query/ and item/.
      verbose: as in `tf.keras.Model.fit`.
      on_epoch: takes the history entry of each epoch when it is over, but for the epochs of a student that is trained
        afterwards. What it raises ends the training, and nothing is published.

    Returns:
      The model with its best weights.

    Raises:
      ArtifactError: another process trains this directory, or `resume` and the checkpoint belongs to other settings.
      ConfigError: `TF_CONFIG` is wrong, or the experiment cannot be trained by several workers.
      RecallError: another worker was lost.
      DataError: no validation example has a query, or the vectors of an initialising stage cannot be used.

    Example:
      >>> from pathlib import Path
      >>> config = recall.load_config("experiment.yaml")
      >>> data = recall.PreparedData.load("runs/mine/data")
      >>> model = recall.train(config, data, Path("model"), saved_models=False)
      >>> vectors, behaviour_shares = recall.encode_items(model, data.posterior("serving"))
      >>> vectors.shape  # 150 items, 8 dimensions and the appeal
      (150, 9)
    """
    workers = _connect_workers(config, prepared)
    writes = workers is None or workers.is_chief
    directory.parent.mkdir(parents=True, exist_ok=True)
    with sole_writer(directory, step="training") if writes else contextlib.nullcontext():
        tf.keras.utils.set_random_seed(config.seed)
        work = work_folder(directory)
        if not resume and writes:
            shutil.rmtree(work, ignore_errors=True)
        with reporting_loss_of(workers):
            model, progress, history = train_stages(
                config, prepared, work, fingerprint=fingerprint, resume=resume, verbose=verbose, workers=workers,
                on_epoch=on_epoch,
            )  # fmt: skip
        if not writes:
            return model
        student_history = None
        if config.model.student and config.model.student.stage == "frozen":
            student_history = _train_student(model, prepared, work, fingerprint, resume=resume, verbose=verbose)
        publish_model(
            model,
            prepared,
            directory,
            config=config,
            weights=progress.weights,
            history=history,
            best_epoch=len(history) - progress.epoch + progress.best_epoch,
            student_history=student_history,
            logs=work,
            fingerprint=fingerprint,
            saved_models=saved_models,
        )
        shutil.rmtree(work)
        return model


def _connect_workers(config: Config, prepared: PreparedData) -> Workers | None:
    """Join the cluster of `TF_CONFIG`, or return None where it names no other worker."""
    cluster = Cluster.of_environment()
    if cluster is None:
        return None
    cluster.check(config, records=prepared.training_records)
    return Workers.of(cluster)


def _train_student(
    model: RecallModel, prepared: PreparedData, work: Path, fingerprint: str, *, resume: bool, verbose: int
) -> list[dict[str, Any]]:
    """Train the student of a trained model, and return its history."""
    progress = TrainingProgress(work / "student", StudentStage(model), fingerprint=fingerprint)
    fit(model, prepared, progress, resume=resume, verbose=verbose)
    return progress.history
