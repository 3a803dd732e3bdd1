"""Tunes an experiment: `recall.tune`.

`study.py` asks for settings, `pool.py` takes the trials, `confirming.py` repeats the best, `results.py` writes it down.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from recall.config.experiment import Config
from recall.config.search_space import Dimension, search_space, value_text, with_settings
from recall.core.artifacts import fingerprint, read_json, write_text
from recall.core.errors import ConfigError, RecallError
from recall.core.extras import require_packages
from recall.core.locks import sole_writer
from recall.data.fingerprints import data_fingerprint
from recall.model.distributed.tf_config import Cluster
from recall.runs.tuning.confirming import Repeats
from recall.runs.tuning.pool import take_trials
from recall.runs.tuning.results import BEST, PAGE, Tuned
from recall.runs.tuning.shared_data import SharedData
from recall.runs.tuning.study import Study, Trial
from recall.runs.tuning.trial import EXPERIMENT, METRICS, MODEL, Outcome, Task, objective_name

_TRIALS, _CONFIRM, _DATA, _LOG = "trials", "confirm", "data", "workers.log"


def tune(
    config: Config,
    out: str | Path,
    *,
    trials: int = 30,
    jobs: int = 1,
    space: Mapping[str, Any] | None = None,
    time_limit_s: float | None = None,
    confirm: int = 3,
    keep: bool = False,
    console: Console | None = None,
) -> Tuned:
    """Look for better settings of an experiment, by its validation clicks. The test clicks are never read.

    Trial 0 has the settings as configured; the others are drawn by a tree-structured Parzen estimator (Bergstra et al.,
    NeurIPS 2011). From epoch 3 on a trial that is among the worst quarter ends there. A study goes on where it was:
    the same call after a kill, or with more trials, takes the trials that are missing.

    Writes OUT/best.yaml, the experiment with the best settings; OUT/tune.html; OUT/tune.json; and in OUT/trials/ the
    experiment and the metrics of each trial.

    Args:
      config: the experiment.
      out: the directory.
      trials: how many in all, with the trials of earlier calls.
      jobs: how many at once, each in a process with its share of the cores; 0: one after the other in this process.
      space: settings to tune, see `recall.config.search_space.search_space`; default: the suggested ones.
      time_limit_s: no trial begins later than so many seconds after the call.
      confirm: seeds that the best and the configured settings are trained with again, to tell a gain from luck.
      keep: keep the models and the data of all trials; otherwise the best trial's model and both data.
      console: shows progress; silent by default.

    Raises:
      ConfigError: packages are missing, an argument or the search space cannot be used, or `TF_CONFIG` names workers.
      ArtifactError: the directory holds a study of something else, or another process tunes there.
      RecallError: the experiment fails as it is configured, or all trials failed.

    Example:
      >>> config = recall.load_config("experiment.yaml")
      >>> space = {"defaults": False, "training.learning_rate": [0.001, 0.01]}
      >>> tuned = recall.tune(config, "runs/tuned", trials=2, space=space, confirm=0)
      >>> tuned.best.value >= tuned.configured.value
      True
      >>> best = recall.load_config("runs/tuned/best.yaml")
    """
    for name, value, least in (("trials", trials, 1), ("jobs", jobs, 0), ("confirm", confirm, 0)):
        if value < least:
            raise ConfigError(f"{name}: expected at least {least}, found {value}")
    if Cluster.of_environment():
        raise ConfigError("TF_CONFIG names several workers, but trials are not shared by them; unset it")
    require_packages("tune", "optuna")
    require_packages("tune", "apache_beam", "sklearn", "jinja2", "matplotlib")
    dimensions, out = search_space(config, space), Path(out)
    made_of = fingerprint(config.to_yaml(), data_fingerprint(config), [(one.key, str(one.space)) for one in dimensions])
    out.parent.mkdir(parents=True, exist_ok=True)
    with sole_writer(out, step="tuning"):
        tuning = _Tuning(
            config, out, dimensions, made_of=made_of, trials=trials, keep=keep,
            console=console or Console(quiet=True),
        )  # fmt: skip
        try:
            tuning.take(jobs=jobs, time_limit_s=time_limit_s)
            tuned = tuning.result(jobs=jobs, confirm=confirm)
            tuned.write(dimensions)
            tuning.draw(tuned)
            tuning.clear_up(tuned)
        finally:
            tuning.close()
    return tuned


class _Tuning:
    """Give the trials of a study to a pool, and make the result of them."""

    def __init__(
        self, config: Config, out: Path, space: list[Dimension], *, made_of: str, trials: int, keep: bool,
        console: Console,
    ) -> None:  # fmt: skip
        self._config, self._out, self._space, self._console, self._keep = config, out, space, console, keep
        self._data, self._planned = SharedData(out / _DATA), trials
        self._data.of(config)  # before the study: input that cannot be used is an error of the call
        self._study = Study(out, space, made_of=made_of, seed=config.seed, trials=trials)
        self._started: dict[int, float] = {}
        self._ends_at: float | None = None
        self._metric = objective_name(config)

    def take(self, *, jobs: int, time_limit_s: float | None) -> None:
        """Take the trials that are missing."""
        before = sum(trial.state != "interrupted" for trial in self._study.trials)
        if before:
            self._console.print(f"the study goes on: {before} of {self._planned} trials were done before")
        self._ends_at = None if time_limit_s is None else time.monotonic() + time_limit_s
        take_trials(self, jobs=jobs, log=self._out / _LOG)

    # What the pool asks for

    def next(self) -> Task | None:
        """Begin a trial; one whose settings are impossible together fails at once."""
        while self._ends_at is None or time.monotonic() < self._ends_at:
            trial = self._study.ask()
            if trial is None:
                return None
            self._started[trial.number] = time.monotonic()
            folder = self._out / _TRIALS / trial.name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                config = with_settings(self._config, self._changes(trial))
                write_text(folder / EXPERIMENT, config.to_yaml())
                return Task(folder, self._data.of(config))
            except RecallError as error:
                self.end(Task(folder, folder), Outcome("failed", reason=str(error)))
        self._console.print("the time limit is over: no further trial begins")
        return None

    def epoch(self, task: Task, entry: Mapping[str, Any]) -> bool:
        """Note an epoch of a trial, and say whether it goes on."""
        return self._study.epoch(int(task.folder.name), entry)

    def end(self, task: Task, outcome: Outcome) -> None:
        """Note how a trial ended, and print it.

        Raises:
          RecallError: the experiment fails as it is configured.
        """
        number = int(task.folder.name)
        seconds = time.monotonic() - self._started.pop(number)
        is_configured = self._study.is_configured(number)
        if is_configured and outcome.state == "failed" and not outcome.diverged:
            raise RecallError(f"the experiment fails as it is configured: {outcome.reason}")
        trial = self._study.end(number, outcome, seconds=seconds)
        self._remove_models()
        found = f"{trial.value:.4f}" if trial.value is not None else trial.state
        about = "as configured" if is_configured else ", ".join(
            f"{key.rpartition('.')[2]} {value_text(value)}" for key, value in self._changes(trial).items()
        )  # fmt: skip
        reason = f": {trial.reason}" if trial.reason else ""
        self._console.print(f"trial {number}: {found}{reason} ({about or 'as configured'})", markup=False)

    # What comes of it

    def result(self, *, jobs: int, confirm: int) -> Tuned:
        """Choose the best trial, and repeat it with other seeds.

        Raises:
          RecallError: no trial is complete.
        """
        trials = self._study.trials
        complete = [trial for trial in trials if trial.value is not None]
        if not complete:
            reasons = "; ".join(dict.fromkeys(trial.reason for trial in trials if trial.reason)) or "none ended"
            raise RecallError(f"{self._out}: no trial is complete ({reasons})")
        best = max(complete, key=_value)
        configured = next((trial for trial in complete if trial.is_configured), None)
        settings, gains = self._changes(best), tuple[float, ...]()
        if confirm and configured and settings:
            repeats = Repeats(self._config, settings, confirm, self._out / _CONFIRM, self._data, self._console)
            gains = repeats.gains(jobs=jobs, log=self._out / _LOG)
            if sum(gains) <= 0:
                settings = {}  # never worse than what was configured
        config = with_settings(self._config, settings)
        validation = read_json(self._out / _TRIALS / best.name / METRICS)["validation"]
        clicks = int(validation["all"]["examples"])
        return Tuned(self._out, config, settings, self._metric, trials, best, configured, gains, clicks)

    def draw(self, tuned: Tuned) -> None:
        """Write tune.html, and print the result."""
        from recall.runs.report.tuning_page import write_tuning_page

        path, judged = self._out / PAGE, {trial.number: trial for trial in (tuned.best, tuned.configured) if trial}
        write_tuning_page(
            path, tuned, self._space, importance=self._study.importance(),
            validation={
                number: read_json(self._out / _TRIALS / trial.name / METRICS)["validation"]
                for number, trial in judged.items()
            },
            best_yaml=(self._out / BEST).read_text(),
        )  # fmt: skip
        for sentence in tuned.sentences:
            self._console.print(sentence, markup=False)
        self._console.print(f"best settings: {self._out / BEST}\npage: {path}", markup=False, soft_wrap=True)

    def clear_up(self, tuned: Tuned) -> None:
        """Remove the data that neither the best trial nor the experiment is made of, unless all is kept."""
        if not self._keep:
            self._data.keep([self._config, with_settings(self._config, self._changes(tuned.best))])

    def _remove_models(self) -> None:
        """Remove the models of the trials that ended, but for the best one's, unless all are kept."""
        ended = [trial for trial in self._study.trials if trial.state != "running"]
        complete = [trial for trial in ended if trial.value is not None]
        best = max(complete, key=_value, default=None)
        for trial in ended:
            if not self._keep and trial is not best:
                shutil.rmtree(self._out / _TRIALS / trial.name / MODEL, ignore_errors=True)

    def close(self) -> None:
        """Mark the trials that did not end, so that they are asked again, and close the study."""
        if left := self._study.interrupt():
            self._console.print(f"{left} trials did not end; the same command takes them again and goes on")
        self._study.close()

    def _changes(self, trial: Trial) -> dict[str, Any]:
        """Return the settings of a trial that differ from the configured ones."""
        configured = {dimension.key: dimension.configured for dimension in self._space}
        return {key: value for key, value in trial.settings.items() if value != configured[key]}


def _value(trial: Trial) -> float:
    """Return the objective of a complete trial."""
    return -math.inf if trial.value is None else trial.value
