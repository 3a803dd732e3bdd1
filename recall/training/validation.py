"""Measures the model after each epoch against the whole catalogue, and decides when the training stops.

Items are as of the start of the validation period, not as of every hour (`runs/moments.py`): hourly ones take 2 to 2.6
seconds an epoch in the place of 0.7 to 1.6 (simulated community, KuaiRand) and chose the same epochs when tried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from recall.core.errors import DataError
from recall.data.prepared import PreparedData
from recall.evaluation.scorers import vector_scorer
from recall.evaluation.slices import validation_metric
from recall.model.batches.dataset import Examples, read_examples
from recall.model.inference import answerable, encode_items, encode_queries
from recall.model.recall_model import RecallModel
from recall.training.checkpoint import TrainingProgress

OnEpoch = Callable[[Mapping[str, Any]], None]
"""Takes the history entry of an epoch, see `read_history`, when the epoch is over; what it raises ends the training."""


class EpochEnd(tf.keras.callbacks.Callback):
    """Record each epoch with a checkpoint. Nothing is measured: the last epoch counts as the best.

    Args:
      model: the model that is trained, or whose student is.
      progress: the checkpoints.
      on_epoch: is told of each epoch after its checkpoint is stored.
    """

    def __init__(self, model: RecallModel, progress: TrainingProgress, *, on_epoch: OnEpoch | None = None) -> None:
        super().__init__()
        self._on_epoch = on_epoch
        self._progress, self._judged = progress, model  # Keras sets self.model to the trained one

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock of the epoch."""
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the epoch, which is numbered from 1 there."""
        self._record(epoch, logs, value=float(epoch))

    def _record(self, epoch: int, logs: dict[str, Any] | None, *, value: float) -> None:
        terms = {name: float(term) for name, term in (logs or {}).items()}
        entry = {"epoch": epoch + 1, **terms, "seconds": time.perf_counter() - self._started}
        self._progress.record(entry, value)
        if self._on_epoch is not None:
            self._on_epoch(entry)


class Validation(EpochEnd):
    """Record the validation metric of each epoch with a checkpoint, and stop the training after `patience` epochs.

    Args:
      model: the model that answers the validation examples.
      prepared: the prepared data with these examples.
      progress: the checkpoints. Where they train the student of the model, its queries are measured.
      on_epoch: is told of each epoch after its checkpoint is stored.

    Raises:
      DataError: no validation example has a query.
    """

    def __init__(
        self, model: RecallModel, prepared: PreparedData, progress: TrainingProgress, *, on_epoch: OnEpoch | None = None
    ) -> None:
        super().__init__(model, progress, on_epoch=on_epoch)
        self._student = progress.trained is not model
        self._training = model.config.training
        self._exclude_seen = model.config.evaluation.exclude_seen
        self._name = f"val_{self._training.metric}@{self._training.metric_k}"
        self._examples: Examples = answerable(model, read_examples(prepared.shards("validation")))
        self._posterior = prepared.posterior("validation")
        if not len(self._examples):
            raise DataError(
                "no validation click has a trigger, so an i2i model cannot be judged; "
                "widen data.trigger.window, or use model.query: user"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measure the model, record the epoch (numbered from 1 there), and stop where it is time."""
        value = self._measure() if self._progress.writes else 0.0
        if self._judged.workers:  # one decides when to stop: another CPU may round the metric otherwise
            value = self._judged.workers.of_chief(value)
        logs = logs if logs is not None else {}
        logs[self._name] = value
        self._record(epoch, logs, value=value)
        if self._progress.is_over(self._training.patience):
            self.model.stop_training = True

    def _measure(self) -> float:
        """Return the metric of the averaged weights over the validation examples."""
        with self.model.averaged():
            vectors, _ = encode_items(self._judged, self._posterior)
            scorer = vector_scorer(encode_queries(self._judged, self._examples, student=self._student), vectors)
        return validation_metric(
            scorer,
            self._examples,
            metric=self._training.metric,
            k=self._training.metric_k,
            exposures=self._posterior.exposures,
            exclude_seen=self._exclude_seen,
        )
