"""Hands tables on between stages: as bytes between workers, as files to later pipelines and to the driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.storage import LocalStorage, Storage, storage_at
from recall.core.arrays import Int64s
from recall.core.canonical import used_only
from recall.core.ordering import order_of

Handed: TypeAlias = bytes | tuple[str, int, int]
"""A table on its way to another stage: its bytes, or file, position and length in the scratch folder."""

_ENDING = ".arrow"
_NARROW = (pa.int8(), pa.int16(), pa.int32())
_WAS_INT64 = {b"was": b"int64"}


def to_bytes(table: pa.Table) -> bytes:
    """Write a table as an Arrow IPC stream, its int64 columns in the smallest type that holds them.

    Bytes are sent since pickled slices of a RecordBatch take their parents' buffers along: 4 times as slow.
    """
    narrow = _narrowed(table.combine_chunks())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, narrow.schema) as writer:
        writer.write_table(narrow)
    return sink.getvalue().to_pybytes()


def from_bytes(streams: Iterable[bytes]) -> pa.Table:
    """Read the tables of one or more IPC streams as one table."""
    return pa.concat_tables([_widened(pa.ipc.open_stream(stream).read_all()) for stream in streams]).combine_chunks()


def _narrowed(table: pa.Table) -> pa.Table:
    for place, field in enumerate(table.schema):
        if field.type == pa.int64() and len(table):
            low, high = pc.min_max(table[place]).as_py().values()
            kind = next((kind for kind in _NARROW if low is not None and _holds(kind, low, high)), None)
            if kind:
                narrow = pa.field(field.name, kind, field.nullable, _WAS_INT64)
                table = table.set_column(place, narrow, table[place].cast(kind, safe=False))
    return table


def _widened(table: pa.Table) -> pa.Table:
    for place, field in enumerate(table.schema):
        if field.metadata == _WAS_INT64:
            wide = pa.field(field.name, pa.int64(), field.nullable)
            table = table.set_column(place, wide, table[place].cast(pa.int64()))
    return table


def _holds(kind: pa.DataType, low: int, high: int) -> bool:
    limit = 1 << (kind.bit_width - 1)
    return -limit <= low and high < limit


def partitioned(table: pa.Table, column: str, *, partitions: int) -> Iterator[tuple[int, bytes]]:
    """Cut a table by a stable hash of a string column, so that rows with one value stay together on any machine.

    Dictionaries hold only the values of their part.
    """
    codes = _partition_codes(table[column], partitions)
    order = order_of(codes)
    bounds = np.searchsorted(codes[order], np.arange(partitions + 1))
    ordered = table.combine_chunks().take(pa.array(order))
    for partition in range(partitions):
        start, stop = int(bounds[partition]), int(bounds[partition + 1])
        if stop > start:
            yield partition, to_bytes(_small_dictionaries(ordered.slice(start, stop - start)))


def _partition_codes(column: pa.ChunkedArray, partitions: int) -> Int64s:
    encoded = column.combine_chunks().dictionary_encode()
    if not len(encoded):
        return np.zeros(0, np.int64)
    # SipHash with a fixed key; Python's own hash of a string differs from process to process.
    hashes = pd.util.hash_array(np.array(encoded.dictionary.to_pylist(), object), categorize=False)
    return (hashes % np.uint64(partitions)).astype(np.int64)[encoded.indices.to_numpy()]


def _small_dictionaries(table: pa.Table) -> pa.Table:
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field, used_only(table[place].combine_chunks()))
    return table


@dataclass(frozen=True)
class Scratch:
    """Exchange tables by name and key, and files for the driver, in a folder that all workers reach.

    A file appears whole or not at all, and a bundle that runs twice writes the same file twice.

    Attributes:
      folder: a local path, or a URI for Beam's FileSystems; exists already.
    """

    folder: str

    @property
    def storage(self) -> Storage:
        """Return the storage of the files."""
        return storage_at(self.folder)

    def write(self, name: str, key: int, table: pa.Table) -> None:
        """Write a table uncompressed, so that `read` can map it into memory."""
        with self.storage.writing(_file(name, key)) as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())

    def hand_on(self, name: str, key: int, parts: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, Handed]]:
        """Yield keyed tables for a stage that groups them.

        In a mounted folder all tables lie in one file, and only their positions are sent: runners keep grouped elements
        in memory (150 bytes per event with Beam's local runner). In object stores, where small reads are slow, the
        tables themselves are sent.
        """
        if not isinstance(self.storage, LocalStorage):
            yield from parts
            return
        file, places = f"{name}-{key:05d}.parts", list[tuple[int, Handed]]()
        with self.storage.writing(file) as stream:
            for partition, part in parts:
                places.append((partition, (file, stream.tell(), len(part))))
                stream.write(part)
        yield from places

    def taken(self, handed: Handed) -> bytes:
        """Return the bytes of a table that was handed on."""
        if isinstance(handed, bytes):
            return handed
        name, start, length = handed
        with (Path(self.folder) / name).open("rb") as stream:
            stream.seek(start)
            return stream.read(length)

    def exists(self, name: str, key: int) -> bool:
        """Tell whether a table exists; a stage writes none for a partition without rows."""
        return self.storage.exists(_file(name, key))

    def read(self, name: str, key: int = 0) -> pa.Table:
        """Read a table; from a local folder it is mapped into memory."""
        with self.storage.source(_file(name, key)) as source:
            return pa.ipc.open_file(source).read_all().combine_chunks()

    def each(self, name: str) -> Iterator[pa.Table]:
        """Iterate over the tables of all keys, in the order of the keys; each is read on demand."""
        keys = sorted(int(found[len(name) + 1 : -len(_ENDING)]) for found in self.storage.names(f"{name}-*{_ENDING}"))
        return (self.read(name, key) for key in keys)

    def read_all(self, name: str) -> list[pa.Table]:
        """Read the tables of all keys, in the order of the keys."""
        return list(self.each(name))


def _file(name: str, key: int) -> str:
    return f"{name}-{key:05d}{_ENDING}"
