"""Repeats the best and the configured settings with other seeds, to tell a gain from luck.

The best of many trials is partly the luckiest of them: its value in the study is too high. Trainings with seeds that
nothing was chosen by have no such bias.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from recall.config.experiment import Config
from recall.config.search_space import with_settings
from recall.core.artifacts import read_json, write_text
from recall.core.errors import RecallError
from recall.runs.tuning.pool import take_trials
from recall.runs.tuning.shared_data import SharedData
from recall.runs.tuning.trial import EXPERIMENT, METRICS, MODEL, Outcome, Task

CONFIGURED, BEST = "configured", "best"


@dataclass
class Repeats:
    """Give out the trainings of both settings with other seeds, and take their values.

    Those that were done before are read.

    Attributes:
      config: the experiment as configured.
      settings: the best settings.
      count: seeds: the ones after the experiment's own.
      directory: folder of the trainings.
      data: prepared data.
      console: shows a line for each.
      values: (name, seed) -> objective.
    """

    config: Config
    settings: Mapping[str, Any]
    count: int
    directory: Path
    data: SharedData
    console: Console
    values: dict[tuple[str, int], float] = field(default_factory=dict)

    def gains(self, *, jobs: int, log: Path) -> tuple[float, ...]:
        """Train what is missing, and return the gain of the best settings with each seed.

        Args:
          jobs: trainings at once.
          log: see `take_trials`.

        Raises:
          RecallError: a training failed.
        """
        self._left = [
            (name, seed)
            for seed in range(self.config.seed + 1, self.config.seed + 1 + self.count)
            for name in (CONFIGURED, BEST)
        ]
        take_trials(self, jobs=jobs, log=log)
        seeds = sorted({seed for _, seed in self.values})
        return tuple(self.values[BEST, seed] - self.values[CONFIGURED, seed] for seed in seeds)

    def next(self) -> Task | None:
        """Return the next training that was not done before."""
        while self._left:
            name, seed = self._left.pop(0)
            config = with_settings(self.config, self.settings if name == BEST else {})
            folder, data = self.directory / f"{name}-seed-{seed}", self.data.of(config)
            text = config.replaced(seed=seed).to_yaml()
            if (folder / METRICS).exists() and (folder / EXPERIMENT).read_text() == text:
                self.values[name, seed] = read_json(folder / METRICS)["value"]
                continue
            folder.mkdir(parents=True, exist_ok=True)
            (folder / METRICS).unlink(missing_ok=True)
            write_text(folder / EXPERIMENT, text)
            return Task(folder, data)  # the data of the experiment's own seed: the training alone is repeated
        return None

    def epoch(self, task: Task, entry: Mapping[str, Any]) -> bool:
        """Let every training go on."""
        return True

    def end(self, task: Task, outcome: Outcome) -> None:
        """Take the value of a training.

        Raises:
          RecallError: it failed.
        """
        if outcome.value is None:
            raise RecallError(f"{task.folder.name}: {outcome.reason}; run the same command again, or use --confirm 0")
        name, _, seed = task.folder.name.split("-")
        shutil.rmtree(task.folder / MODEL, ignore_errors=True)
        self.values[name, int(seed)] = outcome.value
        self.console.print(f"{name} settings with seed {seed}: {outcome.value:.4f}")
