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
from recall.core.canonical import Column, flat, id_strings
from recall.core.errors import DataError, shown
from recall.core.tables import numbers
from recall.core.untyped import Kind, kind_of, read_as
from recall.data.features.raw_values import brought, is_missing, number_of, tags_of, text_of

TAGS = pa.list_(pa.string())


@dataclass(frozen=True)
class ItemAttributes:
    """Hold attributes of some items.

    Attributes:
      ids: string [items], unique.
      table: row i is of item i: columns as `attribute_columns` makes them, null where the file has no value.
      separators: by column of tags, the separator of tags that come as one text.
      kinds: kinds of columns that were found so far; see `kind`.
    """

    ids: pa.StringArray
    table: pa.Table
    separators: Mapping[str, str] = field(default_factory=dict)
    kinds: dict[str, Kind | None] = field(default_factory=dict)

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
        return flat(self.table[name])

    def of(self, ids: pa.StringArray) -> ItemAttributes:
        """Reorder to other ids; an id without attributes gets missing values."""
        if ids.equals(self.ids):
            return self
        return ItemAttributes(ids, self.table.take(pc.index_in(ids, value_set=self.ids)), self.separators, self.kinds)

    def take(self, places: AnyInts) -> ItemAttributes:
        """Select the items at some places."""
        at = pa.array(places)
        return ItemAttributes(self.ids.take(at), self.table.take(at), self.separators, self.kinds)

    def joined(self, other: ItemAttributes) -> ItemAttributes:
        """Append the attributes of other items."""
        table = pa.concat_tables([self.table, other.table]).combine_chunks()
        return ItemAttributes(pa.concat_arrays([self.ids, other.ids]), table, self.separators, self.kinds)

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
        return ItemAttributes(
            pa.array(ids, pa.string()), pa.table(columns, schema=self.table.schema), self.separators, self.kinds
        )

    def kind(self, column: str) -> Kind | None:
        """Return what all values of a column are, numbers or truth values; None for text and for other columns.

        Attributes that were derived from others keep the kinds of the first ones, which are found at the first use.
        """
        if column not in self.kinds:
            kind = self.table.schema.field(column).type
            if pa.types.is_string(kind):
                self.kinds[column] = kind_of(flat(self.table[column]))
            else:
                is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
                self.kinds[column] = "truth" if pa.types.is_boolean(kind) else "number" if is_number else None
        return self.kinds[column]

    def _read(self, values: Sequence[Any], column: pa.Field) -> pa.Array:
        try:
            return self._brought(values, column)
        except DataError as error:
            raise DataError(f"attribute {column.name}: {error}") from error

    def _brought(self, values: Sequence[Any], column: pa.Field) -> pa.Array:
        kind = column.type
        if kind == TAGS:
            separator = self.separators.get(column.name)
            return pa.array(brought(values, lambda value: _tags(value, separator), column=column.name), TAGS)
        if pa.types.is_string(kind):
            return pa.array(brought(values, lambda value: self._text(value, column.name), column=column.name), kind)
        if pa.types.is_float64(kind):
            return pa.array(brought(values, number_of, column=column.name), kind)
        return pa.array(brought(values, lambda value: _value_of(value, kind), column=column.name), kind)

    def _text(self, value: Any, column: str) -> str | None:
        text = text_of(value)
        return read_as(self.kind(column), text) if isinstance(value, str) and text is not None else text


def _tags(value: Any, separator: str | None) -> list[str]:
    return [] if is_missing(value) else tags_of(value, separator=separator)


def _value_of(value: Any, kind: pa.DataType) -> Any:
    """Bring a value to an Arrow type; raises ValueError for a value that has none there."""
    if is_missing(value) or value == "":
        return None
    try:
        return pa.array([value], from_pandas=True).cast(kind)[0].as_py()
    except (pa.ArrowException, TypeError, OverflowError, UnicodeEncodeError) as error:
        raise ValueError(f"expected a value of type {kind}, found {shown(repr(value))} ({error})") from None


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
    inner = kind.value_type if is_list(kind) else kind
    is_bytes = pa.types.is_binary(inner) or pa.types.is_large_binary(inner)
    if pa.types.is_nested(inner) or is_bytes or (is_list(kind) and pa.types.is_floating(inner)):
        raise DataError(f"{what} holds values of type {kind}; expected text, numbers, times, or lists of text")


def tag_lists(column: Column, *, separator: str | None) -> pa.ListArray:
    """Split tags into list<string> [rows], read as ids are and without missing ones; no tags give an empty list.

    Args:
      column: lists, or text that is split.
      separator: separator of the tags in a text; None: a text is one tag.

    Raises:
      DataError: lists of lists.
    """
    array = flat(column)
    if not is_list(array.type):
        text = id_strings(array)
        own = pa.array(np.arange(len(text) + 1, dtype=np.int32))
        array = pc.split_pattern(text, separator) if separator else pa.ListArray.from_arrays(own, text)
    values = id_strings(pc.list_flatten(array))
    rows = np.asarray(pc.list_parent_indices(array))
    there = np.asarray(values.is_valid())
    offsets = np.searchsorted(rows[there], np.arange(len(array) + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values.drop_null().cast(pa.string()))


def _as_kept(column: Column) -> pa.Array:
    if is_list(column.type):
        return tag_lists(column, separator=None)
    array = flat(column)
    is_text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
    if pa.types.is_float16(array.type):
        return array.cast(pa.float32())
    return id_strings(array) if is_text or pa.types.is_null(array.type) else array


def is_list(kind: pa.DataType) -> bool:
    """Tell whether values of a type are lists."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
