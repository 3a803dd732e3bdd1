"""Trains the model of an arm on the log so far, as a run does: from nothing, or from the run of the training before."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import tensorflow as tf

from recall.config.experiment import Config
from recall.core.errors import RecallError
from recall.data.datasets.feed import Log
from recall.data.prepared import PreparedData
from recall.model.layers.features import FeatureTable
from recall.model.recall_model import RecallModel
from recall.runs.loaded import Loaded
from recall.runs.loop.knowledge import Knowledge
from recall.runs.run import Run
from recall.runs.served_bias import cold_bias
from recall.runs.since import Since
from recall.runs.steps import Steps
from recall.training.train import train

_EPOCHS = 6  # after which a training of few clicks is validated
_OF_REFIT = 3  # a refit takes so much less


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


class RunLearner:
    """Train in a run directory each time.

    Args:
      config: the experiment.
      folder: for the run of the latest training; the one before is removed.
      goes_on: whether a training goes on from the model of the one before, over the new part of the log (`recall run
        --from`); the experiment then has `training.refit: continue`.
      steps: of a training, about: a log that grows costs no more each day. As many epochs as that takes, at least two,
        of which the best one on the last hours is kept. A refit takes a third.
    """

    def __init__(self, config: Config, folder: Path, *, goes_on: bool = False, steps: int = 300) -> None:
        self._config, self._folder, self._goes_on, self._steps = config, folder, goes_on, steps
        self._number, self._learned_until_ms = 0, 0

    def learn(self, knowledge: Knowledge, *, now_ms: int, until_ms: int) -> Learned:
        """Prepare the log and train; the catalogue is what was published by now.

        Raises:
          RecallError: the log cannot be trained on.
        """
        tf.keras.backend.clear_session()
        gc.collect()
        community = knowledge.community
        there, later = community.published(now_ms), community.published(until_ms)
        before, folder = (self._folder / f"training-{self._number + new}" for new in (0, 1))
        since = Since.of(before, self._config) if self._goes_on and self._number else None
        log = _since(knowledge.log, self._learned_until_ms) if since else knowledge.log
        config = self._paced(int(log.click.sum()))
        tables = {"events": community.events(log), "items": community.items[:there], "users": community.users}
        run = Run(config, folder, data=tables, since=since)
        run.prepare()
        model, prepared, bias = _trained(run, since)
        if prepared.item_ids.to_pylist() != community.items["item_id"][:there].to_pylist():
            raise RecallError(f"{folder}: the catalogue is not in order of publication")
        shutil.rmtree(before, ignore_errors=True)
        self._number, self._learned_until_ms = self._number + 1, now_ms
        return Learned(_with_items(model, prepared, community.items[there:later]), prepared, bias)

    def _paced(self, clicks: int) -> Config:
        """Set the epochs of a training, a sixth of the steps long or the whole log, whichever is more."""
        shortest, of_log = max(1, self._steps // _EPOCHS), max(1, clicks // self._config.training.batch_size)
        epochs = max(2, round(self._steps / max(shortest, of_log)))
        refit_epochs = max(1, self._steps // _OF_REFIT // of_log)
        return self._config.replaced(
            training={
                "epochs": epochs, "min_epoch_steps": shortest, "patience": epochs, "refit_epochs": refit_epochs,
            }
        )  # fmt: skip


def _trained(run: Run, since: Since | None) -> tuple[RecallModel, PreparedData, float]:
    """Train in a prepared run; return what is served, its data and its cold bias."""
    config = run.config
    if not config.learns_from_all:
        prepared = PreparedData.load(run.directory / "data")
        model = train(config, prepared, run.directory / "model", saved_models=False)
        return model, prepared, cold_bias(config, prepared, model).bias
    run.train()
    run.refit()
    loaded = Loaded(config, run.directory, Steps(config, run.directory, since))
    judged_data, judged = loaded.judged(config.model.structure)
    bias = cold_bias(config, judged_data, judged).bias
    prepared, model = loaded.served()
    return model, prepared, bias


def _since(log: Log, moment_ms: int) -> Log:
    """Return the events of a log from a moment on."""
    first = int(np.searchsorted(log.time_ms, moment_ms))
    return Log(log.user[first:], log.item[first:], log.time_ms[first:], log.click[first:])


def _with_items(model: RecallModel, prepared: PreparedData, later: pa.Table) -> RecallModel:
    """Append items to the model's table, as a service encodes new items, and make its answers anew."""
    if not later.num_rows:
        return model
    encoded = prepared.item_encoder.encode(later).cast(prepared.items.schema)
    model.item_table = FeatureTable(model.item_table.columns, pa.concat_tables([prepared.items, encoded]))
    model._make_functions()
    return model
