"""How stages hand tables on: as bytes between workers, as files to later pipelines and to the driver."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa


def to_bytes(table: pa.Table) -> bytes:
    """A table as an Arrow IPC stream.

    Bytes, as pickled slices of a RecordBatch take their parents' buffers along: 4 times as slow.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def from_bytes(streams: Iterable[bytes]) -> pa.Table:
    """The tables of one or more IPC streams, one after another."""
    return pa.concat_tables([pa.ipc.open_stream(stream).read_all() for stream in streams]).combine_chunks()


def partitioned(table: pa.Table, column: str, *, partitions: int) -> Iterator[tuple[int, bytes]]:
    """Cuts a table by a stable hash of a string column, so that rows with one value stay together anywhere."""
    codes = _partition_codes(table[column], partitions)
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(partitions + 1))
    ordered = table.take(pa.array(order))
    for partition in range(partitions):
        start, stop = int(bounds[partition]), int(bounds[partition + 1])
        if stop > start:
            yield partition, to_bytes(ordered.slice(start, stop - start))


def _partition_codes(column: pa.ChunkedArray, partitions: int) -> npt.NDArray[np.int64]:
    encoded = column.combine_chunks().dictionary_encode()
    if not len(encoded):
        return np.zeros(0, np.int64)
    # SipHash with a fixed key; Python's own hash of a string differs from process to process.
    hashes = pd.util.hash_array(np.array(encoded.dictionary.to_pylist(), object), categorize=False)
    return (hashes % np.uint64(partitions)).astype(np.int64)[encoded.indices.to_numpy()]


@dataclass(frozen=True)
class Scratch:
    """A folder that all workers reach, for tables by name and key.

    A file appears whole or not at all, and a bundle that runs twice writes the same file twice.

    Attributes:
      folder: exists already.
    """

    folder: str

    def write(self, name: str, key: int, table: pa.Table) -> None:
        """Writes a table uncompressed, so that `read` can map it into memory."""
        path = self._path(name, key)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        os.replace(temporary, path)

    def exists(self, name: str, key: int) -> bool:
        """Whether there is a table; a stage writes none for a partition without rows."""
        return self._path(name, key).exists()

    def read(self, name: str, key: int = 0) -> pa.Table:
        """A table, mapped into memory: workers on one machine share it."""
        with pa.memory_map(str(self._path(name, key))) as source:
            return pa.ipc.open_file(source).read_all().combine_chunks()

    def read_all(self, name: str) -> list[pa.Table]:
        """The tables of all keys, in the order of the keys."""
        keys = sorted(int(path.stem.rpartition("-")[2]) for path in Path(self.folder).glob(f"{name}-*.arrow"))
        return [self.read(name, key) for key in keys]

    def _path(self, name: str, key: int) -> Path:
        return Path(self.folder) / f"{name}-{key:05d}.arrow"
