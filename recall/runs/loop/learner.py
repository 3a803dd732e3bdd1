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
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self._config, self._folder, self._number = config, folder, 0

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
        model = train(run.config, prepared, folder / "model", saved_models=False)
        bias = cold_bias(run.config, prepared, model).bias
        model = _with_items(model, prepared, community.items[there:later])
        return Learned(model, prepared, bias)

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
