"""Defines what an encoder of a feature can do; `encoders.py` and `named_values.py` have one per type of feature."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from recall.config.features import Feature
from recall.core.arrays import Bools, Int64s
from recall.core.canonical import Column

Kind = Literal["code", "codes", "number", "vector"]


class Output(NamedTuple):
    """Describe a column that an encoder makes: name, kind and size as in `table_encoder.EncodedColumn`."""

    name: str
    kind: Kind
    size: int
    first_size: int = 0


class FeatureEncoder(ABC):
    """Encode a feature once fitted.

    `save` and `load` keep small state as JSON and large state in files `stem`.ending.
    """

    feature: Feature

    @property
    @abstractmethod
    def outputs(self) -> tuple[Output, ...]:
        """Describe the columns that `encode` makes."""

    @abstractmethod
    def encode(self, column: Column) -> list[pa.Array]:
        """Encode a column into one array per output; raises DataError for values that are not of its type."""

    def extended(self, column: Column, *, clicks: Int64s | None) -> FeatureEncoder:
        """Add the values of a column that have become frequent enough; here there is nothing to add.

        Args:
          column: all rows of now.
          clicks: int64 [rows], clicks of each row until now, which an id counts.
        """
        del column, clicks
        return self

    def retired(self, column: Column, *, is_gone: Bools) -> FeatureEncoder:
        """Take the values off the list that only gone rows have; here there is no list.

        Args:
          column: all rows of now.
          is_gone: bool [rows], rows that nobody saw for long. Values that no row has are gone, too.
        """
        del column, is_gone
        return self

    def first(self, size: int, *, without: Sequence[int] = ()) -> FeatureEncoder:
        """Return the encoder of the codes below `size`, without some of them; here there are no others."""
        del size, without
        return self

    def clipped(self, column: Column) -> Bools:
        """Mark the rows whose value was moved into the range that training saw, bool [rows]; here none."""
        return np.zeros(len(column), bool)

    def require_plausible(self, column: Column) -> None:  # noqa: B027 - most types have no range
        """Refuse new values with DataError that are orders of magnitude outside of what training saw; here none."""

    @property
    def allows_missing(self) -> bool:
        """Tell whether a new row may leave the feature out."""
        return True

    @abstractmethod
    def save(self, stem: Path) -> dict[str, Any]:
        """Write files, and return the rest as JSON content."""


def described(feature: Feature) -> str:
    """Name a feature and its column, for errors."""
    return f"feature {feature.name} (column {feature.source})" if feature.column else f"feature {feature.name}"
