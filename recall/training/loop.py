"""Runs the epochs of one training: Keras' loop around the model's own step.

`validation.py` ends each epoch: it measures the model and lets `checkpoint.py` record the result.
"""

from __future__ import annotations

import tensorflow as tf

from recall.config.training import StageData
from recall.data.prepared import PreparedData
from recall.model.batches.dataset import of_stage, training_dataset
from recall.model.recall_model import RecallModel
from recall.training.checkpoint import TrainingProgress
from recall.training.published import TENSORBOARD
from recall.training.validation import EpochEnd, OnEpoch, Validation


def fit(
    model: RecallModel,
    prepared: PreparedData,
    progress: TrainingProgress,
    *,
    resume: bool,
    verbose: int,
    data: StageData | None = None,
    on_epoch: OnEpoch | None = None,
    epochs: int | None = None,
) -> None:
    """Train until `patience` or `epochs` is reached, and leave the weights of the best epoch in the model.

    Args:
      model: built, with optimizers.
      prepared: the data it was built for.
      progress: the checkpoints of this training. Their `trained` part learns: the model, or its student alone.
      resume: whether to continue at the last checkpoint, if there is one.
      verbose: as in `tf.keras.Model.fit`.
      data: which clicks count; default: all.
      on_epoch: is told of each epoch.
      epochs: train for just so many, without a look at validation examples; the last one counts as the best.

    Raises:
      ArtifactError: `resume` and the checkpoint belongs to other settings.
      DataError: no validation example has a query.
    """
    after_epoch: EpochEnd
    if epochs is None:
        after_epoch = Validation(model, prepared, progress, on_epoch=on_epoch)
    else:
        after_epoch = EpochEnd(model, progress, on_epoch=on_epoch)
    progress.restore() if resume else progress.clear()
    training = model.config.training
    dataset = _batches(model, prepared, data or StageData(), epoch=progress.epoch)
    if not progress.is_over(training.patience) and (epochs is None or progress.epoch < epochs):
        callbacks: list[tf.keras.callbacks.Callback] = [after_epoch]
        if progress.writes:
            callbacks.append(tf.keras.callbacks.TensorBoard(progress.directory / TENSORBOARD, write_graph=False))
        progress.trained.fit(
            dataset,
            initial_epoch=progress.epoch,
            epochs=epochs or training.epochs,
            callbacks=callbacks,
            verbose=verbose if progress.writes else 0,
        )
    if progress.writes:
        progress.restore_best()
    if model.workers:
        model.workers.equalise(model.trainable_variables)


def _batches(model: RecallModel, prepared: PreparedData, data: StageData, *, epoch: int) -> tf.data.Dataset:
    """Return the training batches of this worker, in an order that follows from the seed and the first epoch."""
    config, training = model.config, model.config.training
    batch_size = min(training.batch_size, prepared.training_records)
    dataset = training_dataset(
        prepared,
        model.user_rows,
        batch_size=batch_size,
        history=config.data.history,
        shuffle_buffer=training.shuffle_buffer,
        seed=config.seed + epoch,
        min_steps=training.min_epoch_steps,
        part=model.workers.cluster.part_of(batch_size) if model.workers else None,
    )
    if model.workers:
        model.workers.equalise(trained_state(model))
        tf.random.set_seed(config.seed + model.workers.index)  # each hides and draws other items
    return of_stage(dataset, data, until_ms=prepared.learned_until_ms)


def trained_state(model: RecallModel) -> list[tf.Variable]:
    """List all variables that training changes: the weights, the state of the optimizers, and the moving average."""
    parts = (model.table_optimizer, model.optimizer, model.average)
    found = [*model.trainable_variables, *(variable for part in parts if part for variable in part.variables)]
    return list({variable.ref(): variable for variable in found}.values())  # optimizers name the weights again
