"""Reads raw item rows of callers: checks their ids, and turns their values into JSON values."""

from __future__ import annotations

import collections
import json
import math
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd

from recall.core.errors import DataError
from recall.core.tables import id_list
from recall.index.items import listed
from recall.serving.items.encode import RawRows


def records_of(rows: RawRows) -> list[dict[str, Any]]:
    """Convert rows to dictionaries."""
    if isinstance(rows, pd.DataFrame):
        return [dict(zip(rows.columns, values, strict=True)) for values in rows.itertuples(index=False, name=None)]
    return [dict(row) for row in rows]


def item_ids_of(values: Iterable[Any], *, column: str) -> list[str]:
    """Read ids in the way of the items file.

    Raises:
      DataError: an id is missing or stands more than once.
    """
    ids = id_list(values, what=column)
    if ids.null_count:
        raise DataError(f"{column}: {ids.null_count:,} of {len(ids):,} items have no id; every item needs one")
    names: list[str] = ids.to_pylist()
    if len(set(names)) < len(names):
        repeated = [name for name, count in collections.Counter(names).items() if count > 1]
        raise DataError(f"{column}: {len(repeated):,} ids stand more than once: {listed(repeated)}")
    return names


def as_json(row: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Convert a raw row to JSON values, without missing values. Moments become ISO 8601 text.

    Raises:
      DataError: a value has no JSON form; begins with `where`.
    """
    plain = {name: _plain_value(value) for name, value in row.items()}
    plain = {name: value for name, value in plain.items() if value is not None}
    try:
        return dict(json.loads(json.dumps(plain, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: a value cannot be kept as JSON ({error})") from None


def _plain_value(value: Any) -> Any:
    """Convert NumPy values, moments and lists to plain Python values; None for a missing one."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_plain_value(part) for part in value]
    return value
