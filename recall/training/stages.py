"""Trains the stages of an experiment one after the other, each from the best epoch of the stage before.

A stage that reads clicks is a training of `loop.py`. A stage that initialises teaches the meta tower given content
vectors: `MetaInitialisation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from recall.config.experiment import Config
from recall.config.training import StageConfig
from recall.content.vectors import ContentVectors, read_vectors
from recall.core.artifacts import fingerprint as fingerprint_of
from recall.data.prepared import PreparedData
from recall.model.distributed.workers import Workers
from recall.model.recall_model import RecallModel
from recall.training.checkpoint import TrainingProgress
from recall.training.loop import fit
from recall.training.validation import OnEpoch

_NORM = 1e-12


def train_stages(
    config: Config,
    prepared: PreparedData,
    work: Path,
    *,
    fingerprint: str,
    resume: bool,
    verbose: int,
    workers: Workers | None = None,
    on_epoch: OnEpoch | None = None,
) -> tuple[RecallModel, TrainingProgress, list[dict[str, Any]]]:
    """Train the stages of `training.stages`, or the one training of an experiment without stages.

    Args:
      config: the experiment.
      prepared: its data.
      work: the folder of the checkpoints; each stage has a folder of its name in it.
      fingerprint: hash of everything the model depends on.
      resume: whether to continue at the last checkpoints.
      verbose: as in `tf.keras.Model.fit`.
      workers: the workers that train together; only without stages.
      on_epoch: is told of each epoch; epochs count on from stage to stage, as in the history.

    Returns:
      The model of the last stage with its best weights, the progress of that stage, and the history entries of all
      stages in a row.
    """
    stages = config.training.stages
    if not stages:
        model = RecallModel(config, prepared)
        model.workers = workers
        model.prepare_optimizers()
        writes = workers is None or workers.is_chief
        progress = TrainingProgress(work, model, fingerprint=fingerprint, writes=writes)
        fit(model, prepared, progress, resume=resume, verbose=verbose, on_epoch=on_epoch)
        return model, progress, progress.history
    start: str | None = None  # the weights that a stage starts with
    history: list[dict[str, Any]] = []
    for stage in stages:
        model = RecallModel(config.of_stage(stage), prepared)
        model.build_layers()
        if stage.initialise:
            start = _initialise(model, stage, prepared, work / stage.name, verbose=verbose)
            continue
        if start is not None:
            model.weights_checkpoint().read(start).assert_existing_objects_matched()
        model.prepare_optimizers()
        made_of = fingerprint_of(fingerprint, config.training.model_dump(mode="json", include={"stages"}), stage.name)
        progress = TrainingProgress(work / stage.name, model, fingerprint=made_of)
        in_stage = _Counted(on_epoch, stage.name, done=len(history))
        fit(
            model, prepared, progress, data=stage.data, resume=resume, verbose=verbose,
            on_epoch=in_stage if on_epoch else None,
        )  # fmt: skip
        start = progress.best_weights
        history += map(in_stage.entry, progress.history)
    return model, progress, history


@dataclass(frozen=True)
class _Counted:
    """Number the epochs of a stage after the epochs of the stages before it."""

    told: OnEpoch | None
    stage: str
    done: int

    def entry(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entry of an epoch in the history of all stages."""
        return {**entry, "epoch": self.done + entry["epoch"], "stage": self.stage}

    def __call__(self, entry: Mapping[str, Any]) -> None:
        if self.told is not None:
            self.told(self.entry(entry))


def _initialise(
    model: RecallModel, stage: StageConfig, prepared: PreparedData, directory: Path, *, verbose: int
) -> str:
    """Train the meta tower towards the vectors of a stage and store all weights. A resumed run does this again.

    Returns:
      The path of the checkpoint.
    """
    config, settings = model.config, stage.initialise
    assert settings is not None, "the stage reads clicks"
    vectors = read_vectors(stage.name, settings.path, prepared, id_column=config.data.items.id)
    training = config.training
    initialise_meta(
        model,
        vectors,
        temperature=settings.temperature,
        learning_rate=training.learning_rate,
        epochs=training.epochs,
        batch_size=training.batch_size,
        seed=config.seed,
        verbose=verbose,
    )
    directory.mkdir(parents=True, exist_ok=True)
    return str(model.weights_checkpoint().write(str(directory / "best")))


