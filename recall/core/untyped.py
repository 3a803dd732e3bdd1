"""Reads columns of files that know no types but text (CSV, TSV): ids, categories and tags get their canonical text.

pandas writes a column of whole numbers in which some are missing as 12.0, and truth as True. Such a column is told by
all of its values: one other value, such as 007, 1e5 or 1.10, and the column holds text, which stays as it is.
"""

from __future__ import annotations

import contextlib
import re
from typing import Literal, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from recall.core.canonical import canonical_text, id_strings, texts

UNTYPED = ("csv", "tsv")
"""Formats of files without types."""

# Numbers as Python and pandas write them; whole ones without a point may be among them.
_NUMBER = r"^-?(0|[1-9]\d*)(\.(0|\d*[1-9]))?(e[+-]\d{2,3})?$"
_CANONICAL_NUMBER = r"^-?(0|[1-9]\d*)(\.\d*[1-9])?$"
_TRUTHS = ("true", "false")

Kind: TypeAlias = Literal["number", "truth"]


class Assumed(NamedTuple):
    """Hold what was assumed of a column: what its values are, and one of them as it is written and as it was read."""

    kind: str
    written: str
    read: str

    def __str__(self) -> str:
        return f"its values are read as {self.kind}: {self.written} is {self.read}"


class Untyped(NamedTuple):
    """Hold a column of a file without types.

    Attributes:
      texts: canonical text, string [rows], null where missing.
      assumed: what was assumed; None where the text stayed as it is.
    """

    texts: pa.StringArray
    assumed: Assumed | None = None


def read_untyped(column: pa.Array | pa.ChunkedArray) -> Untyped:
    """Read a column as what its values show it to be: numbers, truth values, or text.

    Args:
      column: string [rows].

    Raises:
      DataError: the column holds floats, and one of 2^53 or more; see `id_strings`.
    """
    text = texts(column)
    first = next((value for value in text.slice(0, 1_000).to_pylist() if value is not None), None)
    if first is None:
        first = pc.first(text).as_py()
    if first is None:
        return Untyped(text)
    if first.lower() in _TRUTHS:
        return _truths(text)
    if re.match(_NUMBER, first):
        return _numbers(text)
    return Untyped(text)


def untyped_dictionary(array: pa.DictionaryArray) -> tuple[pa.DictionaryArray, Assumed | None]:
    """Read a dictionary of texts as `read_untyped` does; returns it and what was assumed."""
    found = read_untyped(array.dictionary)
    if found.assumed is None:
        return array, None
    merged = found.texts.dictionary_encode()  # 3.0 and 3 are the same
    return pa.DictionaryArray.from_arrays(merged.indices.take(array.indices), merged.dictionary), found.assumed


def kind_of(text: pa.StringArray) -> Kind | None:
    """Tell what the values of a column of canonical text are: all numbers, all truth values, or else None."""
    text = text.drop_null()
    if not len(text):
        return None
    if text[0].as_py() in _TRUTHS:
        return "truth" if pc.all(pc.is_in(text, value_set=pa.array(_TRUTHS))).as_py() else None
    if not re.match(_CANONICAL_NUMBER, text[0].as_py()):
        return None
    return "number" if pc.all(pc.match_substring_regex(text, _CANONICAL_NUMBER)).as_py() else None


def read_as(kind: Kind | None, text: str) -> str:
    """Read a text that a caller compares with a column as a value of the column's kind: 3.0 is 3, and True is true."""
    if kind == "truth" and text.lower() in _TRUTHS:
        return text.lower()
    if kind == "number" and re.match(_NUMBER, text) and not re.match(_CANONICAL_NUMBER, text):
        with contextlib.suppress(ValueError):  # too large to be exact
            return canonical_text(float(text))
    return text


def read_all_as(kind: Kind, text: pa.StringArray) -> pa.StringArray:
    """Read texts as `read_as` does, string [rows]."""
    found = text.dictionary_encode()
    values = found.dictionary.to_pylist()
    read = [None if value is None else read_as(kind, value) for value in values]
    return text if read == values else pa.array(read, pa.string()).take(found.indices)


def _truths(text: pa.StringArray) -> Untyped:
    lower = pc.utf8_lower(text)
    if not pc.all(pc.is_in(lower, value_set=pa.array(_TRUTHS), skip_nulls=True).filter(text.is_valid())).as_py():
        return Untyped(text)
    return _changed(text, lower, "truth values")


def _numbers(text: pa.StringArray) -> Untyped:
    # Few columns hold a float, and these two tests take a fifth of the time of the pattern.
    if not (pc.any(pc.ends_with(text, ".0")).as_py() or pc.any(pc.match_substring(text, "e")).as_py()):
        return Untyped(text)
    if not pc.all(pc.match_substring_regex(text, _NUMBER)).as_py():
        return Untyped(text)
    is_float = pc.match_substring_regex(text, "[.e]")
    floats = pc.if_else(is_float, text, pa.scalar(None, pa.string())).cast(pa.float64())
    return _changed(text, pc.if_else(is_float, id_strings(floats), text), "numbers")


def _changed(text: pa.StringArray, read: pa.StringArray, kind: str) -> Untyped:
    """Say what was read otherwise than it is written."""
    other = pc.fill_null(pc.not_equal(text, read), False)
    if not pc.any(other).as_py():
        return Untyped(text)
    place = pc.index(other, True).as_py()
    return Untyped(read, Assumed(kind, text[place].as_py(), read[place].as_py()))
