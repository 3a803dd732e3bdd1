"""Reads columns of the items and users files: ids, categories and tags become canonical text, numbers are checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recall.config.features import Feature
from recall.core.canonical import LONGEST_ID, id_strings, is_long_id
from recall.core.errors import DataError
from recall.core.tables import numbers, table_format
from recall.core.untyped import UNTYPED, read_untyped
from recall.data.item_attributes import is_list, tag_lists


class ColumnReader:
    """Read columns of ids, categories, tags and titles of one file as canonical text.

    Attributes:
      path: the file.
      format: its format; auto decides by the ending.
      assumed: what was assumed so far of columns without types, a sentence each.
    """

    def __init__(self, path: Path, format: str = "auto") -> None:
        self.path, self.format, self.assumed = path, format, list[str]()
        self._is_typed = format == "attributes" or table_format(path, format) not in UNTYPED

    def texts(self, column: pa.ChunkedArray, key: str, *, name: str | None = None) -> pa.StringArray:
        """Read a column, string [rows].

        Args:
          column: the values.
          key: key of the experiment file that names the column, for errors.
          name: name of the column, where it is known.

        Raises:
          DataError: the values have no exact text; names key and file.
        """
        where = f"column {name} of {self.path}" if name else f"{self.path}"
        try:
            if self._is_typed:
                return id_strings(column)
            found = read_untyped(column)
        except DataError as error:
            raise DataError(f"{key}: {where}: {error}") from error
        note = f"{where}: {found.assumed}"
        if found.assumed and note not in self.assumed:
            self.assumed.append(note)
        return found.texts

    def canonical(
        self,
        table: pa.Table,
        features: Sequence[tuple[str, Feature]],
        *,
        texts: Sequence[tuple[str, str | None]] = (),
        further: Sequence[tuple[str, str]] = (),
    ) -> pa.Table:
        """Replace the columns of id, category and tags features by canonical text, and check columns of numbers.

        Args:
          table: the columns as read.
          features: features with their keys in the experiment file.
          texts: further columns of text with their keys; None: there is no such column.
          further: columns that keep their types, if the file has any.

        Raises:
          DataError: a column's values are not of its feature's type; found here, as encoding would find it only after
            the log has been read.
        """
        found = dict(zip(table.column_names, table.columns, strict=True))
        for key, feature in features:
            name = feature.source
            if feature.type == "number":
                numbers(table[name], what=f"{key}: column {name} of {self.path}")
            elif feature.type == "tags" and is_list(kind := table[name].type):
                found[name] = self._tags(table[name], key, name)
            elif feature.type in ("id", "category", "tags"):
                if pa.types.is_nested(kind := table[name].type):
                    raise DataError(
                        f"{key}: column {name} of {self.path} holds values of type {kind}; expected one {feature.type} "
                        "per row; use type: tags for lists of values, or type: embedding for vectors"
                    )
                found[name] = self.texts(table[name], key, name=name)
        for key, column in texts:
            if column and not pa.types.is_nested(table[column].type):
                found[column] = self.texts(table[column], key, name=column)
        for key, column in further:
            if not self._is_typed:
                found[column] = self.texts(table[column], key, name=column)
        return pa.table(found)

    def _tags(self, column: pa.ChunkedArray, key: str, name: str) -> pa.Array:
        try:
            lists = tag_lists(column, separator=None)
            missing = pa.concat_arrays(column.is_null().chunks) if column.null_count else None
            return pa.ListArray.from_arrays(lists.offsets, lists.values, mask=missing)
        except DataError as error:
            raise DataError(f"{key}: column {name} of {self.path}: {error}") from error


def unique_ids(column: pa.ChunkedArray, *, reader: ColumnReader, key: str) -> pa.StringArray:
    """Return the ids of a table's rows, string [rows].

    Args:
      column: the ids.
      reader: reader of the table's file.
      key: key of the experiment file that names the column, for errors.

    Raises:
      DataError: no rows, an id is missing, too long or there twice; says in which lines. Or the ids are not exact.
    """
    ids, path, format = reader.texts(column, key), reader.path, reader.format
    if not len(ids):
        raise DataError(f"{path}: has no rows; expected at least one")
    missing = np.flatnonzero(ids.is_null().to_numpy(zero_copy_only=False))
    if len(missing):
        lines = _lines(path, format, missing)
        raise DataError(f"{key}: {path} has {len(missing):,} rows without an id ({lines}); fill them in or remove them")
    long = np.flatnonzero(is_long_id(ids).to_numpy(zero_copy_only=False))
    if len(long):
        found = f"{len(long):,} ids of more than {LONGEST_ID} characters ({_lines(path, format, long)})"
        raise DataError(f"{key}: {path} has {found}; shorten them, in the log, too")
    codes = ids.dictionary_encode()
    counts = np.bincount(codes.indices.to_numpy())
    twice = np.flatnonzero(counts > 1)
    if len(twice):
        rows = codes.indices.to_numpy()
        shown = [
            f"{codes.dictionary[code]} ({_lines(path, format, np.flatnonzero(rows == code))})" for code in twice[:3]
        ]
        more = ", ..." if len(twice) > 3 else ""
        raise DataError(
            f"{key}: {path} has {len(twice):,} ids more than once: {', '.join(shown)}{more}; keep one row of each"
        )
    return ids


def _lines(path: Path, format: str, rows: Sequence[int] | Any) -> str:
    """Tell people where rows stand in a file: lines of a text file (header is line 1), rows of Parquet from 0."""
    kind = format if format == "attributes" else table_format(path, format)
    word, first = {"csv": ("lines", 2), "tsv": ("lines", 2), "jsonl": ("lines", 1), "attributes": ("entries", 1)}.get(
        kind, ("rows", 0)
    )
    shown = " and ".join(f"{row + first}" for row in rows[:3])
    return f"{word} {shown}" + (" ..." if len(rows) > 3 else "")
