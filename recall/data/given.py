"""Writes tables that were given from Python into the run, where every step finds them: RUN/inputs/.

`recall.core.frames` reads the tables, `recall.runs.run.Run` is given them. A run that is moved or copied keeps its
inputs: config.yaml names them relative to the run, and fingerprints are of their content.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from recall.config.data import UsersConfig
from recall.config.experiment import Config
from recall.core.artifacts import MANIFEST, checksum, publish, read_json, read_manifest
from recall.core.errors import ArtifactError, ConfigError, DataError
from recall.core.frames import Frame, open_frame, plain_tables
from recall.core.parquet import write_parts
from recall.data.catalogue import columns_of
from recall.data.events import log_columns

INPUTS = "inputs"
ROLES = ("events", "items", "users")
_STAGING = ".staging.parquet"


class _UnchangedError(Exception):
    """Leave `publish` without publishing: the same files are there."""


def write_given(config: Config, directory: Path, tables: Mapping[str, Any]) -> Config:
    """Write tables as Parquet into DIRECTORY/inputs, all of them or none, and return the experiment that reads them.

    Equal tables give equal files: then what is there stays as it is, and steps that are done stay done.

    Args:
      config: the experiment; its paths of these tables are replaced.
      directory: the run.
      tables: `events`, `items` or `users` -> a table that `open_frame` knows. It is read once.

    Raises:
      ConfigError: there is no such role.
      DataError: a table is of another kind, empty, or lacks a column that the experiment names.
      ArtifactError: the directory cannot be written.
    """
    unknown = [role for role in tables if role not in ROLES]
    if unknown:
        raise ConfigError(f"data: found {', '.join(map(repr, unknown))}; expected tables of {', '.join(ROLES)}")
    folder = directory.resolve() / INPUTS
    config = _reading(config, {role: folder / f"{role}.parquet" for role in tables})
    manifest: dict[str, Any] = {"rows": {}}
    existed = directory.is_dir()
    try:
        with contextlib.suppress(_UnchangedError), publish(folder, manifest=manifest) as scratch:
            for role, table in tables.items():
                manifest["rows"][role] = _write(config, role, table, scratch)
            if _same_files(folder, scratch):
                raise _UnchangedError
    except BaseException:
        if not existed:
            with contextlib.suppress(OSError):
                directory.rmdir()  # if nothing is in it
        raise
    return config


def given_name(path: str | Path) -> str | None:
    """Return the path of a given table relative to its run, such as inputs/events.parquet; None for other files."""
    path = Path(path)
    is_given = path.parent.name == INPUTS and (path.parent / MANIFEST).is_file()
    return f"{INPUTS}/{path.name}" if is_given else None


def given_stat(path: Path) -> tuple[str, int, int]:
    """Return the name, size and CRC-32C of a given table, which say what it holds wherever the run lies.

    Raises:
      ArtifactError: its manifest is damaged or does not name it.
    """
    manifest = path.parent / MANIFEST
    try:
        entry = read_json(manifest)["files"][path.name]
        return f"{INPUTS}/{path.name}", path.stat().st_size, int(entry["crc32c"], 16)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(
            f"{manifest}: cannot be read ({error}); give the tables to recall.Run once more, data={{...}}"
        ) from error


def with_own_inputs(config: Config, directory: Path) -> Config:
    """Return the experiment with the paths of the run's own inputs relative to the run, as config.yaml holds them."""
    folder = directory.resolve() / INPUTS
    paths = {"events": Path(config.data.events.path), "items": config.data.items.path}
    if config.data.users:
        paths["users"] = config.data.users.path
    own = {role: Path(INPUTS) / path.name for role, path in paths.items() if path.parent == folder}
    return _replaced(config, {role: {"path": str(path)} for role, path in own.items()}) if own else config


def _reading(config: Config, paths: Mapping[str, Path]) -> Config:
    """Replace the paths of the given tables; their format is Parquet, whatever the experiment file says."""
    return _replaced(config, {role: {"path": str(path), "format": "auto"} for role, path in paths.items()})


def _replaced(config: Config, changes: Mapping[str, Mapping[str, str]]) -> Config:
    sections = config.data.model_dump(mode="json")
    for role, values in changes.items():
        before = sections[role] or UsersConfig(path=Path()).model_dump(mode="json")
        sections[role] = {**before, **values}
    return config.replaced(data=sections)


def _write(config: Config, role: str, table: Any, folder: Path) -> int:
    what = f"data[{role!r}]"
    staging = folder / _STAGING
    frame = open_frame(table, what=what, staging=staging)
    _check_columns(config, role, frame)
    rows = 0

    def counted() -> Iterator[pa.Table]:
        nonlocal rows
        for part in plain_tables(frame, what=what):
            rows += len(part)
            yield part

    parts = counted()
    first = next(parts, None)
    if first is None or not rows:
        raise DataError(f"{what}: has no rows; expected at least one")
    write_parts(folder / f"{role}.parquet", _chain(first, parts), first.schema)
    staging.unlink(missing_ok=True)
    return rows


def _chain(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _check_columns(config: Config, role: str, frame: Frame) -> None:
    if role == "events":
        wanted = [(f"data.events.{key}", column) for key, column in log_columns(config.data.events).items()]
        further = config.data.histories.items()
        wanted += [
            (f"data.histories.{name}.column", one.column) for name, one in further if one.column and not one.path
        ]
    else:
        wanted = columns_of(config, role)
    for key, column in wanted:
        if frame.names.count(column) != 1:
            found = f"has no column {column}" if column not in frame.names else f"has several columns called {column}"
            raise DataError(
                f"{key}: data[{role!r}] {found}; its columns are {', '.join(map(str, frame.names))}. Rename one of "
                f"them, or name another one in {key}"
            )


def _same_files(folder: Path, scratch: Path) -> bool:
    """Tell whether the published files are whole and those of the scratch folder."""
    try:
        files = read_manifest(folder, made_by="recall.Run", verify=True)["files"]
    except ArtifactError:
        return False
    return {name: entry["crc32c"] for name, entry in files.items()} == {
        path.name: checksum(path) for path in scratch.iterdir()
    }
