"""Raw rows of items as callers bring them: checked ids, and values as JSON can hold them."""

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
    """Rows as dictionaries."""
    if isinstance(rows, pd.DataFrame):
        return [dict(zip(rows.columns, values, strict=True)) for values in rows.itertuples(index=False, name=None)]
    return [dict(row) for row in rows]


def item_ids_of(values: Iterable[Any], *, column: str) -> list[str]:
    """Ids as the items file's are read."""
    ids = id_list(values, what=column)
    if ids.null_count:
        raise DataError(f"{column}: {ids.null_count:,} of {len(ids):,} items have no id; every item needs one")
    names: list[str] = ids.to_pylist()
    if len(set(names)) < len(names):
        repeated = [name for name, count in collections.Counter(names).items() if count > 1]
        raise DataError(f"{column}: {len(repeated):,} ids stand more than once: {listed(repeated)}")
    return names


def as_json(row: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """A raw row as JSON can hold it; what is missing is left out. Moments become text as ISO 8601 writes them."""
    plain = {name: _plain_value(value) for name, value in row.items()}
    plain = {name: value for name, value in plain.items() if value is not None}
    try:
        return dict(json.loads(json.dumps(plain, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: a value cannot be kept as JSON ({error})") from None


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_plain_value(part) for part in value]
    return value
