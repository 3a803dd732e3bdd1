"""Brings Python values of callers' rows to the types of features, one by one: rows need not agree in type.

`table_encoder.py` encodes the columns that are made here; `recall.serving.items` keeps the values in its journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from recall.config.features import EmbeddingFeature, Feature, NumberFeature, TagsFeature
from recall.core.canonical import canonical_text
from recall.core.errors import DataError, shown
from recall.core.tables import parse_numbers

_EXPECTED = {
    "id": "text or a whole number",
    "category": "text, a number or a truth value",
    "tags": "a list of tags, or one text",
    "number": "a finite number",
    "embedding": "a list of finite numbers",
}


def is_missing(value: Any) -> bool:
    """Tell whether a value stands for nothing: None, NaN, NaT, or pandas' NA."""
    is_nan = isinstance(value, float | np.floating) and value != value
    return value is None or is_nan or value is pd.NA or value is pd.NaT


def raw_value(feature: Feature, value: Any) -> Any:
    """Bring a value to the type of a feature.

    Returns:
      text of an id or a category, a list of texts of tags, a float, or the vector as it is; None for a missing value.

    Raises:
      ValueError: the value cannot be brought there; says what was expected.
    """
    if is_missing(value):
        return None
    try:
        if isinstance(feature, TagsFeature):
            return tags_of(value, separator=feature.separator)
        if isinstance(feature, NumberFeature):
            return number_of(value)
        if isinstance(feature, EmbeddingFeature):
            return _vector(value)
        return text_of(value)
    except UnicodeEncodeError as error:
        raise ValueError(f"expected Unicode text, found {error.reason}") from None
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(value, list | tuple | dict) and feature.type in ("id", "category"):
            kind = type(value).__name__
            raise ValueError(f"expected ids, found values of type {kind}; use type: tags for lists") from None
        reason = f" ({error})" if "exact" in str(error) else ""
        raise ValueError(f"expected {_EXPECTED[feature.type]}, found {shown(repr(value))}{reason}") from None


def raw_column(feature: Feature, values: Sequence[Any], *, strict: bool = True) -> pa.Array:
    """Make the column of a feature from the values of rows.

    Args:
      feature: the feature.
      values: one per row; None where missing.
      strict: refuse a value that cannot be brought to the feature's type; otherwise it counts as missing.

    Raises:
      DataError: a value cannot be brought to the feature's type; names row and column.
    """
    if isinstance(feature, TagsFeature):
        kind: pa.DataType = pa.list_(pa.string())
    elif isinstance(feature, NumberFeature):
        kind = pa.float64()
    else:
        kind = pa.list_(pa.float32()) if isinstance(feature, EmbeddingFeature) else pa.string()
    found = list(brought(values, lambda value: raw_value(feature, value), column=feature.source, strict=strict))
    return pa.array(found, kind)


def brought(values: Iterable[Any], convert: Callable[[Any], Any], *, column: str, strict: bool = True) -> Iterable[Any]:
    """Convert the values of a column one by one.

    Raises:
      DataError: `convert` raised ValueError for a value and `strict` is set; names row and column.
    """
    for row, value in enumerate(values):
        try:
            yield convert(value)
        except ValueError as error:
            if strict:
                raise DataError(f"row {row} (counted from 0), column {column}: {error}") from None
            yield None


def text_of(value: Any) -> str | None:
    """Return the canonical text of a value, None for a missing one and for empty text; else raises ValueError."""
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return None
    return canonical_text(value)


def tags_of(value: Any, *, separator: str | None) -> list[str]:
    """Return tags as texts, without missing ones; a single text is split. Raises ValueError for other values."""
    if isinstance(value, str):
        parts: Iterable[Any] = value.split(separator) if separator else [value]
    else:
        parts = value if isinstance(value, list | tuple | set | frozenset | np.ndarray) else [value]
    return [text for text in (text_of(part) for part in parts) if text is not None]


def number_of(value: Any) -> float | None:
    """Return a number as `parse_numbers` reads it, None for a missing one; raises ValueError for other values."""
    if type(value) in (int, float) and abs(value) < 1e300:  # nearly all, and Arrow takes 50 us for each
        return float(value)
    try:
        values, wrong = parse_numbers(pa.array([value], from_pandas=True))
    except (pa.ArrowException, OverflowError, DataError):
        raise ValueError("no number") from None
    if wrong[0]:
        raise ValueError("no number")
    return None if np.isnan(values[0]) else float(values[0])


def _vector(value: Any) -> Any:
    """Check a vector; an empty list is a missing one."""
    vector = np.asarray(value)
    if vector.ndim != 1 or (vector.size and (vector.dtype.kind not in "fiu" or not np.isfinite(vector).all())):
        raise ValueError("no vector")
    with np.errstate(over="ignore"):
        vector = vector.astype(np.float32)
    if not np.isfinite(vector).all():
        raise ValueError("no vector")
    return vector
