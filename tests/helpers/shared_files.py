"""Gives Beam a file system under `shared://`: the local one, but code that takes its URIs for paths finds no file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem

PREFIX = "shared:/"  # and the absolute path: shared://tmp/x is /tmp/x


def path_of(uri: str) -> str:
    assert uri.startswith(PREFIX + "/"), uri
    return uri.removeprefix(PREFIX)


class SharedFiles(LocalFileSystem):
    """Serve Beam the files of the scheme, in every process that has imported this file."""

    @classmethod
    def scheme(cls) -> str:
        return "shared"

    def join(self, basepath: str, *paths: str) -> str:
        return PREFIX + super().join(path_of(basepath), *paths)

    def split(self, path: str) -> tuple[str, str]:
        head, tail = super().split(path_of(path))
        return PREFIX + head, tail

    def mkdirs(self, path: str) -> None:
        super().mkdirs(path_of(path))

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for folder, _, names in os.walk(path_of(dir_or_prefix)):
            for name in names:
                yield self.metadata(PREFIX + os.path.join(folder, name))

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, os.path.getsize(path_of(path)))

    def create(self, path: str, *arguments: Any, **options: Any) -> Any:
        return super().create(path_of(path), *arguments, **options)

    def open(self, path: str, *arguments: Any, **options: Any) -> Any:
        return super().open(path_of(path), *arguments, **options)

    def exists(self, path: str) -> bool:
        return bool(super().exists(path_of(path)))

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            shutil.rmtree(path_of(path))
