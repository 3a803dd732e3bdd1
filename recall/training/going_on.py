"""Goes on from the model that another run serves: yesterday's weights, with today's vocabularies and data.

`refit.py` then learns what is new.
"""

from __future__ import annotations

from pathlib import Path

from recall.config.experiment import Config
from recall.core.artifacts import read_manifest
from recall.core.locks import sole_writer
from recall.data.prepared import PreparedData
from recall.model.carrying import carry_optimizers, carry_weights
from recall.model.recall_model import RecallModel
from recall.training.checkpoint import work_folder
from recall.training.published import load_model, publish_model, read_optimizers


def go_on(
    config: Config, prepared: PreparedData, before: Path, directory: Path, *, part: str = "model", fingerprint: str = ""
) -> RecallModel:
    """Publish the model that another run serves, as it stands before it has learned anything new.

    It is what today's clicks are judged with: ids that are new today are unknown to it, as they were to the service.

    Args:
      config: the experiment of today.
      prepared: the data of today as a judged model knows it.
      before: the run to go on from.
      directory: the model directory to write.
      part: the model of that run to go on from: `model`, which it serves, or `evaluated`, as it was before the refit.
      fingerprint: hash of everything the model depends on, stored in the manifest.

    Returns:
      The model.

    Raises:
      ArtifactError: the earlier model or its data is missing or damaged, or belongs to other features.
    """
    source = before / part
    directory.parent.mkdir(parents=True, exist_ok=True)
    with sole_writer(directory, step="training"):
        epochs = int(read_manifest(source, made_by="recall train")["best_epoch"])
        model = RecallModel(config.of_last_stage, prepared)
        model.prepare_optimizers()
        data = PreparedData.load(before / "data")
        served = load_model(source, data.judged() if part == "evaluated" else data)
        carry_weights(served, model)
        if has_optimizers := read_optimizers(source, served):
            carry_optimizers(served, model)
        publish_model(
            model, prepared, directory, config=config, weights=model.weights_checkpoint(), history=[],
            best_epoch=epochs, student_history=None, logs=work_folder(directory), fingerprint=fingerprint,
            saved_models=False, optimizers=has_optimizers,
        )  # fmt: skip
        return model