def initialise_meta(
    model: RecallModel,
    vectors: ContentVectors,
    *,
    temperature: float,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
    verbose: int = 0,
) -> list[float]:
    """Train the meta tower of a model towards given vectors, and return the loss of each epoch.

    Args:
      model: built, see `RecallModel.build_layers`.
      vectors: one vector per item of the catalogue.
      temperature: divisor of the cosines in the softmax.
      learning_rate: learning rate of Adam.
      epochs: passes over the items.
      batch_size: items per step.
      seed: seed of the order of the items.
      verbose: as in `tf.keras.Model.fit`.
    """
    initialisation = MetaInitialisation(model, vectors, temperature=temperature)
    initialisation.compile(optimizer=tf.keras.optimizers.Adam(learning_rate))
    dataset = initialisation.dataset(batch_size=batch_size, seed=seed)
    history = initialisation.fit(dataset, epochs=epochs, verbose=verbose)
    return [float(loss) for loss in history.history["loss"]]


class MetaInitialisation(tf.keras.Model):
    """Train the meta tower of a model until its vectors tell items apart as given vectors do.

    InfoNCE in both directions between the meta vector of an item, after a linear projection, and the given vector of
    the same item, against the other items of the batch: contrastive representation distillation (Tian et al., ICLR
    2020) with in-batch negatives in place of their memory bank. Only the meta tower and the projection learn; the
    projection is discarded afterwards.

    Args:
      model: built; its meta tower is trained.
      vectors: the target vectors, aligned with the catalogue.
      temperature: divisor of the cosines in the softmax.
    """

    def __init__(self, model: RecallModel, vectors: ContentVectors, *, temperature: float) -> None:
        super().__init__(name="meta_initialisation")
        self._model, self._temperature = model, temperature
        self._unit = tf.constant(vectors.unit)  # [items, given]
        self._rows = np.flatnonzero(vectors.present).astype(np.int32)
        self.projection = tf.keras.layers.Dense(vectors.unit.shape[1], name="projection")

    def dataset(self, *, batch_size: int, seed: int) -> tf.data.Dataset:
        """Return the item rows of one epoch, shuffled: int32 [batch] each. An incomplete last batch is dropped."""
        rows = tf.data.Dataset.from_tensor_slices(self._rows).shuffle(len(self._rows), seed=seed)
        return rows.batch(min(batch_size, len(self._rows)), drop_remainder=True)

    @tf.autograph.experimental.do_not_convert  # no control flow of Python depends on a tensor: faster to trace
    def train_step(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        """Update the meta tower with a batch of item rows, int32 [batch], and return the loss."""
        with tf.GradientTape() as tape:
            loss = self.alignment_loss(rows, training=True)
        variables = self._model.items.meta_variables + self.projection.trainable_variables
        pairs = zip(tape.gradient(loss, variables), variables, strict=True)
        self.optimizer.apply_gradients([(gradient, variable) for gradient, variable in pairs if gradient is not None])
        return {"loss": loss}

    def alignment_loss(self, rows: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """Return the mean InfoNCE of both directions over item rows, int32 [batch], as a float32 scalar."""
        features = self._model.item_table.gather(rows)
        meta = self._model.items.content_of(features, training=training).meta  # [batch, dim]
        seen = tf.math.l2_normalize(self.projection(meta), axis=-1, epsilon=_NORM)  # [batch, given]
        logits = tf.matmul(seen, tf.gather(self._unit, rows), transpose_b=True) / self._temperature  # [batch, batch]
        own = tf.range(tf.shape(rows)[0])
        there, back = (
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=own, logits=one)
            for one in (logits, tf.transpose(logits))
        )
        return tf.reduce_mean(there + back) / 2
