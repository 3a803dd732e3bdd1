"""Puts measured numbers into pages, from the results that benchmarks/ keeps.

`[[live_gated/demo rolling.all.recall@50]]` in a page becomes the mean over the seeds of that experiment on that data
set; a number in a path chooses an entry of a list by its `from`: `rolling.by_exposures.10.recall@50`.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "quality" / "results"
_NUMBER = re.compile(r"(?<!`)\[\[(?P<experiment>\w+)/(?P<data>[\w-]+) (?P<path>[\w.@]+)\]\]")


def fill_numbers(markdown: str) -> str:
    """Fill in the numbers of a page, with three digits, counts whole.

    Raises:
      ValueError: there is no result of this name, or no such number in it.
    """
    return _NUMBER.sub(lambda match: _text(mean(match["experiment"], match["data"], match["path"])), markdown)


def mean(experiment: str, data: str, path: str) -> float | int:
    """Return the mean over seeds of a number in the test part of the results; a count as it is.

    Raises:
      ValueError: there is no result of this name, or no such number in it.
    """
    found = [_value(block, path, f"{experiment}/{data}") for block in test_blocks(experiment, data)]
    return found[0] if isinstance(found[0], int) else sum(found) / len(found)


@functools.cache
def test_blocks(experiment: str, data: str) -> tuple[dict[str, Any], ...]:
    """Return the test metrics of an experiment on a data set, one of each seed.

    Raises:
      ValueError: there is no such result.
    """
    return tuple(next(iter(result["metrics"]["test"].values())) for result in results(experiment, data))


@functools.cache
def results(experiment: str, data: str) -> tuple[dict[str, Any], ...]:
    """Read the results of an experiment on a data set, one of each seed.

    Raises:
      ValueError: there is none.
    """
    paths = sorted(RESULTS.glob(f"{experiment}--{data}--seed*.json"))
    if not paths:
        raise ValueError(f"benchmarks/quality/results has no {experiment}--{data}--seed*.json")
    return tuple(json.loads(path.read_text()) for path in paths)


def _value(block: Any, path: str, name: str) -> Any:
    for part in path.split("."):
        if isinstance(block, list):
            block = next((entry for entry in block if entry["from"] == int(part)), None)
        else:
            block = block.get(part)
        if block is None:
            raise ValueError(f"the results of {name} have no {path}")
    return block


def _text(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
