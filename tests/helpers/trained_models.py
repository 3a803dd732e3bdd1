"""Gives tests of several folders one small trained model without SavedModels, and the settings that tell others apart.

Training costs its tracing, whatever the size of the data: so they look at one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recall.config.experiment import Config
from recall.data.prepared import PreparedData
from tests.conftest import Experiment
from tests.helpers.made_once import MakeOnce

# A model that is quickly traced, for what does not depend on what is learned.
SMALL = ("model.structure=behaviour_only", "model.loss.negatives=none", "training.epochs=3", "training.batch_size=256")
TRAINED_SMALL = (*SMALL, "training.ema=null", "training.learning_rate=0.05", "training.metric_k=20")


def trained_once(name: str, config: Config, prepared: PreparedData, made_once: MakeOnce, **about: Any) -> Path:
    """Train a model without SavedModels once per run of the suite, and return its directory, which is read only."""
    from recall.training.train import train

    folder = made_once(
        name, config.to_yaml(), lambda folder: train(config, prepared, folder / "model", saved_models=False, **about)
    )
    return folder / "model"


@pytest.fixture(scope="session")
def trained_small(experiment: Experiment, prepared: PreparedData, made_once: MakeOnce) -> Path:
    """Return the directory of a small trained model of `TRAINED_SMALL`: three epochs, no average, no SavedModels."""
    return trained_once("trained_small", experiment(*TRAINED_SMALL), prepared, made_once)
