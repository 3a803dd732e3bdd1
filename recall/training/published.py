"""Writes and reads the model directory: weights, histories, the experiment and the SavedModels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf
import yaml

from recall.config.experiment import Config, load_config
from recall.core.artifacts import publish, read_manifest
from recall.core.errors import ArtifactError
from recall.data.prepared import PreparedData
from recall.model.carrying import optimizer_state
from recall.model.recall_model import RecallModel
from recall.model.saved_model import export_saved_models

_OPTIMIZERS = "checkpoint/optimizers"
TENSORBOARD = "tensorboard"
"""The folder of event files, in the model directory and in a folder of checkpoints."""
_WEIGHTS, _HISTORY, _STUDENT_HISTORY, _CONFIG = (
    "checkpoint/best", "history.json", "student_history.json", "config.yaml",
)  # fmt: skip


def publish_model(
    model: RecallModel,
    prepared: PreparedData,
    directory: Path,
    *,
    config: Config,
    weights: tf.train.Checkpoint,
    history: list[dict[str, Any]],
    best_epoch: int,
    student_history: list[dict[str, Any]] | None,
    logs: Path,
    fingerprint: str,
    saved_models: bool,
    optimizers: bool = False,
) -> None:
    """Replace the content of a model directory by a trained model, all at once.

    Args:
      model: trained.
      prepared: the data it was trained on.
      directory: the model directory.
      config: the experiment, with all its stages.
      weights: checkpoint of the model's weights.
      history: one entry per epoch.
      best_epoch: the epoch of the weights, from 1.
      student_history: one entry per epoch of a student that was trained afterwards.
      logs: a folder whose event files for TensorBoard, at any depth, are kept.
      fingerprint: hash of everything the model depends on.
      saved_models: whether to write the SavedModels query/ and item/.
      optimizers: whether to keep the state of the optimizers, for a training that goes on from this model.
    """
    manifest = {
        "fingerprint": fingerprint,
        "structure": config.model.structure,
        "history": config.data.history,
        "best_epoch": best_epoch,
    }
    histories = {_HISTORY: history}
    if student_history is not None:
        histories[_STUDENT_HISTORY] = student_history
    with publish(directory, manifest=manifest) as scratch:
        weights.write(str(scratch / _WEIGHTS))
        if optimizers:
            _optimizers_of(model).write(str(scratch / _OPTIMIZERS))
        for name, entries in histories.items():
            (scratch / name).write_text(json.dumps(entries, indent=2) + "\n")
        (scratch / _CONFIG).write_text(config.to_yaml())
        for log in sorted(logs.rglob(TENSORBOARD)):  # of the training, or of each stage, and of a student
            shutil.copytree(log, scratch / TENSORBOARD / log.parent.relative_to(logs), dirs_exist_ok=True)
        if saved_models:
            export_saved_models(model, prepared, scratch)


def experiment_of(path: Path) -> Config:
    """Read the experiment of a trained model; one from before there was a content term has none."""
    is_named = "content_term" in yaml.safe_load(path.read_text())["model"]
    return load_config(path, [] if is_named else ["model.content_term=0"])


def load_model(directory: Path, prepared: PreparedData) -> RecallModel:
    """Load the model that `train` published, with its best weights.

    Raises:
      ArtifactError: the model is missing or damaged, or does not fit the prepared data.

    Example:
      >>> from pathlib import Path
      >>> data = recall.PreparedData.load("runs/mine/data")
      >>> model = recall.load_model(Path("runs/mine/model"), data)
      >>> vectors, behaviour_shares = recall.encode_items(model, data.posterior("serving"))
      >>> vectors.shape  # 150 items, 8 dimensions and the appeal
      (150, 9)
    """
    read_manifest(directory, made_by="recall train", verify=True)
    model = RecallModel(experiment_of(directory / _CONFIG), prepared)
    model.build_layers()
    try:
        model.weights_checkpoint().read(str(directory / _WEIGHTS)).assert_existing_objects_matched()
    except (ValueError, AssertionError, tf.errors.OpError) as error:
        raise ArtifactError(
            f"{directory}: its weights do not fit the prepared data ({str(error).splitlines()[0]}); "
            "run `recall train` again"
        ) from error
    return model


def read_optimizers(directory: Path, model: RecallModel) -> bool:
    """Read the state of the optimizers into a loaded model, and return whether the directory has one."""
    if not (directory / f"{_OPTIMIZERS}.index").exists():
        return False
    model.prepare_optimizers()
    _optimizers_of(model).read(str(directory / _OPTIMIZERS)).assert_existing_objects_matched()
    return True


def _optimizers_of(model: RecallModel) -> tf.train.Checkpoint:
    return tf.train.Checkpoint(state=optimizer_state(model))


def read_history(directory: Path) -> list[dict[str, Any]]:
    """Read one entry per epoch: epoch (from 1), loss and its terms, validation metric, seconds, and stage if several.

    Raises:
      ArtifactError: the model or its history is missing or damaged.
    """
    read_manifest(directory, made_by="recall train", verify=lambda name: name == _HISTORY)
    return json.loads((directory / _HISTORY).read_text())


def read_student_history(directory: Path) -> list[dict[str, Any]]:
    """Read the history of a student that was trained after the large towers; empty if there is none."""
    path = directory / _STUDENT_HISTORY
    return json.loads(path.read_text()) if path.exists() else []
