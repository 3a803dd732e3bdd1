"""Tests checkpoints: a killed training continues at its last epoch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recall.core.artifacts import read_manifest
from recall.core.errors import ArtifactError
from recall.data.prepared import PreparedData
from recall.training.checkpoint import seconds_so_far
from recall.training.published import read_history
from recall.training.train import train
from tests.conftest import Experiment
from tests.helpers.trained_models import SMALL
from tests.training.conftest import script_metric


@pytest.mark.slow
def test_a_killed_training_publishes_nothing(killed: Path) -> None:
    # A killed process leaves the file of its lock, which the system has released.
    assert {path.name for path in killed.iterdir()} == {".model-training", ".model.training.lock"}
    with pytest.raises(ArtifactError, match="recall train"):
        read_manifest(killed / "model", made_by="recall train")


@pytest.mark.slow
def test_resume_continues_with_the_epoch_that_was_killed(
    interrupted: Path, experiment: Experiment, prepared: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads((interrupted.parent / ".model-training" / "state.json").read_text())["history"]
    assert [entry["epoch"] for entry in first] == [1]
    assert seconds_so_far(interrupted) == first[0]["seconds"] > 0
    used = script_metric(monkeypatch, [0.98, 0.99])
    model = train(experiment(*SMALL), prepared, interrupted, fingerprint="this", resume=True, saved_models=False)
    history = read_history(interrupted)
    assert used == [0.98, 0.99]
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert history[:1] == first
    assert history[1]["loss"] < first[0]["loss"]
    steps = 3 * (prepared.training_records // 256)
    assert int(model.optimizer.iterations) == steps
    assert [int(count) for count in model.table_optimizer.steps] == [steps] * len(model.tables)
    assert [path.name for path in interrupted.parent.iterdir()] == ["model"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fingerprint", "override"), [("other", "training.patience=3"), ("this", "training.learning_rate=0.5")]
)
def test_resume_with_other_data_or_settings_is_refused(
    fingerprint: str, override: str, interrupted: Path, experiment: Experiment, prepared: PreparedData
) -> None:
    with pytest.raises(ArtifactError, match="other settings or data; train without --resume"):
        train(experiment(*SMALL, override), prepared, interrupted, fingerprint=fingerprint, resume=True)
    assert (interrupted.parent / ".model-training" / "state.json").exists()
