"""Keeps the attributes of items: the columns of the items file by which served lists are filtered and capped.

They keep the values of the file, unlike the towers' features, for which rare values share a code. A column holds text
(ids and categories as ids are read), numbers, moments, or several texts for each item (tags).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recall.config.features import Feature, TagsFeature
from recall.core.arrays import AnyInts
from recall.core.errors import DataError
from recall.core.tables import Column, id_strings, numbers

TAGS = pa.list_(pa.string())


@dataclass(frozen=True)
class ItemAttributes:
    """Hold attributes of some items.

    Attributes:
      ids: string [items], unique.
      table: row i is of item i: columns as `attribute_columns` makes them, null where the file has no value.
      separators: by column of tags, the separator of tags that come as one text.
    """

    ids: pa.StringArray
    table: pa.Table
    separators: Mapping[str, str] = field(default_factory=dict)

    def column(self, name: str, *, what: str) -> pa.Array:
        """Return the values of a column.

        Args:
          name: name of the column.
          what: the setting that asks for it, for the error.

        Raises:
          DataError: there is no column of this name; lists the names.
        """
        if name not in self.table.column_names:
            raise DataError(
                f"{what}: items have no attribute {name}; they have {', '.join(self.table.column_names) or 'none'}. "
                "Columns of the items file that no feature reads are kept if data.items.attributes names them"
            )
        return _flat(self.table[name])

    def of(self, ids: pa.StringArray) -> ItemAttributes:
        """Reorder to other ids; an id without attributes gets missing values."""
        if ids.equals(self.ids):
            return self
        return ItemAttributes(ids, self.table.take(pc.index_in(ids, value_set=self.ids)), self.separators)

    def take(self, places: AnyInts) -> ItemAttributes:
        """Select the items at some places."""
        at = pa.array(places)
        return ItemAttributes(self.ids.take(at), self.table.take(at), self.separators)

    def joined(self, other: ItemAttributes) -> ItemAttributes:
        """Append the attributes of other items."""
        table = pa.concat_tables([self.table, other.table]).combine_chunks()
        return ItemAttributes(pa.concat_arrays([self.ids, other.ids]), table, self.separators)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, ids: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> ItemAttributes:
        """Read attributes of further items into the same columns.

        Args:
          ids: unique.
          rows: raw values under the column names of the items file; absent values are missing.

        Raises:
          DataError: a value is not of its column's type.
        """
        columns = {kind.name: self._read([row.get(kind.name) for row in rows], kind) for kind in self.table.schema}
        return ItemAttributes(pa.array(ids, pa.string()), pa.table(columns, schema=self.table.schema), self.separators)

    def _read(self, values: Sequence[Any], column: pa.Field) -> pa.Array:
        what = f"attribute {column.name}"
        try:
            raw = pa.array(values, from_pandas=True)
            if column.type == TAGS:
                return tag_lists(raw, separator=self.separators.get(column.name))
            if pa.types.is_string(column.type):
                return id_strings(raw)
            if pa.types.is_float64(column.type):
                return pa.array(numbers(raw, what=what), from_pandas=True)
            return raw.cast(column.type)
        except (pa.ArrowException, TypeError) as error:
            raise DataError(f"{what}: expected values of type {column.type} ({error})") from error
        except DataError as error:
            raise DataError(f"{what}: {error}") from error


def attribute_columns(items: pa.Table, features: Sequence[Feature], *, further: Sequence[str] = ()) -> pa.Table:
    """Select the attributes among the columns of an items file.

    Columns of id and category features become text, of number features float64, of tags lists of text, whatever their
    number. Vectors are no attributes.

    Args:
      items: raw columns.
      features: features that are read from them.
      further: columns that are kept as they are.

    Raises:
      DataError: a column is of a type that nothing can be asked of; see `require_attribute`.
    """
    columns: dict[str, pa.Array] = {}
    for feature in features:
        if feature.type == "embedding" or feature.source in columns:
            continue
        raw = items[feature.source]
        if isinstance(feature, TagsFeature):
            columns[feature.source] = tag_lists(raw, separator=feature.separator)
        elif feature.type == "number":
            columns[feature.source] = pa.array(numbers(raw), from_pandas=True)
        else:
            columns[feature.source] = id_strings(raw)
    for name in further:
        require_attribute(raw := items[name], what=name)
        if name not in columns:
            columns[name] = _as_kept(raw)
    return pa.table(columns)


def separators_of(features: Sequence[Feature]) -> dict[str, str]:
    """Map columns of tags to the text that joins the tags of one item."""
    return {feature.source: feature.separator for feature in features if isinstance(feature, TagsFeature)}


def require_attribute(column: Column, *, what: str) -> None:
    """Raise DataError if nothing can be asked of values of a column's type: vectors, structures, bytes."""
    kind = column.type
    inner = kind.value_type if _is_list(kind) else kind
    if pa.types.is_nested(inner) or pa.types.is_binary(inner) or (_is_list(kind) and pa.types.is_floating(inner)):
        raise DataError(f"{what} holds values of type {kind}; expected text, numbers, times, or lists of text")


def tag_lists(column: Column, *, separator: str | None) -> pa.ListArray:
    """Split tags into list<string> [rows], read as ids are and without missing ones; no tags give an empty list.

    Args:
      column: lists, or text that is split.
      separator: separator of the tags in a text; None: a text is one tag.

    Raises:
      DataError: lists of lists.
    """
    array = _flat(column)
    if not _is_list(array.type):
        text = id_strings(array)
        array = pc.split_pattern(text, separator) if separator else pa.array([[tag] for tag in text], TAGS)
    values = id_strings(pc.list_flatten(array))
    rows = np.asarray(pc.list_parent_indices(array))
    there = np.asarray(values.is_valid())
    offsets = np.searchsorted(rows[there], np.arange(len(array) + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values.drop_null().cast(pa.string()))


def _as_kept(column: Column) -> pa.Array:
    if _is_list(column.type):
        return tag_lists(column, separator=None)
    array = _flat(column)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    is_text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
    return id_strings(array) if is_text else array


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _flat(column: Column) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
