"""Trains the model of an arm on the log so far."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa
import tensorflow as tf

from recall.config.experiment import Config
from recall.core.errors import RecallError
from recall.data.prepared import PreparedData
from recall.model.layers.features import FeatureTable
from recall.model.recall_model import RecallModel
from recall.runs.loop.knowledge import Knowledge
from recall.runs.run import Run
from recall.runs.served_bias import cold_bias
from recall.training.train import train

_EPOCHS = 6  # after which a training of few clicks is validated


class Learned(NamedTuple):
    """Hold a model that serves until the next training.

    Attributes:
      model: its item table also has the items that are published until then, as the encoder of the training makes them.
      prepared: the data it was trained on.
      cold_bias: what items without exposures are served with.
    """

    model: RecallModel
    prepared: PreparedData
    cold_bias: float


class Learner(Protocol):
    """Make a model of the log so far."""

    def learn(self, knowledge: Knowledge, *, now_ms: int, until_ms: int) -> Learned:
        """Train at a moment, for the items that are published until another."""


class FromNothing:
    """Train a new model each time, on the whole log so far.

    Args:
      config: the experiment.
      folder: for the run of the latest training; the one before is removed.
      steps: of a training, about: a log that grows costs no more each day. As many epochs as that takes, at least two,
        of which the best one on the last hours is kept.
    """

    def __init__(self, config: Config, folder: Path, *, steps: int = 300) -> None:
        self._config, self._folder, self._steps, self._number = config, folder, steps, 0

    def learn(self, knowledge: Knowledge, *, now_ms: int, until_ms: int) -> Learned:
        """Prepare the log and train; the catalogue is what was published by now.

        Raises:
          RecallError: the log cannot be trained on.
        """
        community = knowledge.community
        there, later = community.published(now_ms), community.published(until_ms)
        self._forget()
        folder = self._folder / f"training-{self._number}"
        tables = {
            "events": community.events(knowledge.log), "items": community.items[:there], "users": community.users,
        }  # fmt: skip
        run = Run(self._config, folder, data=tables)
        run.prepare()
        prepared = PreparedData.load(folder / "data")
        if prepared.item_ids.to_pylist() != community.items["item_id"][:there].to_pylist():
            raise RecallError(f"{folder}: the catalogue is not in order of publication")
        config = self._paced(run.config, prepared)
        model = train(config, prepared, folder / "model", saved_models=False)
        bias = cold_bias(config, prepared, model).bias
        model = _with_items(model, prepared, community.items[there:later])
        return Learned(model, prepared, bias)

    def _paced(self, config: Config, prepared: PreparedData) -> Config:
        """Set the epochs of a training, a sixth of the steps long or the whole log, whichever is more."""
        shortest = max(1, self._steps // _EPOCHS)
        epoch = max(shortest, prepared.training_records // config.training.batch_size)
        epochs = max(2, -(-self._steps // epoch))
        return config.replaced(training={"epochs": epochs, "min_epoch_steps": shortest, "patience": epochs})

    def _forget(self) -> None:
        """Free what the training before left, in memory and on the disk."""
        tf.keras.backend.clear_session()
        gc.collect()
        shutil.rmtree(self._folder / f"training-{self._number}", ignore_errors=True)
        self._number += 1


def _with_items(model: RecallModel, prepared: PreparedData, later: pa.Table) -> RecallModel:
    """Append items to the model's table, as a service encodes new items, and make its answers anew."""
    if not later.num_rows:
        return model
    encoded = prepared.item_encoder.encode(later).cast(prepared.items.schema)
    model.item_table = FeatureTable(model.item_table.columns, pa.concat_tables([prepared.items, encoded]))
    model._make_functions()
    return model
