"""The sweep file: which experiments there are, on which data, with which seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from benchmarks.quality.data import DataSet
from recall.config.strict import Strict
from recall.config.yaml_file import describe, read_yaml
from recall.core.errors import ConfigError

SWEEP = Path(__file__).with_name("sweep.yaml")


class Group(Strict):
    """Experiments that a table puts side by side."""

    data: tuple[str, ...]
    reference: str | None = Field(default=None, description="experiment that the others are compared with")
    set: dict[str, Any] = Field(default={}, description="overrides for all of its experiments, below their own")


class Experiment(Strict):
    """A model, or a baseline, as a change of the data set's experiment file."""

    groups: tuple[str, ...] = Field(min_length=1)
    label: str | None = Field(default=None, description="how tables call it; default: its name")
    data: tuple[str, ...] = Field(default=("*",), description="globs: which of the groups' data sets")
    set: dict[str, Any] = Field(default={}, description="overrides: dotted key -> value")
    where: dict[str, dict[str, Any]] = Field(default={}, description="glob of data sets -> further overrides")
    only_where: bool = Field(default=False, description="leave out data sets that no glob of `where` matches")
    config: dict[str, Path] = Field(default={}, description="glob of data sets -> another experiment file")
    baseline: Literal["popularity", "trending", "item_knn", "content_knn", "content_knn_top3"] | None = Field(
        default=None, description="instead of a model"
    )
    intervene: Literal["blind_gate"] | None = Field(default=None, description="see interventions.py")
    taught: Literal["beside", "instead", "first"] | None = Field(
        default=None, description="content vectors of `recall content train`, see data.py"
    )
    asked: Literal["model", "student"] = Field(default="model", description="whose queries are measured")
    seeds: tuple[int, ...] | None = Field(default=None, description="default: those of the sweep")

    def changes(self, data: str) -> dict[str, Any]:
        """Return its own overrides for a data set: dotted key -> value."""
        merged = dict(self.set)
        for pattern, further in self.where.items():
            if fnmatchcase(data, pattern):
                merged |= further
        return merged

    def config_path(self, data: str) -> Path | None:
        """The experiment file that replaces that of the data set, if any."""
        return next((path for pattern, path in self.config.items() if fnmatchcase(data, pattern)), None)

    def runs_on(self, data: str) -> bool:
        """Whether the experiment makes sense on a data set of its groups."""
        wanted = any(fnmatchcase(data, pattern) for pattern in self.data)
        return wanted and (not self.only_where or any(fnmatchcase(data, pattern) for pattern in self.where))


class PlannedRun(NamedTuple):
    """One training, or one baseline."""

    experiment: str
    data: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.experiment}--{self.data}--seed{self.seed}"


class Sweep(Strict):
    """The whole file; see `load_sweep`."""

    seeds: tuple[int, ...] = Field(min_length=1)
    data: dict[str, DataSet]
    groups: dict[str, Group]
    experiments: dict[str, Experiment]
    published: dict[str, dict[str, dict[str, tuple[float, ...]]]] = Field(default={})

    @model_validator(mode="after")
    def _names_lead_somewhere(self) -> Sweep:
        for name, group in self.groups.items():
            if unknown := set(group.data) - set(self.data):
                raise ValueError(f"groups.{name}.data names {sorted(unknown)}; expected some of {sorted(self.data)}")
            if group.reference and group.reference not in self.experiments:
                raise ValueError(f"groups.{name}.reference: there is no experiment {group.reference}")
        for name, experiment in self.experiments.items():
            if unknown := set(experiment.groups) - set(self.groups):
                raise ValueError(
                    f"experiments.{name}.groups names {sorted(unknown)}; expected some of {sorted(self.groups)}"
                )
            first, *others = experiment.groups
            if differing := [other for other in others if self.groups[other].set != self.groups[first].set]:
                raise ValueError(
                    f"experiments.{name}.groups: {first} and {differing[0]} set different things, and one experiment "
                    "has one result; make it two experiments"
                )
        return self

    def overrides(self, experiment: str, data: str) -> list[str]:
        """Return `dotted.key=value` pairs of an experiment for a data set: of its groups, then its own."""
        known = self.experiments[experiment]
        merged = self.groups[known.groups[0]].set | known.changes(data)
        return [f"{key}={json.dumps(value)}" for key, value in merged.items()]  # JSON is YAML

    def label(self, experiment: str) -> str:
        """How tables call an experiment."""
        return self.experiments[experiment].label or experiment

    def members(self, group: str, data: str) -> list[str]:
        """Experiments of a group that run on a data set, in the order of the file."""
        if data not in self.groups[group].data:
            return []
        return [
            name
            for name, experiment in self.experiments.items()
            if group in experiment.groups and experiment.runs_on(data)
        ]

    def members_anywhere(self, group: str) -> list[str]:
        """Experiments of a group that run on any of its data sets, in the order of the file."""
        somewhere = {name for data in self.groups[group].data for name in self.members(group, data)}
        return [name for name in self.experiments if name in somewhere]

    def plan(self, only: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[PlannedRun]:
        """Runs in the order of the file, each once.

        Args:
          only: globs of `GROUP/EXPERIMENT/DATA`; a run counts if one of them matches it in one of its groups.
          seeds: instead of those of the sweep; experiments with seeds of their own keep those.

        Raises:
          ConfigError: a glob matches nothing.
        """
        known = list(self._everything())
        for pattern in only:
            if not any(fnmatchcase(path, pattern) for path, _, _ in known):
                raise ConfigError(
                    f"--only {pattern}: matches no GROUP/EXPERIMENT/DATA; the first is {known[0][0]}, "
                    f"groups are {', '.join(self.groups)}"
                )
        runs = [
            PlannedRun(name, data, seed)
            for path, name, data in known
            if not only or any(fnmatchcase(path, pattern) for pattern in only)
            for seed in self.experiments[name].seeds or seeds or self.seeds
        ]
        return list(dict.fromkeys(runs))

    def _everything(self) -> Iterator[tuple[str, str, str]]:
        for group_name, group in self.groups.items():
            for data in group.data:
                for name in self.members(group_name, data):
                    yield f"{group_name}/{name}/{data}", name, data


def load_sweep(path: Path = SWEEP) -> Sweep:
    """Reads a sweep file; experiment files in it become paths relative to its folder.

    Raises:
      ConfigError: says which key is wrong.
    """
    content = read_yaml(path)
    for entry in (content.get("data") or {}).values():
        if isinstance(entry, dict) and "config" in entry:
            entry["config"] = path.parent / entry["config"]
    for entry in (content.get("experiments") or {}).values():
        if isinstance(entry, dict) and isinstance(files := entry.get("config"), Mapping):
            entry["config"] = {pattern: path.parent / file for pattern, file in files.items()}
    try:
        return Sweep.model_validate(content)
    except ValidationError as error:
        lines = [describe(problem) for problem in error.errors()]
        raise ConfigError(f"{path}: " + ("\n" + " " * 2).join(lines)) from None
