"""Writes the tables of a data set, whole ones and ones that are too large to hold: these are read in parts.

A reader gives a `Dataset` (`files.py`) where all fits into memory, else a `StreamedDataset`.
"""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recall.core.arrays import Int64s
from recall.core.errors import ArtifactError
from recall.core.parquet import write_parts

Parts: TypeAlias = Callable[[], Iterator[pa.Table]]
"""Reads a table anew and yields it in parts of one schema, at least one, which may be empty."""

ROWS = 1 << 20
"""Rows of a part, about."""
_MERGED_AT_ONCE = 1 << 24


@dataclass(frozen=True, kw_only=True)
class StreamedDataset:
    """Hold a data set whose log is read in parts, with the column names that its example experiment uses.

    Attributes:
      events: reads the log, one row per exposure.
      items: the catalogue, one row per item.
      users: one row per user, or None where the source has no profiles.
      extras: further tables of the source by name, read in parts.
      dropped: rows of the source that were not taken, by reason; rows of the log are counted while it is read.
    """

    events: Parts
    items: pa.Table
    users: pa.Table | None = None
    extras: Mapping[str, Parts] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)

    def write(self, folder: str | Path) -> list[Path]:
        """Write events.parquet, items.parquet, users.parquet and the extras, as `write_tables` does."""
        users = {} if self.users is None else {"users": self.users}
        return write_tables(folder, {"events": self.events, "items": self.items, **users, **self.extras})


def write_tables(folder: str | Path, tables: Mapping[str, pa.Table | Parts]) -> list[Path]:
    """Write tables as NAME.parquet; other files of the folder stay as they are.

    All files are written beside their places and renamed at the end, so that a killed run leaves none half written.
    Equal tables give equal bytes. Of a table in parts about a million rows are in memory.

    Returns:
      The paths written.

    Raises:
      ArtifactError: the folder cannot be made or the disk is full; files that were there are unchanged.
    """
    folder = Path(folder)
    places = {folder / f"{name}.parquet": table for name, table in tables.items()}
    scratch = {place: place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}") for place in places}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place, table in places.items():
            if isinstance(table, pa.Table):
                pq.write_table(table, scratch[place])
            else:
                parts = table()
                first = next(parts)
                write_parts(scratch[place], itertools.chain([first], parts), first.schema)
        for place in places:
            os.replace(scratch[place], place)
    except OSError as error:
        raise ArtifactError(
            f"{folder}: the data set could not be written ({error}); free some space or choose another folder"
        ) from error
    finally:
        for path in scratch.values():
            if path.exists():
                path.unlink()
    return list(places)


def whole(parts: Parts) -> pa.Table:
    """Read a table in parts as one."""
    return pa.concat_tables(parts())


def parquet_parts(path: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Yield columns of a Parquet file in parts; at least one, which may be empty."""
    with pq.ParquetFile(path) as file:
        yield pa.schema([file.schema_arrow.field(name) for name in columns]).empty_table()
        for batch in file.iter_batches(ROWS, columns=columns):
            yield pa.Table.from_batches([batch]).select(columns)


def distinct(values: Iterable[Int64s]) -> Int64s:
    """Collect the distinct numbers of arrays, rising; holds little more than these."""
    found, pending, waiting = np.zeros(0, np.int64), list[Int64s](), 0
    for some in values:
        pending.append(np.unique(some))
        waiting += len(pending[-1])
        if waiting > max(_MERGED_AT_ONCE, len(found)):
            found, pending, waiting = np.unique(np.concatenate([found, *pending])), [], 0
    return np.unique(np.concatenate([found, *pending]))
