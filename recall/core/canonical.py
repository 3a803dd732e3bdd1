"""Converts values to their one canonical text, as which ids, categories and tags are kept and compared.

Every file, filter and request is read through here, so that a value is the same value wherever it comes from:

    text          itself, stripped; empty text is missing
    truth         true, false
    whole number  its digits, of a float or a decimal too: 12.0 is 12
    other number  the shortest text that gives the number back: 2.5
    date, moment  2024-01-31, and 2024-01-31 12:00:00 as pandas writes it; with a time zone in UTC, with +00:00
    UUID          32 digits in groups, in small letters
    bytes         the text that they hold as UTF-8

`untyped.py` reads columns of files that know no types but text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import Float64s
from recall.core.errors import DataError, shown

Column: TypeAlias = pa.Array | pa.ChunkedArray

LONGEST_ID = 512
"""Characters of an id at most, in files, requests and calls alike: what can be added can be asked for and deleted."""

_BITS_OF_WHOLE_NUMBERS = {16: 11, 32: 24, 64: 53}
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint8).reshape(256, 2)
_UUID_GROUPS = (8, 4, 4, 4, 12)


def id_strings(column: Column) -> pa.StringArray:
    """Convert ids, categories or tags to canonical text, string [rows]; empty text and NaN are null.

    Args:
      column: values of any type but lists and structures, or a dictionary of these.

    Raises:
      DataError: the column holds lists or structures, bytes that are no text, or floats of 2^53 and more, among which
        other numbers have become the same.
    """
    array = flat(column)
    _require_exact(array)
    return texts(array)


def id_dictionary(column: Column) -> pa.DictionaryArray:
    """Convert ids as `id_strings` does, into a dictionary of int32 and string; only indices hold nulls."""
    if pa.types.is_nested(column.type):
        raise DataError(f"expected ids, found values of type {column.type}")
    column = plain(column)
    kind = column.type
    if pa.types.is_null(kind) or pa.types.is_float16(kind) or pa.types.is_decimal(kind):
        column = id_strings(column)  # Arrow has no dictionary of these, or only a half one
    encoded = column.dictionary_encode()
    array = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    canonical = id_strings(array.dictionary).dictionary_encode()  # values that differ may be the same text
    return pa.DictionaryArray.from_arrays(canonical.indices.take(array.indices), canonical.dictionary)


def used_only(array: pa.DictionaryArray) -> pa.DictionaryArray:
    """Drop the dictionary entries that no row uses; the values stay the same."""
    codes, size = array.indices.fill_null(-1).to_numpy(), len(array.dictionary)
    used = np.zeros(size + 1, bool)
    used[codes] = True
    if used[:-1].all():
        return array
    place = np.cumsum(used[:-1], dtype=np.int32) - np.int32(1)
    codes = np.append(place, np.int32(-1))[codes]
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), array.dictionary.filter(pa.array(used[:-1])))


def id_list(values: Iterable[Any], *, what: str) -> pa.StringArray:
    """Convert Python values to ids as `id_strings` does.

    Raises:
      DataError: values of several types, one that is no Unicode text or longer than `LONGEST_ID`; begins with `what`.
    """
    try:
        ids = id_strings(_array_of(list(values)))
    except DataError as error:
        raise DataError(f"{what}: {error}") from None
    except UnicodeEncodeError as error:
        raise DataError(f"{what}: an id is no Unicode text ({error.reason}); decode it as UTF-8 first") from None
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        found = shown(error, most=300)
        raise DataError(f"{what}: expected ids of one type, all text or all whole numbers ({found})") from None
    if pc.any(is_long_id(ids)).as_py():
        first = ids.filter(is_long_id(ids))[0].as_py()
        raise DataError(f"{what}: expected ids of at most {LONGEST_ID} characters, found {shown(first, most=40)}")
    return ids


def is_long_id(ids: pa.StringArray) -> pa.BooleanArray:
    """Mark the ids of more than `LONGEST_ID` characters."""
    return pc.greater(pc.utf8_length(ids), LONGEST_ID)


def canonical_text(value: Any) -> str:
    """Convert one Python value to canonical text.

    Raises:
      ValueError: the value is missing, a list or a structure, or has no exact text.
    """
    if isinstance(value, str):
        text = value.strip()
    elif isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
    else:
        is_infinite = isinstance(value, float | np.floating) and not np.isfinite(value)
        if value is None or is_infinite or isinstance(value, list | tuple | dict | set):
            raise ValueError("expected text or a number")
        try:
            text = id_strings(_array_of([value]))[0].as_py()
        except DataError as error:
            raise ValueError(str(error)) from None
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            raise ValueError("expected text or a number") from None
    if not text:
        raise ValueError("expected a value, found empty text" if text == "" else "expected text or a number")
    if not text.isascii():
        text.encode()  # half a pair of surrogates is no text: a UnicodeEncodeError, which is a ValueError
    return text


def texts(column: Column, *, expected: str = "ids") -> pa.StringArray:
    """Convert values to canonical text without a look at what floats may have lost, string [rows].

    Args:
      column: as of `id_strings`.
      expected: what the values should be, for errors.

    Raises:
      DataError: the column holds lists or structures, or bytes that are no text.
    """
    array = flat(column)
    kind = array.type
    if pa.types.is_nested(kind):
        raise DataError(f"expected {expected}, found values of type {kind}")
    if pa.types.is_floating(kind):
        return _of_floats(array)
    if pa.types.is_decimal(kind):
        return _of_decimals(array)
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        return _of_moments(array)
    try:
        text = array.cast(pa.string())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"expected {expected}, found bytes that are not UTF-8 text ({error}); decode them first, and write UUIDs "
            "as text or with the type UUID"
        ) from error
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (is_text or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return text
    text = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def flat(column: Column) -> pa.Array:
    """Return the values of a column as one array of a plain type, without dictionary."""
    column = plain(column)
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # beyond 2 GB of text combine_chunks keeps chunks
        array = pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in array.chunks])
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def plain(column: Column) -> Column:
    """Replace the types that Arrow's functions know badly: extensions, views, run ends, and short decimals.

    UUIDs become text, and bytes of one length bytes of any length. Elements of lists are replaced too.
    """
    kind = column.type
    if isinstance(column, pa.ChunkedArray):
        if _is_plain(kind):
            return column
        chunks = [plain(chunk) for chunk in column.chunks]
        return pa.chunked_array(chunks, chunks[0].type if chunks else plain(pa.array([], kind)).type)
    if _is_plain(kind):
        return column
    if isinstance(kind, pa.BaseExtensionType):
        if isinstance(kind, pa.UuidType):
            return _of_uuids(column.storage)
        if isinstance(kind, pa.Bool8Type):
            return column.cast(pa.bool_())
        return plain(column.storage)
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(column))
    if pa.types.is_dictionary(kind):
        return pa.nulls(len(column)) if pa.types.is_null(kind.value_type) else plain(column.dictionary_decode())
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return column.cast(pa.large_binary())
    if _is_narrow_decimal(kind):
        return column.cast(pa.decimal128(kind.precision, kind.scale))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    return pa.LargeListArray.from_arrays(offsets, plain(pc.list_flatten(column)), mask=column.is_null())


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) and pa.types.is_null(kind.value_type):
        return False
    if pa.types.is_dictionary(kind) or _is_any_list(kind):
        return _is_plain(kind.value_type) and not (pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))
    return not (
        isinstance(kind, pa.BaseExtensionType)
        or pa.types.is_run_end_encoded(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
        or _is_narrow_decimal(kind)
    )


def _is_narrow_decimal(kind: pa.DataType) -> bool:
    return bool(pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind))


def _is_any_list(kind: pa.DataType) -> bool:
    tests = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in tests)


def _array_of(values: list[Any]) -> pa.Array:
    """Make an array of Python values; whole numbers beyond int64 become their digits."""
    try:
        return pa.array(values, from_pandas=True)
    except OverflowError:
        if not all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in values):
            raise
        return pa.array([str(value) for value in values], pa.string())


def _require_exact(array: pa.Array) -> None:
    """Refuse floats so large that whole numbers beside each other are the same float."""
    if not pa.types.is_floating(array.type):
        return
    bits = array.type.bit_width
    values = _float64s(array)
    lost = np.flatnonzero(np.abs(values) >= 2.0 ** _BITS_OF_WHOLE_NUMBERS[bits])  # NaN is neither
    lost = lost[np.isfinite(values[lost])]
    if lost.size:
        one = values[lost[0]].item()
        raise DataError(
            f"expected exact ids, found {lost.size:,} floats of {bits} bits that are too large to tell numbers beside "
            f"each other apart, such as {int(one) if abs(one) < 1e20 else one}; write the values as whole numbers "
            "(int64, in pandas Int64 where some are missing) or as text, from where they are still exact"
        )


def _float64s(array: pa.Array) -> Float64s:
    return np.asarray(array.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _of_floats(array: pa.Array) -> pa.StringArray:
    values = _float64s(array)
    whole = (values == np.floor(values)) & (np.abs(values) < 2.0**63)
    integers = pa.array(np.where(whole, values, 0).astype(np.int64)).cast(pa.string())
    if whole.all():
        return integers
    # In the array's own type the text is the shortest: the float32 next to .1 is .1, and not .10000000149011612.
    fractions = (array.cast(pa.float32()) if pa.types.is_float16(array.type) else array).cast(pa.string())
    fractions = pc.if_else(pa.array(np.isnan(values)), pa.scalar(None, pa.string()), fractions)
    return pc.if_else(pa.array(whole), integers, fractions)


def _of_decimals(array: pa.Array) -> pa.StringArray:
    text = array.cast(pa.string())
    if pc.any(pc.match_substring(text, "E")).as_py():  # 1.000E-7
        text = pa.array([None if value is None else f"{value:f}" for value in array.to_pylist()], pa.string())
    if array.type.scale <= 0:
        return text
    return pc.replace_substring_regex(pc.replace_substring_regex(text, r"(\.\d*?)0+$", r"\1"), r"\.$", "")


def _of_moments(array: pa.Array) -> pa.StringArray:
    zone = getattr(array.type, "tz", None)
    if zone:
        array = array.cast(pa.timestamp(array.type.unit, "UTC"))
    text = pc.utf8_rtrim(array.cast(pa.string()), characters="Z")
    text = pc.replace_substring_regex(pc.replace_substring_regex(text, r"(\.\d*?)0+$", r"\1"), r"\.$", "")
    if zone:
        return pc.binary_join_element_wise(text, "+00:00", "")
    return pc.replace_substring_regex(text, r" 00:00:00$", "") if pa.types.is_timestamp(array.type) else text


def _of_uuids(storage: pa.Array) -> pa.StringArray:
    """Write UUIDs, fixed-size binary of 16 bytes, as text."""
    joined = storage.cast(pa.binary())
    there = joined.is_valid().to_numpy(zero_copy_only=False)
    digits = np.frombuffer(b"".join(joined.drop_null().to_pylist()), np.uint8).reshape(-1, 16)
    hexadecimal = _HEX[digits].reshape(-1, 32)
    parts, start = [], 0
    for group in _UUID_GROUPS:
        parts += [hexadecimal[:, start : start + group], np.full((len(digits), 1), ord("-"), np.uint8)]
        start += group
    written = np.ascontiguousarray(np.concatenate(parts[:-1], axis=1))
    offsets = pa.array(np.arange(len(digits) + 1, dtype=np.int32) * 36)
    found = pa.StringArray.from_buffers(len(digits), offsets.buffers()[1], pa.py_buffer(written))
    return found.take(pa.array(np.cumsum(there) - 1, mask=~there))
