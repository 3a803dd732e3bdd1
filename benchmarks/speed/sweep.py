"""The sweep file: which rows there are, and the cases of each, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError, model_validator

from recall.config.strict import Strict
from recall.config.yaml_file import describe, read_yaml
from recall.core.errors import ConfigError

SWEEP = Path(__file__).with_name("sweep.yaml")

Cases = dict[str, dict[str, bool | int | float | str]]


class Growth(Strict):
    """A plot of a measure over the size of the work, with the fitted exponent of each line."""

    over: str = Field(description="argument of the cases that says how large the work is")
    measure: str
    by: str = Field(default="system", description="argument of the cases that lines are told apart by")


class Pareto(Strict):
    """A plot of one measure against another, both lists or numbers; the best lie towards the upper right."""

    x: str
    y: str
    by: str = Field(default="system", description="argument of the cases that curves are told apart by")
    largest: str = Field(default="items", description="argument of which only the cases with the largest are shown")


class Row(Strict):
    """One kind of work, done by the library and by its peers side by side."""

    title: str
    module: str | None = Field(default=None, description="dotted name; default: the file in rows/ called as the row")
    cores: int = Field(ge=1, description="that each process is kept to")
    repeats: int = Field(default=3, ge=1)
    repeats_of: dict[str, int] = Field(default={}, description="glob of cases -> other repeats")
    timeout_seconds: float = Field(default=1800, gt=0, description="of one measurement")
    peers: tuple[str, ...] = Field(default=(), description="packages whose versions belong to the result")
    shown: dict[str, str] = Field(description="measure -> its column in the table, e.g. seconds")
    growth: tuple[Growth, ...] = ()
    pareto: tuple[Pareto, ...] = ()
    cases: Cases
    small: Cases = Field(description="the same work in seconds, to see that it runs")

    def repeats_for(self, case: str) -> int:
        """How often a case is measured; the first glob that matches decides. Small variants only show that they run."""
        if case not in self.cases:
            return 1
        return next((count for glob, count in self.repeats_of.items() if fnmatchcase(case, glob)), self.repeats)


class PlannedCase(NamedTuple):
    """One thing to measure."""

    row: str
    case: str
    arguments: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As `--only` and claims call it."""
        return f"{self.row}/{self.case}"


class Sweep(Strict):
    """The whole file; see `load_sweep`."""

    rows: dict[str, Row]

    @model_validator(mode="after")
    def _names_are_files(self) -> Sweep:
        for row, settings in self.rows.items():
            for name in (row, *settings.cases, *settings.small):
                if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
                    raise ValueError(f"rows.{row}: {name!r} becomes a file name; use letters, digits, - _ and .")
        return self

    def plan(self, only: Sequence[str] = (), *, small: bool = False) -> list[PlannedCase]:
        """Cases in the order of the file.

        Args:
          only: globs of ROW or ROW/CASE.
          small: the small variants instead.

        Raises:
          ConfigError: a glob matches nothing.
        """
        known = list(self._everything(small=small))
        for pattern in only:
            if not any(_matches(case, pattern) for case in known):
                raise ConfigError(f"--only {pattern}: matches no ROW/CASE; rows are {', '.join(self.rows)}")
        return [case for case in known if not only or any(_matches(case, pattern) for pattern in only)]

    def _everything(self, *, small: bool) -> Iterator[PlannedCase]:
        for name, row in self.rows.items():
            for case, arguments in (row.small if small else row.cases).items():
                yield PlannedCase(name, case, arguments)


def _matches(case: PlannedCase, pattern: str) -> bool:
    return fnmatchcase(case.row, pattern) or fnmatchcase(case.name, pattern)


def load_sweep(path: Path = SWEEP) -> Sweep:
    """Reads a sweep file.

    Raises:
      ConfigError: says which key is wrong.
    """
    try:
        return Sweep.model_validate(read_yaml(path))
    except ValidationError as error:
        lines = [describe(problem) for problem in error.errors()]
        raise ConfigError(f"{path}: " + ("\n" + " " * 2).join(lines)) from None
