"""Reads raw item rows of callers: checks their ids, and turns their values into JSON values."""

from __future__ import annotations

import collections
import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
import pandas as pd

from recall.config.features import Feature
from recall.core.canonical import canonical_text, id_list
from recall.core.errors import DataError, shown
from recall.data.features.raw_values import raw_value
from recall.data.features.table_encoder import TableEncoder
from recall.index.items import listed

RawRows: TypeAlias = Sequence[Mapping[str, Any]] | pd.DataFrame


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


class RowReader:
    """Check the rows of new items, and bring their values to the types of the columns of the items file.

    Args:
      encoder: encoder of raw item rows.
      attributes: names of the attributes of the catalogue.
      file_columns: all columns of the items file; None where the run did not note them.
    """

    def __init__(
        self, encoder: TableEncoder, *, attributes: Sequence[str] = (), file_columns: Sequence[str] | None = None
    ) -> None:
        self._features = collections.defaultdict[str, list[Feature]](list)
        for _, fitted in encoder.features:
            self._features[fitted.feature.source].append(fitted.feature)
        self._needed = {fitted.feature.source for _, fitted in encoder.features if not fitted.allows_missing}
        self._read = {*self._features, *attributes}
        self._known = None if file_columns is None else {*file_columns, *self._read}

    def require_columns(self, rows: RawRows) -> None:
        """Refuse columns that the items file has not, and rows that leave out a vector which every item has.

        A column whose value is null is there: its item has none.

        Raises:
          DataError: names the row and the columns, with the one that may have been meant.
        """
        is_frame = isinstance(rows, pd.DataFrame)
        keys: list[set[Any]] = [set(rows.columns)] if isinstance(rows, pd.DataFrame) else [set(row) for row in rows]
        for place, names in enumerate(keys):
            where = "new items" if is_frame else f"new items: row {place} (counted from 0)"
            if unknown := self._unknown(names):
                told = [shown(name) + (f" (for {meant}?)" if meant else "") for name, meant in unknown.items()]
                raise DataError(
                    f"{where}: unknown columns {', '.join(told)}; the items file has "
                    f"{', '.join(sorted(self._known or self._read))}"
                )
            if lacking := sorted(self._needed - names):
                raise DataError(
                    f"{where}: no {', '.join(lacking)}, which every item of the items file has; add vectors made in "
                    "the same way, or null for an item that cannot have one"
                )

    def typed(self, records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
        """Convert rows to JSON values of their columns' types, without missing values.

        Args:
          records: the rows.
          names: an id for each row, for errors.

        Raises:
          DataError: a value cannot be brought to the type of its column; names item, column, and what was expected.
        """
        return [self._typed(row, f"item {name}") for row, name in zip(records, names, strict=True)]

    def _typed(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        found = dict(row)
        for column in row:
            features = self._features.get(column, ())
            try:
                values = [raw_value(feature, row[column]) for feature in features]
            except ValueError as error:
                raise DataError(f"{where}, column {column}: {error}") from None
            if len({feature.type for feature in features}) == 1:  # else one column is read in several ways
                found[column] = values[0]
        return as_json(found, where=where)

    def _unknown(self, names: set[str]) -> dict[str, str | None]:
        """Map unknown columns to the columns that were probably meant: read ones that are not there."""
        others = names - (self._read if self._known is None else self._known)
        meant = {
            name: next(iter(difflib.get_close_matches(str(name), self._read - names, n=1, cutoff=0.75)), None)
            for name in sorted(others, key=str)
        }
        # Without the columns of the file, a column that no feature reads cannot be told from a mistake but by its name.
        return {name: close for name, close in meant.items() if close or self._known is not None}


def as_json(row: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Convert a raw row to JSON values, without missing values. Moments become ISO 8601 text.

    Raises:
      DataError: a value has no JSON form; begins with `where`.
    """
    try:
        plain = {name: _plain_value(value) for name, value in row.items()}
        plain = {name: value for name, value in plain.items() if value is not None}
        return dict(json.loads(json.dumps(plain, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: a value cannot be kept as JSON ({error})") from None


def _plain_value(value: Any) -> Any:
    """Convert NumPy values, moments and lists to plain Python values; None for a missing one."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str) and not value.isascii():
        value.encode()  # half a pair of surrogates is no text
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, UUID | Decimal | bytes):
        return canonical_text(value)
    if isinstance(value, list | tuple):
        return [_plain_value(part) for part in value]
    return value
