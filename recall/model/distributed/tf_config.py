"""Reads from `TF_CONFIG`, as TensorFlow, Kubeflow and Vertex AI set it, which workers train together."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from recall.config.experiment import Config
from recall.core.errors import ConfigError

VARIABLE = "TF_CONFIG"
_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Cluster:
    """Describe the workers that train one model in step, of which this process is one.

    Attributes:
      count: how many there are, at least two.
      index: which one this is; 0 is the chief, who alone writes files.
    """

    count: int
    index: int

    @classmethod
    def of_environment(cls) -> Cluster | None:
        """Read `TF_CONFIG`; None where it is not set or names one worker.

        Raises:
          ConfigError: it cannot be read, or gives this process a task that is no worker's.
        """
        text = os.environ.get(VARIABLE, "")
        if not text.strip():
            return None
        try:
            content = json.loads(text)
            workers = {kind: list(content["cluster"].get(kind, [])) for kind in ("chief", "worker")}
            kind, index = content["task"]["type"], int(content["task"]["index"])
            others = sorted(set(content["cluster"]) - set(workers))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{VARIABLE}: expected such as {_EXAMPLE}, found {text}; correct or unset it") from error
        if others:
            raise ConfigError(
                f"{VARIABLE}: found {', '.join(others)} in the cluster, but every process trains and holds the whole "
                "model; list workers only, and optionally one chief"
            )
        if kind not in workers or not 0 <= index < len(workers[kind]):
            raise ConfigError(
                f"{VARIABLE}: this process is {kind} {index}, which the cluster does not list; it lists "
                + ", ".join(f"{len(addresses)} of type {name}" for name, addresses in workers.items())
            )
        count = sum(map(len, workers.values()))
        return cls(count, index + (len(workers["chief"]) if kind == "worker" else 0)) if count > 1 else None

    @property
    def is_chief(self) -> bool:
        """Return whether this process writes what is published."""
        return self.index == 0

    def part_of(self, total: int) -> range:
        """Return this worker's share of `total` rows: shares are disjoint, and of equal size within one."""
        return range(total * self.index // self.count, total * (self.index + 1) // self.count)

    def check(self, config: Config, *, records: int) -> None:
        """Refuse what several workers cannot train.

        Args:
          config: the experiment.
          records: training records that there are.

        Raises:
          ConfigError: names each key, and what to do.
        """
        model, training = config.model, config.training
        alone = {
            "model.loss.softmax: full": model.loss.softmax == "full",
            "model.student": model.student is not None,
            "model.category_head": model.category_head is not None,
            "training.stages": bool(training.stages),
        }
        if found := [key for key, is_set in alone.items() if is_set]:
            raise ConfigError(
                f"{VARIABLE} names {self.count} workers, but {', '.join(found)} can be trained by one only; unset "
                f"{VARIABLE}, or remove {'it' if len(found) == 1 else 'them'}"
            )
        if (batch := min(training.batch_size, records)) < self.count:
            raise ConfigError(
                f"{VARIABLE} names {self.count} workers, but a batch has {batch} examples (training.batch_size "
                f"{training.batch_size} is that of all workers together, and there are {records}); use fewer workers"
            )
