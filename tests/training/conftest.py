"""Shares one trained model, and measures of models, among the tests of training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recall.data.prepared import PreparedData
from recall.model.batches.dataset import read_examples
from recall.model.inference import encode_items, encode_queries
from recall.model.recall_model import RecallModel
from recall.training import validation
from tests.conftest import Experiment
from tests.helpers.dying import train_until_killed
from tests.helpers.made_once import MakeOnce
from tests.helpers.trained_models import SMALL, trained_once

LEARNING = ("training.epochs=5", "training.batch_size=64", "training.metric_k=20")


@pytest.fixture(scope="session")
def trained(experiment: Experiment, prepared: PreparedData, made_once: MakeOnce) -> Path:
    """Return the directory of a trained model with fingerprint "this", the only one of its folder. Tests share it."""
    return trained_once("trained", experiment(*LEARNING), prepared, made_once, fingerprint="this")


@pytest.fixture(scope="session")
def killed(community: Path, prepared: PreparedData, made_once: MakeOnce) -> Path:
    """Train until a kill in the second epoch, and return the folder of the training."""
    return made_once(
        "killed",
        str(SMALL),
        lambda folder: train_until_killed(
            community / "experiment.yaml", prepared.directory, folder / "model", SMALL, validation=2
        ),
    )


@pytest.fixture
def interrupted(killed: Path, tmp_path: Path) -> Path:
    """Return the model directory of a killed training, copied for one test."""
    shutil.copytree(killed, tmp_path / "run")
    return tmp_path / "run" / "model"


def validation_vectors(model: RecallModel, prepared: PreparedData) -> np.ndarray:
    """Encode the items as of the validation."""
    return encode_items(model, prepared.posterior("validation").stacked())[0]


def recall_at(model: RecallModel, prepared: PreparedData, k: int) -> float:
    """Compute the share of validation clicks among the k best items; seen items are left out, ties count against.

    Items without exposures are ranked among themselves, and so are the others.
    """
    examples = read_examples(prepared.shards("validation"))
    cold = prepared.posterior("validation").exposures == 0
    scores = encode_queries(model, examples) @ validation_vectors(model, prepared).T
    hits = []
    for row, target in enumerate(examples.targets):
        seen = examples.seen.values[slice(*examples.seen.offsets[row : row + 2])]
        rivals = np.setdiff1d(np.flatnonzero(cold == cold[target]), [*seen, target])
        hits.append((scores[row, rivals] >= scores[row, target]).sum() < k)
    return float(np.mean(hits))


def script_metric(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> list[float]:
    """Replace the validation metric by given values, and return the list of the values used so far."""
    used: list[float] = []

    def next_value(*arguments: Any, **keywords: Any) -> float:
        used.append(values[len(used)])
        return used[-1]

    monkeypatch.setattr(validation, "validation_metric", next_value)
    return used
