"""Reads JSON lines as a table in which text stays text and whole numbers stay exact.

Arrow takes text that looks like a date for a moment, and a column with one number beyond int64 for floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

# Enough records to see the type of nearly every column, and little beside a whole file.
_HEAD_BYTES = 1 << 18
_EXACT_BELOW = 2.0**53
_WHOLE = pa.decimal128(38, 0)


def read_json_lines(opened: Callable[[], BinaryIO], *, block_bytes: int) -> pa.Table:
    """Read JSON lines.

    Args:
      opened: opens the file; called for each pass over it. One pass is the rule.
      block_bytes: size of the blocks that are parsed; a record has to fit into one.

    Returns:
      A table with one column per field. Texts are strings, whatever they look like. Whole numbers beyond int64 are
      decimals, unless fractions or numbers of more than 38 digits stand in the same column, which is float then.

    Raises:
      pyarrow.ArrowException: the file is no JSON lines, or the values of a field differ in type.
    """
    head = _head(opened, block_bytes)
    types = {field.name: _as_text(field.type) for field in head.schema if _holds(field.type, _is_text)}
    table = _read(opened, types, block_bytes)
    if later := [field for field in table.schema if _holds(field.type, pa.types.is_timestamp)]:
        types |= {field.name: _as_text(field.type) for field in later}
        table = _read(opened, types, block_bytes)
    table = _with_whole_numbers(table, opened, types, block_bytes)
    return table.select(list(dict.fromkeys([*head.column_names, *table.column_names])))


def _read(opened: Callable[[], BinaryIO], types: Mapping[str, pa.DataType], block_bytes: int) -> pa.Table:
    """Read the file with the types of some fields given; these come first."""
    with opened() as stream:
        return pa.json.read_json(
            stream,
            read_options=pa.json.ReadOptions(block_size=block_bytes),
            parse_options=pa.json.ParseOptions(explicit_schema=pa.schema(list(types.items())) if types else None),
        )


def _head(opened: Callable[[], BinaryIO], block_bytes: int) -> pa.Table:
    """Read the first records; an empty table where they cannot be read by themselves."""
    with opened() as stream:
        head = stream.read(_HEAD_BYTES)
    head = head[: head.rfind(b"\n") + 1] or head
    try:
        return pa.json.read_json(pa.BufferReader(head), read_options=pa.json.ReadOptions(block_size=block_bytes))
    except pa.ArrowException:
        return pa.table({})  # the whole file tells what is wrong


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_timestamp(kind))


def _holds(kind: pa.DataType, is_wanted: Callable[[pa.DataType], bool]) -> bool:
    """Tell whether a type, an element of its lists, or a field of its structures is a wanted one."""
    return is_wanted(kind) or any(_holds(kind.field(place).type, is_wanted) for place in range(kind.num_fields))


def _as_text(kind: pa.DataType) -> pa.DataType:
    """Return a type with strings in the place of moments."""
    if pa.types.is_list(kind):
        return pa.list_(_as_text(kind.value_type))
    if pa.types.is_struct(kind):
        # Numbers of a structure stay open: the first records may hold whole ones and later records fractions.
        return pa.struct([(field.name, _as_text(field.type)) for field in kind if _holds(field.type, _is_text)])
    return pa.string() if _is_text(kind) else kind


def _with_whole_numbers(
    table: pa.Table, opened: Callable[[], BinaryIO], types: Mapping[str, pa.DataType], block_bytes: int
) -> pa.Table:
    """Read columns of floats again as whole numbers where floats were too large to be exact."""
    for name in table.column_names:
        column = table[name]
        kind = column.type
        is_list = pa.types.is_list(kind)
        if not pa.types.is_float64(kind.value_type if is_list else kind) or not _is_inexact(column):
            continue
        whole = {name: pa.list_(_WHOLE) if is_list else _WHOLE}
        try:
            again = _read(opened, {**types, **whole}, block_bytes)
        except pa.ArrowException:  # fractions, or too many digits: whoever needs exact numbers refuses floats
            continue
        table = table.set_column(table.column_names.index(name), name, again[name])
    return table


def _is_inexact(column: pa.ChunkedArray) -> bool:
    """Tell whether a column of floats, or of lists of floats, has a value beyond the whole numbers of float64."""
    values = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    low, high = pc.min_max(values).as_py().values()
    return low is not None and (low <= -_EXACT_BELOW or high >= _EXACT_BELOW)
