"""Keeps the trials of a tuning in DIR/study.db, and asks Optuna for the settings of the next one.

The only home of Optuna. A trial that was killed is marked as failed, and its settings are asked again.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recall.config.search_space import Dimension, rounded, value_text
from recall.config.tunable import OneOf
from recall.core.errors import ArtifactError
from recall.runs.tuning.trial import Outcome

if TYPE_CHECKING:
    import optuna

STUDY = "study.db"
_NAME = "recall"
_MADE_OF, _CONFIGURED, _AGAIN, _REASON, _SECONDS = "made_of", "configured", "again", "reason", "seconds"
_KEPT, _UNJUDGED = 75.0, 2  # percent of the trials that go on after an epoch, and epochs before any is ended
_WARM_UP = 4  # trials, the configured one among them, before any is pruned
State = Literal["complete", "pruned", "failed", "interrupted", "running"]


@dataclass(frozen=True)
class Trial:
    """Hold one trial.

    Attributes:
      number: from 0.
      state: `interrupted`: it was killed, and its settings are asked again.
      settings: dotted key -> value, of the whole search space.
      is_configured: whether these are the settings of the experiment.
      value: the objective; None where the trial is not complete.
      curve: validation metric of the training after each epoch.
      reason: why it failed.
      seconds: how long it took.
    """

    number: int
    state: State
    settings: Mapping[str, Any]
    is_configured: bool
    value: float | None
    curve: tuple[float, ...]
    reason: str
    seconds: float

    @property
    def name(self) -> str:
        """Return the name of its folder."""
        return f"{self.number:04d}"


class Study:
    """Ask for the settings of trials, and keep their results.

    Trial 0 has the settings of the experiment. It is never pruned.

    Args:
      directory: holds study.db, which is read if it is there.
      space: the settings to tune.
      made_of: fingerprint of experiment, data and space.
      seed: of the sampler.
      trials: how many are planned.

    Raises:
      ArtifactError: the study is of another experiment, other data or another space.
    """

    def __init__(self, directory: Path, space: Sequence[Dimension], *, made_of: str, seed: int, trials: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._space, self._planned = list(space), trials
        self._storage = optuna.storages.RDBStorage(f"sqlite:///{directory / STUDY}")
        self._study = optuna.create_study(
            storage=self._storage, study_name=_NAME, direction="maximize", load_if_exists=True,
            # Not the median: in a study of eight trials the best one was below the median of the others until epoch 4.
            pruner=optuna.pruners.PercentilePruner(_KEPT, n_startup_trials=_WARM_UP, n_warmup_steps=_UNJUDGED + 1),
        )  # fmt: skip
        if (found := self._study.user_attrs.get(_MADE_OF, made_of)) != made_of:
            self.close()
            raise ArtifactError(
                f"{directory / STUDY}: holds ({found}) trials of another experiment, other data or another search "
                f"space ({made_of} now); choose another --out, or remove {directory}"
            )
        self._study.set_user_attr(_MADE_OF, made_of)
        there = self._study.get_trials(deepcopy=False)
        # With the number of trials in it a study that goes on draws other settings than it began with.
        self._study.sampler = optuna.samplers.TPESampler(
            seed=seed + len(there), multivariate=True, n_startup_trials=min(10, max(_WARM_UP, trials // 3))
        )
        if not there:
            self._study.enqueue_trial(self._configured(), user_attrs={_CONFIGURED: True})
        self.interrupt()
        self._running: dict[int, optuna.Trial] = {}

    def ask(self) -> Trial | None:
        """Begin a trial; None: all that are planned have begun."""
        begun = [trial for trial in self.trials if trial.state != "interrupted"]
        if len(begun) >= self._planned:
            return None
        trial = self._study.ask({dimension.key: _distribution(dimension) for dimension in self._space})
        self._running[trial.number] = trial
        return self._numbered(trial.number)

    def epoch(self, number: int, entry: Mapping[str, Any]) -> bool:
        """Note an epoch of a trial, and say whether the trial goes on.

        Args:
          number: of the trial.
          entry: of the training history.
        """
        trial = self._running[number]
        value = next(value for name, value in entry.items() if name.startswith("val_"))
        trial.report(value, entry["epoch"])
        return self.is_configured(number) or not trial.should_prune()

    def is_configured(self, number: int) -> bool:
        """Tell whether a trial has the settings of the experiment."""
        return bool(self._running[number].user_attrs.get(_CONFIGURED, False))

    def end(self, number: int, outcome: Outcome, *, seconds: float) -> Trial:
        """Note how a trial ended, and return it."""
        import optuna

        trial = self._running.pop(number)
        trial.set_user_attr(_SECONDS, seconds)
        if outcome.reason:
            trial.set_user_attr(_REASON, outcome.reason)
        states = optuna.trial.TrialState
        state = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[outcome.state]
        self._study.tell(trial, outcome.value, state=state)
        return self._numbered(number)

    def interrupt(self) -> int:
        """Mark the trials that began and did not end as failed, ask for their settings again; return how many."""
        import optuna

        left = self._study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING])
        for trial in left:
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            attributes = {_CONFIGURED: trial.user_attrs.get(_CONFIGURED, False), _AGAIN: trial.number}
            self._study.enqueue_trial(trial.params or self._configured(), user_attrs=attributes)
        return len(left)

    def close(self) -> None:
        """Close the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @property
    def trials(self) -> list[Trial]:
        """List the trials that began, in their order."""
        import optuna

        every = self._study.get_trials(deepcopy=False)
        begun = [trial for trial in every if trial.state != optuna.trial.TrialState.WAITING]
        again = {trial.user_attrs[_AGAIN] for trial in every if _AGAIN in trial.user_attrs}
        return [self._trial(trial, is_asked_again=trial.number in again) for trial in begun]

    def _numbered(self, number: int) -> Trial:
        return next(trial for trial in self.trials if trial.number == number)

    def importance(self) -> dict[str, float]:
        """Return how much of the variance of the objective each setting explains, by fANOVA; they add up to 1.

        fANOVA (Hutter et al., ICML 2014) fits a forest of regression trees to the complete trials. Empty where there
        are fewer than four, or all are alike.
        """
        import optuna

        complete = [trial for trial in self.trials if trial.state == "complete"]
        if len(complete) < _WARM_UP or len({trial.value for trial in complete}) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        return {key: float(share) for key, share in found.items() if math.isfinite(share)}

    def _trial(self, trial: optuna.trial.FrozenTrial, *, is_asked_again: bool) -> Trial:
        is_configured = bool(trial.user_attrs.get(_CONFIGURED, False))
        settings = {
            dimension.key: dimension.configured if is_configured else _value(dimension, trial.params[dimension.key])
            for dimension in self._space
            if is_configured or dimension.key in trial.params
        }
        state: State = "interrupted" if is_asked_again else _STATES[trial.state.name]
        curve = tuple(value for _, value in sorted(trial.intermediate_values.items()))
        value = trial.value if state == "complete" else None
        reason, seconds = trial.user_attrs.get(_REASON, ""), trial.user_attrs.get(_SECONDS, 0.0)
        return Trial(trial.number, state, settings, is_configured, value, curve, reason, seconds)

    def _configured(self) -> dict[str, Any]:
        """Return the parameters of Optuna that are the settings of the experiment."""
        return {dimension.key: _parameter(dimension, dimension.configured) for dimension in self._space}


_STATES: Mapping[str, State] = {
    "COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"
}  # fmt: skip


def _distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    """Return what Optuna draws for a setting: a number, the position of an ordered value, or a value as text."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space = dimension.space
    if not isinstance(space, OneOf):
        return FloatDistribution(space.low, space.high, log=space.log)
    if space.ordered:
        return IntDistribution(0, len(space.values) - 1)
    return CategoricalDistribution([value_text(value) for value in space.values])


def _parameter(dimension: Dimension, value: Any) -> Any:
    """Return the parameter of Optuna for a value of a setting."""
    if not isinstance(dimension.space, OneOf):
        return float(value)
    return dimension.space.values.index(value) if dimension.space.ordered else value_text(value)


def _value(dimension: Dimension, parameter: Any) -> Any:
    """Return the value of a setting for a parameter of Optuna."""
    space = dimension.space
    if not isinstance(space, OneOf):
        return min(max(rounded(parameter), space.low), space.high)
    if space.ordered:
        return space.values[parameter]
    return next(value for value in space.values if value_text(value) == parameter)
