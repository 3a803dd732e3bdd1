"""Holds the result of a tuning, and writes it: best.yaml and tune.json."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from recall.config.experiment import Config
from recall.config.search_space import Dimension, value_text
from recall.core.artifacts import write_json, write_text
from recall.runs.tuning.study import Trial

BEST, SUMMARY, PAGE = "best.yaml", "tune.json", "tune.html"


@dataclass(frozen=True)
class Tuned:
    """Hold the result of a tuning.

    Attributes:
      directory: of the tuning; best.yaml, tune.html and tune.json lie there.
      config: the experiment with the best settings.
      settings: dotted key -> value, of the settings that differ from the experiment; empty where nothing was better.
      metric: what the trials were judged by, e.g. `rolling recall@50`, on the validation clicks.
      trials: all trials, in their order.
      best: the trial with the highest metric.
      configured: the trial with the settings of the experiment; None where it failed.
      gains: of the best trial's settings over the configured ones, with each of some further seeds; empty where
        nothing was repeated.
      clicks: number of validation clicks; 0: not known.
    """

    directory: Path
    config: Config
    settings: Mapping[str, Any]
    metric: str
    trials: Sequence[Trial]
    best: Trial
    configured: Trial | None
    gains: tuple[float, ...] = ()
    clicks: int = 0

    @property
    def gain(self) -> float | None:
        """Return the mean of the gains; without repeated trainings the gain in the study; None without either."""
        if self.gains:
            return sum(self.gains) / len(self.gains)
        values = self.best.value, self.configured.value if self.configured else None
        return None if values[0] is None or values[1] is None else values[0] - values[1]

    @property
    def is_noise(self) -> bool:
        """Tell whether the gain may be chance: of the training, as a seed has none, or of the validation clicks."""
        return (bool(self.gains) and min(self.gains) <= 0) or self._is_within_clicks

    @property
    def _reach(self) -> float:
        """Return the largest difference of two shares of the validation clicks that may be chance, at 95%.

        1.96 standard errors of two independent measurements. Both settings are judged on the same clicks, which as a
        rule makes the true error smaller; the correlation of one user's clicks makes it larger.
        """
        share = self.best.value or 0.0
        return 1.96 * math.sqrt(2 * share * (1 - share) / self.clicks) if self.clicks else 0.0

    @property
    def _is_within_clicks(self) -> bool:
        return self.gain is not None and not self.best.is_configured and 0 < self.gain < self._reach

    @property
    def sentences(self) -> list[str]:
        """Say what came of it, in plain sentences."""
        done = [trial for trial in self.trials if trial.state != "interrupted"]
        said = [f"{len(done)} trials, judged by {self.metric} of the validation clicks; the test clicks were not read."]
        if self.configured is None or self.configured.value is None:
            said.append(f"The settings as configured failed; trial {self.best.number} is best ({self.best.value:.4f}).")
        elif self.best.is_configured:
            said.append(f"No trial was better than the settings as configured ({self.configured.value:.4f}).")
        else:
            said.append(
                f"Trial {self.best.number} is best: {self.best.value:.4f}, as configured {self.configured.value:.4f}."
            )
        if self.gains:
            said.append(_of_gains(self.gains))
        elif not self.best.is_configured:
            said.append(
                "The gain was not confirmed with other seeds: the best of many trials is partly the luckiest of them."
            )
        if self._is_within_clicks:
            said.append(
                f"With {self.clicks:,} validation clicks a gain below {self._reach:.4f} is within their sampling noise."
            )
        if self.gains and not self.settings:
            said.append("So the best file has the settings as configured.")
        return said

    def write(self, space: Sequence[Dimension]) -> None:
        """Write best.yaml and tune.json."""
        write_text(self.directory / BEST, self._best_yaml(space))
        content = {
            "metric": self.metric, "settings": dict(self.settings), "gain": self.gain, "gains": list(self.gains),
            "is_noise": self.is_noise, "trials": [asdict(trial) for trial in self.trials],
        }  # fmt: skip
        write_json(self.directory / SUMMARY, content)

    def _best_yaml(self, space: Sequence[Dimension]) -> str:
        """Return the resolved experiment, with the gain above it and the old value beside each changed setting."""
        text = self.config.to_yaml()
        lines, places = text.splitlines(), _lines_of(text)
        for dimension in space:
            if dimension.key in self.settings:
                lines[places[dimension.key]] += f"  # tuned; was {value_text(dimension.configured)}"
        head = [*self.sentences, "Train and test it: recall run best.yaml --out RUN"]
        said = [line for sentence in head for line in textwrap.wrap(sentence, 110)]
        return "".join(f"# {line}\n" for line in said) + "\n".join(lines) + "\n"


def _of_gains(gains: Sequence[float]) -> str:
    mean, low, high = sum(gains) / len(gains), min(gains), max(gains)
    seeds = f"{len(gains)} other seeds" if len(gains) > 1 else "another seed"
    said = f"Trained again with {seeds} both ways, the best settings gain {mean:+.4f}"
    said += f" ({low:+.4f} to {high:+.4f})." if len(gains) > 1 else "."
    if low > 0:
        return said
    return f"{said} Such a gain is within the noise of the training: take it for none."


def _lines_of(text: str) -> dict[str, int]:
    """Return the line of each key of a YAML mapping, by dotted key, from 0."""
    found: dict[str, int] = {}

    def visit(node: yaml.Node, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                found[prefix + key.value] = key.start_mark.line
                visit(value, f"{prefix}{key.value}.")

    if (root := yaml.compose(text, Loader=yaml.SafeLoader)) is not None:
        visit(root, "")
    return found
