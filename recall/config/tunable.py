"""Marks the settings that tuning may change, with the values that are worth a try.

A mark stands in the annotation of its setting: `dim: Annotated[PositiveInt, OneOf((16, 32, 64))] = 64`. Reads on in
`search_space.py`, which collects the marks of an experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Tunable:
    """Form the base of marks.

    Attributes:
      needs: dotted key -> values; the setting does something only where each key of the experiment has one of its
        values.
      by_default: whether the setting is tuned without being named in the search space of the user.
      resolved: property of the section that fills in the default of a setting that may be null.
    """

    needs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    by_default: bool = True
    resolved: str = ""


@dataclass(frozen=True)
class OneOf(Tunable):
    """Try some values, as an experiment file has them.

    Attributes:
      values: the values.
      ordered: whether neighbours are alike, as of numbers.
    """

    values: tuple[Any, ...]
    ordered: bool = False


@dataclass(frozen=True)
class Between(Tunable):
    """Try numbers of a range.

    Attributes:
      low: the lowest.
      high: the highest.
      log: draw on a logarithmic scale.
    """

    low: float
    high: float
    log: bool = False
