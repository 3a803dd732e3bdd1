"""Trains what is served: the judged model goes on, or starts anew, over the whole log.

`train.py` trains the model that is judged, without the held-out clicks. `recall.model.carrying` hands its weights on.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf

from recall.config.experiment import Config
from recall.core.artifacts import read_manifest
from recall.core.locks import sole_writer
from recall.data.prepared import PreparedData
from recall.model.carrying import carry_optimizers, carry_weights
from recall.model.recall_model import RecallModel
from recall.training.checkpoint import TrainingProgress, work_folder
from recall.training.loop import fit
from recall.training.published import load_model, publish_model, read_optimizers
from recall.training.student import StudentStage
from recall.training.validation import OnEpoch


def refit(
    config: Config,
    prepared: PreparedData,
    judged: Path,
    directory: Path,
    *,
    fingerprint: str = "",
    resume: bool = False,
    verbose: int = 0,
    on_epoch: OnEpoch | None = None,
) -> RecallModel:
    """Train the model that is served, held-out clicks included, and publish it.

    With `training.refit: continue` it goes on from the weights of the judged model: over the held-out clicks and a
    share of what it has learned before (`training.replay`), for `training.refit_epochs`. With `scratch` it starts anew
    over the whole log for as many epochs as the judged model took. Nothing is held out, so that no epoch is better than
    another: the last one is published. Ids that became frequent enough in the held-out period have rows of their own,
    which begin as the row of unknown ids; see `carry_weights`.

    Only a model that went on before hands on the state of its optimizers. The best epoch of a training is followed by
    others, and their state, measured on the next day's clicks, does harm.

    Args:
      config: the experiment.
      prepared: its data.
      judged: the directory of the judged model.
      directory: the model directory to write.
      fingerprint: hash of everything the model depends on, stored in the manifest.
      resume: continue at the last checkpoint of a killed run instead of starting over.
      verbose: as in `tf.keras.Model.fit`.
      on_epoch: takes the history entry of each epoch when it is over.

    Returns:
      The model.

    Raises:
      ArtifactError: the judged model is missing or damaged, another process trains this directory, or `resume` and the
        checkpoint belongs to other settings.
    """
    settings = config.training
    epochs = settings.refit_epochs
    if settings.refit == "scratch":
        epochs = int(read_manifest(judged, made_by="recall train")["best_epoch"])
    directory.parent.mkdir(parents=True, exist_ok=True)
    with sole_writer(directory, step="training"):
        tf.keras.utils.set_random_seed(config.seed)
        model = RecallModel(config.of_last_stage, prepared)
        model.prepare_optimizers()
        if settings.refit == "continue":
            prepared = prepared.replaying(settings.replay)
            before = load_model(judged, prepared.judged())
            carry_weights(before, model, reused=prepared.reused_codes)
            if read_optimizers(judged, before):
                carry_optimizers(before, model)
            model.restart_average()
        work = work_folder(directory)
        if not resume:
            shutil.rmtree(work, ignore_errors=True)
        progress = TrainingProgress(work, model, fingerprint=fingerprint)
        fit(model, prepared, progress, resume=resume, verbose=verbose, on_epoch=on_epoch, epochs=epochs)
        student_history: list[dict[str, Any]] | None = None
        if config.model.student and config.model.student.stage == "frozen":
            of_student = TrainingProgress(work / "student", StudentStage(model), fingerprint=fingerprint)
            fit(model, prepared, of_student, resume=resume, verbose=verbose, epochs=epochs)
            student_history = of_student.history
        publish_model(
            model, prepared, directory, config=config, weights=progress.weights, history=progress.history,
            best_epoch=progress.best_epoch, student_history=student_history, logs=work, fingerprint=fingerprint,
            saved_models=True, optimizers=True,
        )  # fmt: skip
        shutil.rmtree(work)
        return model
