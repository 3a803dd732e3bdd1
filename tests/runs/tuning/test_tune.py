"""Tests tuning from end to end on the small community: what it leaves, what it reads, and how it goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from recall.config.experiment import Config, load_config
from recall.config.search_space import with_settings
from recall.core.errors import ArtifactError, ConfigError, RecallError
from recall.runs.tuning.pool import take_trials
from recall.runs.tuning.results import Tuned
from recall.runs.tuning.shared_data import SharedData
from recall.runs.tuning.trial import Outcome, Task, WithoutTest, run_trial
from recall.runs.tuning.tune import tune
from tests.conftest import Experiment
from tests.helpers.finished_run import CHEAP
from tests.helpers.made_once import MakeOnce

SPACE = {"defaults": False, "model.dim": [4, 8], "training.learning_rate": [0.01, 1e30]}  # the last one diverges
pytestmark = pytest.mark.slow  # each trial trains a model


@pytest.fixture(scope="module")
def config(experiment: Experiment) -> Config:
    """Return an experiment whose model is quickly traced."""
    return experiment(*CHEAP, "model.dim=4")


def shared(config: Config, directory: Path, made_once: MakeOnce) -> Path:
    """Prepare the data of trials below a directory, as `tune` does; return its folder."""
    from pipelines.training_data import prepare
    from recall.data.fingerprints import data_fingerprint

    made_of = data_fingerprint(config)
    data = made_once("data_of_trials", made_of, lambda folder: prepare(config, folder, fingerprint=made_of))
    return Path(shutil.copytree(data, directory / made_of))


@pytest.fixture(scope="module")
def study(config: Config, made_once: MakeOnce) -> Path:
    """Return the directory of a finished tuning, whose test examples could not be read while it was at work."""

    def make(directory: Path) -> None:
        data = shared(config, directory / "data", made_once)
        unreadable = [*data.glob("test-*.tfrecord"), data / "posterior_test.parquet"]
        assert len(unreadable) == 4
        for path in unreadable:
            path.write_bytes(b"\0" * path.stat().st_size)
        tune(config, directory, trials=5, space=SPACE, confirm=1)

    return made_once("tuned", config.to_yaml(), make)


@pytest.fixture
def copied(study: Path, tmp_path: Path) -> Path:
    """Copy the finished tuning, for a test that goes on with it."""
    return Path(shutil.copytree(study, tmp_path / "tuned"))


def summary(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "tune.json").read_text())


def test_the_best_is_never_worse_than_what_was_configured(study: Path, config: Config) -> None:
    trials = summary(study)["trials"]
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3, 4]
    assert trials[0]["is_configured"]
    assert trials[0]["settings"] == {"model.dim": 4, "training.learning_rate": 0.01}
    values = [trial["value"] for trial in trials if trial["value"] is not None]
    assert len(values) >= 2
    best = load_config(study / "best.yaml")
    assert best == with_settings(config, summary(study)["settings"])
    assert summary(study)["metric"] == "rolling recall@50"


def test_a_value_is_the_rolling_recall_of_the_validation_clicks(study: Path) -> None:
    metrics = json.loads((study / "trials/0000/metrics.json").read_text())
    assert metrics["value"] == metrics["validation"]["rolling"]["all"]["recall@50"]
    assert metrics["value"] == summary(study)["trials"][0]["value"]
    assert "test" not in metrics


def test_a_trial_that_diverges_is_recorded_with_its_reason(study: Path) -> None:
    failed = [trial for trial in summary(study)["trials"] if trial["state"] == "failed"]
    assert failed
    for trial in failed:
        assert trial["settings"]["training.learning_rate"] == 1e30
        assert re.search("nan|inf|finite", trial["reason"])
    assert "failed" in (study / "tune.html").read_text()


def test_only_the_best_trial_keeps_its_model(study: Path) -> None:
    trials = summary(study)["trials"]
    complete = [trial for trial in trials if trial["value"] is not None]
    best = max(complete, key=lambda trial: trial["value"])
    assert [path.parent.name for path in study.glob("*/*/model")] == [f"{best['number']:04d}"]
    assert not list(study.rglob(".model*"))
    for trial in complete:
        folder = study / "trials" / f"{trial['number']:04d}"
        assert {"experiment.yaml", "metrics.json"} <= {path.name for path in folder.iterdir()}


def test_what_is_tuned_is_said_in_the_best_file(study: Path) -> None:
    text = (study / "best.yaml").read_text()
    assert text.startswith("# 5 trials, judged by rolling recall@50 of the validation clicks; the test clicks")
    for key, value in summary(study)["settings"].items():
        assert f"{key.split('.')[-1]}: {value}  # tuned; was" in text
    assert yaml.safe_load(text)["data"]["history"] == 8


def test_the_page_needs_nothing_else(study: Path) -> None:
    page = (study / "tune.html").read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert page.count("<svg") >= 3
    for text in ("model.dim", "as configured", "trial 4", "rolling recall@50"):
        assert text in page


def test_the_same_call_again_takes_no_trial_and_more_trials_go_on(copied: Path, config: Config) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.glob("*/*/metrics.json")}
    assert len(before) >= 2
    tuned = tune(config, copied, trials=5, space=SPACE, confirm=1)
    assert {path: path.stat().st_mtime_ns for path in copied.glob("*/*/metrics.json")} == before
    assert len(tuned.trials) == 5
    more = tune(config, copied, trials=6, space=SPACE, confirm=0)
    assert [trial.number for trial in more.trials] == [0, 1, 2, 3, 4, 5]
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_another_search_space_needs_another_directory(copied: Path, config: Config) -> None:
    with pytest.raises(ArtifactError, match="choose another --out"):
        tune(config, copied, trials=5, space={**SPACE, "model.dim": [4, 16]})


def test_ctrl_c_leaves_a_study_that_goes_on(config: Config, tmp_path: Path, made_once: MakeOnce) -> None:
    shared(config, tmp_path / "tuned/data", made_once)

    before = signal.getsignal(signal.SIGALRM)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)  # inside of the first trial: tracing the model alone takes longer
    try:
        with pytest.raises(KeyboardInterrupt):
            tune(config, tmp_path / "tuned", trials=1, space=SPACE, confirm=0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    tuned = tune(config, tmp_path / "tuned", trials=1, space=SPACE, confirm=0)
    assert [trial.state for trial in tuned.trials] == ["interrupted", "complete"]
    assert tuned.best.is_configured
    assert tuned.settings == {}


def test_an_experiment_that_fails_as_configured_is_one_error(
    experiment: Experiment, tmp_path: Path, made_once: MakeOnce
) -> None:
    config = experiment(*CHEAP, "model.query=trigger", "data.trigger.window=0ms")
    with pytest.raises(RecallError, match="fails as it is configured: no validation click has a trigger"):
        tune(config, tmp_path / "tuned", trials=2, space=SPACE)


@pytest.mark.parametrize("wrong", [{"trials": 0}, {"jobs": -1}, {"confirm": -1}, {"space": {"model.dimm": True}}])
def test_wrong_arguments_are_found_before_any_work(wrong: Mapping[str, Any], config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        tune(config, tmp_path / "tuned", **wrong)
    assert not (tmp_path / "tuned").exists()


# One trial


def task_of(config: Config, data: Path, folder: Path) -> Task:
    folder.mkdir(parents=True)
    (folder / "experiment.yaml").write_text(config.to_yaml())
    return Task(folder, data)


def test_a_pruned_trial_ends_at_once_and_leaves_no_model(config: Config, tmp_path: Path, made_once: MakeOnce) -> None:
    data, epochs = shared(config, tmp_path, made_once), list[int]()

    def goes_on(entry: Mapping[str, Any]) -> bool:
        epochs.append(entry["epoch"])
        return False

    task = task_of(config, data, tmp_path / "trial")
    assert run_trial(task, goes_on) == Outcome("pruned")
    assert epochs == [1]
    assert [path.name for path in task.folder.iterdir()] == ["experiment.yaml"]


def test_the_test_split_cannot_be_opened(config: Config, tmp_path: Path, made_once: MakeOnce) -> None:
    prepared = WithoutTest.load(shared(config, tmp_path, made_once))
    assert prepared.shards("validation")
    with pytest.raises(ValueError, match="reads no test examples"):
        prepared.shards("test")
    with pytest.raises(ValueError, match="no posterior of the test period"):
        prepared.posterior("test")


def test_data_is_prepared_once_for_the_same_settings_of_data(experiment: Experiment, tmp_path: Path) -> None:
    shared_data = SharedData(tmp_path / "data")
    small, other = shared_data.of(experiment()), shared_data.of(experiment("data.history=3"))
    assert shared_data.of(experiment("model.dim=32", "training.epochs=9")) == small
    assert other != small
    shared_data.keep([experiment()])
    assert list((tmp_path / "data").iterdir()) == [small]


# Processes


class Killing:
    """Give out trials to processes, and kill all of these at their first epoch."""

    def __init__(self, tasks: list[Task], after: list[Task]) -> None:
        self.tasks, self.after = tasks, after
        self.ended: dict[str, Outcome] = {}

    def next(self) -> Task | None:
        return self.tasks.pop() if self.tasks else None

    def epoch(self, task: Task, entry: Mapping[str, Any]) -> bool:
        if task.folder.name == "killed":
            for process in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
                for child in map(int, process.read_text().split()):
                    if "recall.runs.tuning.worker" in Path(f"/proc/{child}/cmdline").read_text():
                        os.kill(child, signal.SIGKILL)
        return True

    def end(self, task: Task, outcome: Outcome) -> None:
        self.ended[task.folder.name] = outcome
        self.tasks, self.after = [*self.tasks, *self.after], []


def test_a_process_that_is_killed_fails_its_trial_and_another_takes_its_place(
    config: Config, tmp_path: Path, made_once: MakeOnce
) -> None:
    data = shared(config, tmp_path / "data", made_once)
    killed, after = (task_of(config, data, tmp_path / name) for name in ("killed", "after"))
    source = Killing([killed], [after])
    take_trials(source, jobs=2, log=tmp_path / "log")
    assert source.ended["killed"].state == "failed"
    assert "was killed (signal 9)" in source.ended["killed"].reason
    assert source.ended["after"].state == "complete"
    here = run_trial(task_of(config, data, tmp_path / "here"), lambda entry: True)
    assert source.ended["after"].value == pytest.approx(here.value, abs=1e-6)


# What is said of a gain


def told(gains: tuple[float, ...], study: Path, config: Config, *, clicks: int = 0) -> Tuned:
    trials = [
        _trial(0, value=0.30, is_configured=True, dim=4), _trial(1, value=0.35, is_configured=False, dim=8)
    ]  # fmt: skip
    settings = {"model.dim": 8} if sum(gains) > 0 or not gains else {}
    return Tuned(study, config, settings, "recall@50", trials, trials[1], trials[0], gains, clicks)


def _trial(number: int, *, value: float, is_configured: bool, dim: int) -> Any:
    from recall.runs.tuning.study import Trial

    return Trial(number, "complete", {"model.dim": dim}, is_configured, value, (value,), "", 1.0)


def test_a_gain_with_every_seed_is_a_gain(config: Config, tmp_path: Path) -> None:
    tuned = told((0.02, 0.04, 0.03), tmp_path, config)
    assert not tuned.is_noise
    assert tuned.gain == pytest.approx(0.03)
    assert "3 other seeds both ways, the best settings gain +0.0300 (+0.0200 to +0.0400)." in tuned.sentences[-1]


def test_a_gain_that_a_seed_lacks_is_called_noise(config: Config, tmp_path: Path) -> None:
    tuned = told((0.02, -0.01), tmp_path, config)
    assert tuned.is_noise
    assert "within the noise" in tuned.sentences[-1]


def test_a_gain_is_held_against_the_number_of_clicks(config: Config, tmp_path: Path) -> None:
    # Recall .35: with 100 clicks 1.96 standard errors of a difference are 1.96 * sqrt(2 * .35 * .65 / 100) = .1322.
    few = told((0.02, 0.04), tmp_path, config, clicks=100)
    assert few.is_noise
    assert few.sentences[-1] == "With 100 validation clicks a gain below 0.1322 is within their sampling noise."
    assert not told((0.02, 0.04), tmp_path, config, clicks=100_000).is_noise


def test_a_gain_of_the_study_alone_is_said_to_be_unconfirmed(config: Config, tmp_path: Path) -> None:
    tuned = told((), tmp_path, config)
    assert tuned.gain == pytest.approx(0.05)
    assert "not confirmed" in tuned.sentences[-1]


# The command


def test_the_command_says_what_it_does(copied: Path, config: Config, command: Any, tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(config.to_yaml())
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    arguments = ("tune", tmp_path / "experiment.yaml", "--out", copied, "--space", tmp_path / "space.yaml")
    done = command(*arguments, "--trials", "5", "--confirm", "1", "--time-limit", "1h")
    assert done.code == 0
    assert "the study goes on: 5 of 5 trials were done before" in done.err
    assert "best.yaml" in done.err
    wrong = command(*arguments, "--time-limit", "soon")
    assert (wrong.code, wrong.err) == (1, "error: --time-limit soon: expected a duration like 30m, 1h or 7d\n")
