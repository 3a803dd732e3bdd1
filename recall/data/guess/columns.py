"""Summarises a column of a sample: what its values are, how many differ, and some of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import Float64s
from recall.core.canonical import flat, texts
from recall.core.errors import DataError
from recall.core.tables import parse_numbers

Kind: TypeAlias = Literal["empty", "truth", "whole", "number", "text", "moment", "tags", "vector", "other"]
_LEADING_ZERO = r"^-?0\d"
_FEWEST_DIMENSIONS = 4


@dataclass(frozen=True)
class Column:
    """Hold a column of a sample and what it shows.

    Attributes:
      name: name in the file.
      kind: what the values are: `empty` where all are missing, `truth` for true and false, `whole` and `number`,
        `text`, `moment` for typed dates and times, `tags` for lists of texts or whole numbers, `vector` for lists of
        numbers of one length, and `other`.
      values: the values as read, [rows].
    """

    name: str
    kind: Kind
    values: pa.Array

    @property
    def rows(self) -> int:
        """Count the rows."""
        return len(self.values)

    @cached_property
    def filled(self) -> int:
        """Count the rows with a value: empty text and NaN are none."""
        if self.kind in ("tags", "vector"):
            return int(pc.sum(pc.greater(pc.fill_null(pc.list_value_length(self.values), 0), 0)).as_py() or 0)
        return len(self.text.drop_null()) if self.kind not in ("empty", "other") else 0

    @cached_property
    def text(self) -> pa.Array:
        """Return the canonical texts of single values, string [rows]."""
        return texts(self.values)

    @cached_property
    def distinct(self) -> frozenset[str]:
        """Return the different texts of single values."""
        return frozenset() if self.is_list else frozenset(pc.unique(self.text).drop_null().to_pylist())

    @cached_property
    def numbers(self) -> Float64s:
        """Return the numbers, float64 [filled]; none where the values are no numbers."""
        if self.kind not in ("whole", "number", "truth"):
            return np.zeros(0)
        found, _ = parse_numbers(self.values)
        return found[~np.isnan(found)]

    @property
    def is_list(self) -> bool:
        """Tell whether a value is a list, or a structure."""
        return self.kind in ("tags", "vector", "other")

    @property
    def is_constant(self) -> bool:
        """Tell whether all values that are there are the same one."""
        return not self.is_list and len(self.distinct) == 1

    @property
    def is_key(self) -> bool:
        """Tell whether every row has a value of its own."""
        return not self.is_list and self.rows > 0 and len(self.distinct) == self.rows

    @property
    def can_be_id(self) -> bool:
        """Tell whether the values may name something: text or whole numbers, more than one."""
        return self.kind in ("text", "whole") and len(self.distinct) > 1

    def shown(self, most: int = 3) -> str:
        """Show some values, the shortest first, in one line."""
        examples = sorted(sorted(self.distinct)[:200], key=len)[:most]
        return " ".join(", ".join(examples).split())[:60]


def columns_of(table: pa.Table) -> dict[str, Column]:
    """Summarise the columns of a table, by name. A name that is there twice is left out."""
    names = [name for name in table.column_names if table.column_names.count(name) == 1]
    return {name: column_of(name, table[name]) for name in names}


def column_of(name: str, values: pa.Array | pa.ChunkedArray) -> Column:
    """Summarise a column."""
    array = flat(values)
    return Column(name, _kind(array), array)


def _kind(array: pa.Array) -> Kind:
    kind = array.type
    if pa.types.is_null(kind) or array.null_count == len(array):
        return "empty"
    if pa.types.is_boolean(kind):
        return "truth"
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return "moment"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _kind_of_lists(array)
    try:
        text = texts(array).drop_null()
    except DataError:
        return "other"
    if not len(text):
        return "empty"
    if set(pc.unique(pc.utf8_lower(text.slice(0, 1_000))).to_pylist()) <= {"true", "false"}:
        return "truth"
    if pc.any(pc.match_substring_regex(text, _LEADING_ZERO)).as_py() and not pa.types.is_floating(kind):
        return "text"  # a postcode 04103 is no number
    found, wrong = parse_numbers(array)
    if wrong.any():
        return "text"
    found = found[~np.isnan(found)]
    if not len(found):
        return "empty"
    return "whole" if (found == np.floor(found)).all() else "number"


def _kind_of_lists(array: pa.Array) -> Kind:
    element = array.type.value_type
    lengths = np.unique(pc.list_value_length(array).drop_null().to_numpy(zero_copy_only=False))
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return "empty"
    if pa.types.is_floating(element):
        return "vector" if len(lengths) == 1 and lengths[0] >= _FEWEST_DIMENSIONS else "other"
    is_text = pa.types.is_string(element) or pa.types.is_large_string(element)
    return "tags" if is_text or pa.types.is_integer(element) else "other"


def words_of(name: str) -> tuple[str, ...]:
    """Split a name into its words in small letters: `videoId`, `video_id` and `Video ID` are (video, id)."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return tuple(word for word in re.split(r"[^A-Za-z0-9]+", parted.lower()) if word)
