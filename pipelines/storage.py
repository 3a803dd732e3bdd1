"""Reads and writes files where all workers reach them: a mounted folder, or what Beam's FileSystems reach by URI.

`Storage` holds the files of a pipeline, `plan_log` and `read_log` read a log from either place.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import platform
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from recall.config.data import EventsConfig
from recall.core.errors import DataError
from recall.core.partitions import partition_folders
from recall.core.tables import is_uri, table_names
from recall.data.clock import Clock
from recall.data.events import Piece, ReadRows, plan_pieces, read_rows


class Storage(Protocol):
    """Store files by name. A file appears whole or not at all; a retried task writes it again and replaces it."""

    def make(self) -> None:
        """Make the folder."""

    def writing(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """Open a new file; it appears when the block ends without an error."""

    def source(self, name: str) -> contextlib.AbstractContextManager[pa.NativeFile]:
        """Open a file for Arrow."""

    def exists(self, name: str) -> bool:
        """Tell whether a file exists."""

    def names(self, pattern: str) -> list[str]:
        """List the files whose names match a shell pattern, sorted."""

    def fetch(self, name: str, destination: Path) -> None:
        """Move or copy a file to a local path."""

    def remove(self) -> None:
        """Delete the folder with all its files."""


def storage_at(location: str) -> Storage:
    """Choose the storage of a location: Beam's FileSystems for `scheme://...`, else a local folder."""
    return BeamStorage(location) if is_uri(location) else LocalStorage(Path(location))


