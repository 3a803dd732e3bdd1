"""Tests how trials are asked for and kept: the configured settings first, pruning, and a study that was killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recall.config.search_space import search_space
from recall.core.errors import ArtifactError
from recall.runs.tuning.study import Study
from recall.runs.tuning.trial import Outcome
from tests.conftest import Experiment

Open = Callable[..., Study]
SPACE = {"model.dim": [4, 8, 16], "model.dropout": True, "model.gate": True, "defaults": False}
METRIC = "val_recall@50"


@pytest.fixture
def open_study(experiment: Experiment, tmp_path: Path) -> Iterator[Open]:
    """Open the study of the folder, as a process of its own would."""
    opened = []

    def make(*, trials: int = 20, made_of: str = "this") -> Study:
        space = search_space(experiment(), SPACE)
        opened.append(Study(tmp_path, space, made_of=made_of, seed=1, trials=trials))
        return opened[-1]

    yield make
    for study in opened:
        study.close()


def complete(study: Study, value: float) -> int:
    trial = study.ask()
    assert trial is not None
    for epoch in (1, 2, 3):
        assert study.epoch(trial.number, {"epoch": epoch, "loss": 1.0, METRIC: value})
    study.end(trial.number, Outcome("complete", value), seconds=1.0)
    return trial.number


def test_trial_0_has_the_configured_settings_and_the_others_have_others(open_study: Open) -> None:
    study = open_study()
    for value in (0.1, 0.2, 0.3, 0.4):
        complete(study, value)
    first, *others = study.trials
    assert first.is_configured
    assert first.settings == {"model.dim": 8, "model.dropout": 0.2, "model.gate": "residual"}
    assert not any(trial.is_configured for trial in others)
    assert len({str(trial.settings) for trial in study.trials}) == 4
    assert all(trial.settings["model.dim"] in (4, 8, 16) for trial in others)
    assert all(trial.settings["model.dropout"] == float(f"{trial.settings['model.dropout']:.3g}") for trial in others)


def test_no_more_trials_begin_than_are_planned(open_study: Open) -> None:
    study = open_study(trials=2)
    assert [complete(study, 0.1), complete(study, 0.2)] == [0, 1]
    assert study.ask() is None


def test_a_trial_that_is_behind_is_pruned_and_the_configured_one_never(open_study: Open) -> None:
    study = open_study()
    for _ in range(4):
        complete(study, 0.5)
    trial = study.ask()
    assert trial is not None
    for epoch in (1, 2):  # nothing is said so early
        assert study.epoch(trial.number, {"epoch": epoch, "loss": 1.0, METRIC: 0.1})
    assert not study.epoch(trial.number, {"epoch": 3, "loss": 1.0, METRIC: 0.1})
    ended = study.end(trial.number, Outcome("pruned"), seconds=1.0)
    assert (ended.state, ended.value, ended.curve) == ("pruned", None, (0.1, 0.1, 0.1))


def test_the_configured_trial_is_never_pruned(open_study: Open, tmp_path: Path) -> None:
    study = open_study()
    assert study.ask() is not None
    study.interrupt()
    again = study.ask()  # the configured settings once more, now beside others
    assert again is not None
    assert again.is_configured
    for _ in range(5):
        complete(study, 0.5)
    for epoch in (1, 2, 3):
        assert study.epoch(again.number, {"epoch": epoch, "loss": 1.0, METRIC: 0.0})


def test_a_failed_trial_keeps_its_reason(open_study: Open) -> None:
    study = open_study()
    complete(study, 0.5)
    trial = study.ask()
    assert trial is not None
    study.end(trial.number, Outcome("failed", reason="the loss is nan in epoch 2"), seconds=2.0)
    failed = open_study().trials[1]
    assert (failed.state, failed.reason, failed.seconds) == ("failed", "the loss is nan in epoch 2", 2.0)
    assert failed.settings == trial.settings


def test_a_killed_trial_is_asked_again_and_does_not_count(open_study: Open) -> None:
    study = open_study(trials=3)
    complete(study, 0.5)
    killed = study.ask()
    assert killed is not None
    study.epoch(killed.number, {"epoch": 1, "loss": 1.0, METRIC: 0.3})
    study.close()  # as if the process was gone

    study = open_study(trials=3)
    assert [trial.state for trial in study.trials] == ["complete", "interrupted"]
    again = study.ask()
    assert again is not None
    assert again.settings == killed.settings
    study.end(again.number, Outcome("complete", 0.4), seconds=1.0)
    complete(study, 0.6)
    assert study.ask() is None
    assert [trial.state for trial in study.trials] == ["complete", "interrupted", "complete", "complete"]


def test_a_study_that_goes_on_draws_other_settings_than_it_began_with(open_study: Open) -> None:
    study = open_study()
    complete(study, 0.1)
    complete(study, 0.2)
    study.close()
    study = open_study()
    complete(study, 0.3)
    assert len({str(trial.settings) for trial in study.trials}) == 3


def test_a_study_of_something_else_is_refused(open_study: Open) -> None:
    complete(open_study(), 0.1)
    with pytest.raises(ArtifactError, match="of another experiment, other data or another search space"):
        open_study(made_of="that")


def test_importance_says_which_setting_moves_the_metric(open_study: Open) -> None:
    study = open_study()
    complete(study, 0.5)
    assert study.importance() == {}  # too few
    for _ in range(15):
        trial = study.ask()
        assert trial is not None
        value = trial.settings["model.dim"] / 100 + trial.settings["model.dropout"] / 1000
        study.end(trial.number, Outcome("complete", value), seconds=1.0)
    found = study.importance()
    assert sum(found.values()) == pytest.approx(1.0)
    assert max(found, key=lambda key: found[key]) == "model.dim"
