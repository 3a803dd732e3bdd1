"""Gives tests of the training step untrained models of any settings on the community, and batches for them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import tensorflow as tf

from recall.data.prepared import PreparedData
from recall.model.batches.dataset import Batch, training_dataset
from recall.model.recall_model import RecallModel
from tests.conftest import Experiment

# Nothing random is left: the same batch gives the same loss.
PLAIN = ("model.dropout=0", "model.cold_simulation.enabled=false", "model.history_time_hidden=0")


@dataclass(frozen=True)
class Data:
    """Hold prepared data by layout, and make models and small batches of each."""

    layouts: dict[str, PreparedData]
    experiment: Experiment
    # A batch follows from the layout and its size; making a data set takes longer than a step.
    _batches: dict[tuple[str, int], Batch] = field(default_factory=dict)

    def model(self, *overrides: str, layout: str = "click", trains: bool = True) -> RecallModel:
        """Make an untrained model that is ready to train; with `trains=False` it has its weights, and no optimizers."""
        tf.keras.utils.set_random_seed(11)
        model = RecallModel(
            self.experiment(f"data.layout={layout}", "model.similarity=cosine", *overrides), self.layouts[layout]
        )
        model.prepare_optimizers() if trains else model.build_layers()
        return model

    def batch(self, model: RecallModel, *, size: int | None = None) -> Batch:
        """Return the first batch of an epoch."""
        layout, history = model.config.data.layout, model.config.data.history
        size = size or {"click": 24, "user": 5}[layout]
        if (layout, size) not in self._batches:
            assert history == self.experiment().data.history
            dataset = training_dataset(
                self.layouts[layout],
                model.user_rows,
                batch_size=size,
                history=history,
                shuffle_buffer=10_000,
                seed=1,
            )
            self._batches[layout, size] = next(iter(dataset))
        return dict(self._batches[layout, size])


@pytest.fixture(scope="module")
def data(prepared: PreparedData, prepared_by_user: PreparedData, experiment: Experiment) -> Data:
    return Data({"click": prepared, "user": prepared_by_user}, experiment)
