"""What a case leaves: results/ROW/CASE.json with every single measurement, its median and its spread."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from recall.core.artifacts import write_json

RESULTS = Path(__file__).with_name("results")

Value = float | list[float]


@dataclass(frozen=True)
class Result:
    """The JSON of one case.

    Attributes:
      row: its row.
      case: its name in the row.
      content: the whole JSON.
    """

    row: str
    case: str
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        """ROW/CASE."""
        return f"{self.row}/{self.case}"

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Of the case."""
        return self.content["arguments"]

    @property
    def median(self) -> Mapping[str, Value]:
        """Measure -> median over the repeats; of a list element by element."""
        return self.content["median"]

    def repeats(self, measure: str) -> list[Value]:
        """A measure in each repeat."""
        return [one[measure] for one in self.content["repeats"]]


class Results:
    """All results of a folder."""

    def __init__(self, folder: Path = RESULTS) -> None:
        found = (read_result(path) for path in sorted(folder.glob("*/*.json")))
        self._by_name = {result.name: result for result in found}

    def __iter__(self) -> Iterator[Result]:
        return iter(self._by_name.values())

    def matching(self, pattern: str) -> list[Result]:
        """Results whose ROW/CASE matches a glob."""
        return [result for name, result in self._by_name.items() if fnmatchcase(name, pattern)]


def write_result(
    folder: Path, row: str, case: str, *, repeats: Sequence[Mapping[str, Any]], about: Mapping[str, Any]
) -> None:
    """Writes the JSON of one case.

    Args:
      folder: of all results.
      row: its row.
      case: its name.
      repeats: per measurement, in the order of time, its numbers by name.
      about: arguments, command, environment, date.
    """
    names = list(repeats[0])
    values = {name: np.array([one[name] for one in repeats], float) for name in names}
    content = {
        "row": row,
        "case": case,
        **about,
        "median": {name: np.median(of_name, axis=0).tolist() for name, of_name in values.items()},
        "lowest": {name: of_name.min(axis=0).tolist() for name, of_name in values.items()},
        "highest": {name: of_name.max(axis=0).tolist() for name, of_name in values.items()},
        "repeats": list(repeats),
    }
    (folder / row).mkdir(parents=True, exist_ok=True)
    write_json(folder / row / f"{case}.json", content)


def read_result(path: Path) -> Result:
    """Reads what `write_result` wrote."""
    content = json.loads(path.read_text())
    return Result(content["row"], content["case"], content)