@dataclass(frozen=True)
class LocalStorage:
    """Store files in a folder; with several machines, in one that all of them mount."""

    folder: Path

    def make(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Open a new file; it appears when the block ends without an error."""
        path = self.folder / name
        temporary = path.with_name(f"{name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            stream = temporary.open("wb")
        except FileNotFoundError as error:
            # The driver has made the folder, under a name that nothing else has.
            raise DataError(
                f"{self.folder}: worker {platform.node()} does not see this folder; give an --out in a folder that all "
                "workers mount, or a --scratch that all of them reach, such as gs://bucket/folder"
            ) from error
        try:
            with stream:
                yield stream
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def source(self, name: str) -> contextlib.AbstractContextManager[pa.NativeFile]:
        """Open a file for Arrow."""
        # Mapped: workers on one machine share the memory.
        return pa.memory_map(str(self.folder / name))

    def exists(self, name: str) -> bool:
        """Tell whether a file exists."""
        return (self.folder / name).exists()

    def names(self, pattern: str) -> list[str]:
        """List the files whose names match a shell pattern, sorted."""
        return sorted(path.name for path in self.folder.glob(pattern))

    def fetch(self, name: str, destination: Path) -> None:
        """Move a file to a local path."""
        shutil.move(self.folder / name, destination)

    def remove(self) -> None:
        """Delete the folder with all its files."""
        shutil.rmtree(self.folder)


@dataclass(frozen=True)
class BeamStorage:
    """Store files in a folder of an object store or of HDFS, by its URI."""

    uri: str

    def make(self) -> None:
        """Make the folder."""
        try:
            FileSystems.mkdirs(self.uri)
        except ValueError as error:
            raise _no_filesystem(self.uri) from error

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Open a new file; it appears when the block ends without an error."""
        # Through a local file: an upload that an error breaks off must not leave half an object.
        with tempfile.TemporaryFile() as stream:
            yield stream
            stream.seek(0)
            if self.uri.startswith("hdfs:") and self.exists(name):
                FileSystems.delete([self._path(name)])  # HDFS does not write over a file, as object stores do
            with FileSystems.create(self._path(name), compression_type=CompressionTypes.UNCOMPRESSED) as remote:
                shutil.copyfileobj(stream, remote)

    @contextlib.contextmanager
    def source(self, name: str) -> Iterator[pa.NativeFile]:
        """Open a file for Arrow."""
        with FileSystems.open(self._path(name), compression_type=CompressionTypes.UNCOMPRESSED) as remote:
            yield pa.BufferReader(remote.read())

    def exists(self, name: str) -> bool:
        """Tell whether a file exists."""
        return bool(FileSystems.exists(self._path(name)))

    def names(self, pattern: str) -> list[str]:
        """List the files whose names match a shell pattern, sorted."""
        found = [FileSystems.split(path)[1] for path in matching(self._path("*"))]
        return sorted(fnmatch.filter(found, pattern))

    def fetch(self, name: str, destination: Path) -> None:
        """Copy a file to a local path."""
        download(self._path(name), destination)

    def remove(self) -> None:
        """Delete the folder with all its files."""
        FileSystems.delete([f"{self.uri}/"])  # object stores have no folders; the slash means all files below

    def _path(self, name: str) -> str:
        return str(FileSystems.join(self.uri, name))


def matching(pattern: str) -> list[str]:
    """List the URIs that match a glob, sorted.

    Raises:
      DataError: no installed file system supports the scheme.
    """
    try:
        return sorted(found.path for match in FileSystems.match([pattern]) for found in match.metadata_list)
    except ValueError as error:
        raise _no_filesystem(pattern) from error


def log_files(pattern: str) -> list[str]:
    """List the URIs of a log, sorted: what matches a glob, or the tables in a folder and the folders below.

    A path that ends with a slash is one of folders, such as gs://bucket/logs/ or gs://bucket/logs/dt=2024-01-*/; so is
    one that matches no file. See `expand_paths`, which does the same on this machine.

    Raises:
      DataError: no installed file system supports the scheme.
    """
    if not pattern.endswith("/") and (found := matching(pattern)):
        return found
    folder = pattern.rstrip("/")
    below = [(uri.split("/", folder.count("/") + 1)[-1], uri) for uri in matching(f"{folder}/**")]
    tables = set(table_names(name for name, _ in below if name))
    return [uri for name, uri in below if name in tables]


def size(uri: str) -> int:
    """Return the size of a file in bytes."""
    return int(FileSystems.match([uri])[0].metadata_list[0].size_in_bytes)


def download(uri: str, destination: Path) -> None:
    """Copy a file to a local path as it is, compressed or not."""
    with (
        FileSystems.open(uri, compression_type=CompressionTypes.UNCOMPRESSED) as remote,
        destination.open("wb") as stream,
    ):
        shutil.copyfileobj(remote, stream)


def _no_filesystem(uri: str) -> DataError:
    return DataError(
        f"{uri}: Beam knows no file system for {FileSystems.get_scheme(uri)}://; for gs:// pip install "
        "'apache-beam[gcp]', for s3:// 'apache-beam[aws]', or give a local path"
    )


def plan_log(events: EventsConfig, *, section: str = "data.events", click_key: str = "click") -> list[Piece]:
    """Plan the pieces of a log like `plan_pieces`, for URIs, too: a file is then one piece, opened by a worker alone.

    Raises:
      DataError: as `plan_pieces`; or no file matches, or Beam knows no such file system.
    """
    if not is_uri(events.path):
        return plan_pieces(events, section=section, click_key=click_key)
    if not (found := log_files(events.path)):
        raise DataError(f"{section}.path: {events.path}: matches no file; expected one, or a glob like gs://logs/*.csv")
    return [Piece(uri) for uri in found]


def read_log(
    piece: Piece, events: EventsConfig, *, known_items: pa.StringArray | None, clock: Clock | None = None
) -> ReadRows:
    """Read events like `read_rows`, for URIs, too."""
    if not is_uri(piece.path):
        return read_rows(piece, events, known_items=known_items, clock=clock)
    with tempfile.TemporaryDirectory() as folder:
        # Its ending tells the format, and the folders that are partitions give columns.
        copy = Path(folder) / partition_folders(piece.path) / piece.path.rpartition("/")[2]
        copy.parent.mkdir(parents=True, exist_ok=True)
        download(piece.path, copy)
        try:
            read = read_rows(piece._replace(path=str(copy)), events, known_items=known_items, clock=clock)
        except DataError as error:
            raise DataError(str(error).replace(str(copy), piece.path)) from error
    at = read.rejected.column_names.index("file")
    files = pa.array([piece.path] * len(read.rejected), pa.string())
    return read._replace(rejected=read.rejected.set_column(at, "file", files))
