"""Tests the model directory: it tells every epoch, and a damaged or foreign one is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from pipelines.training_data import prepare
from recall.core.errors import ArtifactError
from recall.data.prepared import PreparedData
from recall.training.published import experiment_of, load_model, read_history
from tests.conftest import Experiment


def test_the_history_tells_every_epoch(trained: Path) -> None:
    history = read_history(trained)
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4, 5][: len(history)]
    terms = {"loss", "item_loss", "behaviour_loss", "meta_loss", "triplet_loss"}
    assert all(set(entry) == {"epoch", "seconds", "val_recall@20", *terms} for entry in history)
    assert history[-1]["loss"] < history[0]["loss"]
    assert json.loads((trained / "history.json").read_text()) == history


def test_a_model_that_is_not_there_says_how_to_make_it(prepared: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="recall train"):
        load_model(tmp_path / "model", prepared)


def test_a_truncated_model_is_refused(trained: Path, prepared: PreparedData, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "model")
    weights = next(tmp_path.glob("model/checkpoint/*.data*"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="recall train"):
        load_model(tmp_path / "model", prepared)


def test_a_model_of_other_data_is_refused(trained: Path, experiment: Experiment, tmp_path: Path) -> None:
    # Half as many training clicks: fewer users have an own row.
    prepare(experiment("data.split={validation: 0.4, test: 0.1}"), tmp_path / "data")
    with pytest.raises(ArtifactError, match="do not fit the prepared data"):
        load_model(trained, PreparedData.load(tmp_path / "data"))


def test_a_model_from_before_there_was_a_content_term_has_none(experiment: Experiment, tmp_path: Path) -> None:
    config = experiment("model.content_term=auto")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert experiment_of(tmp_path / "config.yaml").content_term == 64
    settings = yaml.safe_load(config.to_yaml())
    del settings["model"]["content_term"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    assert experiment_of(tmp_path / "config.yaml").content_term == 0
