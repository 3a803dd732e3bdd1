"""Reads the items and users files: unique ids and, row by row, the raw columns of features."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recall.config.data import ItemsConfig
from recall.config.experiment import Config
from recall.config.features import CategoryFeature, EmbeddingFeature, Feature
from recall.config.values import GIVEN
from recall.core.canonical import canonical_text
from recall.core.errors import ConfigError, DataError
from recall.core.tables import expand_paths, is_uri, read_header, read_table
from recall.data.column_reader import ColumnReader, unique_ids
from recall.data.features.embeddings import read_npy, vector_array, vectors_of
from recall.data.item_attributes import require_attribute
from recall.data.published import published_times, require_unit_of_log

# A category with more distinct values per row than this names rows instead of describing them.
_ID_LIKE_SHARE = 0.5
_ID_LIKE_ROWS = 100


@dataclass(frozen=True)
class KeyedTable:
    """Hold rows with unique ids.

    Attributes:
      ids: string [rows], none missing, each once.
      table: the id column, the title, the source column of every feature and (items) further attributes. Ids,
        categories, tags and titles are canonical text, embeddings are fixed_size_list<float32>, null where a row has
        none; numbers and further attributes are as read.
      assumed: what was assumed of columns of a file without types, a sentence each.
      columns: names of all columns of the file, also of columns that were not read.
      added: number of the last rows that are not of the file.
    """

    ids: pa.StringArray
    table: pa.Table
    assumed: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    added: int = 0

    def __len__(self) -> int:
        return len(self.ids)


class ItemTable(KeyedTable):
    """Hold the catalogue. The position of an item is its row everywhere after reading."""


class UserTable(KeyedTable):
    """Hold the user profiles."""


def check_files(config: Config) -> None:
    """Look for every input file, so that a wrong path is known before any work starts.

    Raises:
      ConfigError: lists each key whose file is not there.
    """
    problems = []
    logs = {"data.events": config.data.events.path}
    logs |= {f"data.histories.{name}": history.path for name, history in config.data.histories.items() if history.path}
    for key, pattern in logs.items():
        if pattern == GIVEN:
            problems.append(_missing(key))
            continue
        if is_uri(pattern):  # only Beam can tell what is there
            continue
        try:
            expand_paths(pattern)
        except DataError as error:
            problems.append(f"{key}.path: {error}")
    files = [("data.items.path", config.data.items.path)]
    if config.data.users:
        files.append(("data.users.path", config.data.users.path))
    for table in ("user", "item"):
        files += [(f"{key}.path", path) for key, feature in _features(config, table) if (path := _npy_path(feature))]
    stages = enumerate(config.training.stages)
    files += [(f"training.stages[{n}].initialise.path", one.initialise.path) for n, one in stages if one.initialise]
    for key, path in files:
        if path == Path(GIVEN):
            problems.append(_missing(key.removesuffix(".path")))
        elif not path.is_file():
            found = "is a folder; expected one file" if path.is_dir() else "no such file"
            problems.append(f"{key}: {path}: {found}; paths are relative to the folder of the experiment file")
    if problems:
        raise ConfigError("\n  ".join(problems))


def columns_of(config: Config, table: str) -> list[tuple[str, str]]:
    """List the columns that the experiment names of the `items` or `users` table, with their keys."""
    if table == "items":
        keys, further = _item_keys(config.data.items)
    else:
        keys, further = [("data.users.id", config.data.users.id if config.data.users else None)], []
    return _wanted(list(_features(config, table.removesuffix("s"))), [*keys, *further])


def read_items(config: Config, *, extra_ids: Iterable[str] = ()) -> ItemTable:
    """Read the catalogue.

    Args:
      config: the experiment.
      extra_ids: ids of the log; those that the file lacks are appended in sorted order, without content
        (`data.items.unknown: add`).

    Raises:
      DataError: the file is unreadable or empty, an id is missing or there twice, a feature's column is missing, a
        vector file does not fit, or a category of `meta` is an id in disguise.
    """
    items = config.data.items
    features = list(_features(config, "item"))
    keys, further = _item_keys(items)
    if items.format == "attributes":
        table = _read_attributes(items.path, items.id)
        header = table.column_names
        _check_columns(header, features, [*keys, *further], path=items.path)
    else:
        header = read_header(items.path, items.format)
        table = _read_columns(items.path, items.format, header, features=features, keys=[*keys, *further])
    reader = ColumnReader(items.path, items.format)
    ids = unique_ids(table[items.id], reader=reader, key="data.items.id")
    table = reader.canonical(table, features, texts=keys[1:], further=further)
    table = _with_embeddings(table, features, path=items.path)
    for key, name in further:
        require_attribute(table[name], what=f"{key}: column {name} of {items.path}")
    if items.published:
        column = table[items.published]
        times_ms = published_times(column, config.data)
        require_unit_of_log(times_ms, column, config.data, now_ms=time.time_ns() // 1_000_000)
    if not config.features.allow_mixed:
        _refuse_disguised_ids(table, features)
    known = set(ids.to_pylist())
    table = table.set_column(table.column_names.index(items.id), items.id, ids)
    if new := sorted(set(extra_ids) - known):
        ids, table = _append(ids, table, items.id, new)
    return ItemTable(ids, table, tuple(reader.assumed), tuple(header), added=len(new))


def read_users(config: Config) -> UserTable | None:
    """Read the user profiles; None if the experiment has no users file.

    Raises:
      DataError: as `read_items`.
    """
    users = config.data.users
    if users is None:
        return None
    features = list(_features(config, "user"))
    header = read_header(users.path, users.format)
    table = _read_columns(users.path, users.format, header, features=features, keys=[("data.users.id", users.id)])
    reader = ColumnReader(users.path, users.format)
    ids = unique_ids(table[users.id], reader=reader, key="data.users.id")
    table = _with_embeddings(reader.canonical(table, features), features, path=users.path)
    table = table.set_column(table.column_names.index(users.id), users.id, ids)
    return UserTable(ids, table, tuple(reader.assumed), tuple(header))


def _item_keys(items: ItemsConfig) -> tuple[list[tuple[str, str | None]], list[tuple[str, str]]]:
    """List the columns of the items file with their keys: id and title, and further attributes."""
    further = [
        ("data.items.published" if name == items.published else f"data.items.attributes[{place}]", name)
        for place, name in enumerate(items.attributes)
    ]
    return [("data.items.id", items.id), ("data.items.title", items.title)], further


def _features(config: Config, table: str) -> Iterator[tuple[str, Feature]]:
    """Yield the features of the users or items file with their keys in the experiment file."""
    for section in ("user",) if table == "user" else ("behaviour", "meta"):
        for index, feature in enumerate(getattr(config.features, section)):
            yield f"features.{section}[{index}]", feature


def _missing(key: str) -> str:
    role = key.partition(".")[2]
    return f"{key}.path: is missing; add it, or give the table to recall.Run(config, ..., data={{{role!r}: ...}})"


def _npy_path(feature: Feature) -> Path | None:
    return feature.path if isinstance(feature, EmbeddingFeature) else None


def _read_columns(
    path: Path,
    format: str,
    header: Sequence[str],
    *,
    features: Sequence[tuple[str, Feature]],
    keys: Sequence[tuple[str, str | None]],
) -> pa.Table:
    _check_columns(header, features, keys, path=path)
    wanted = [name for _, name in keys if name]
    wanted += [feature.source for _, feature in features if _npy_path(feature) is None]
    return read_table(path, format=format, columns=wanted)


def _check_columns(
    names: Sequence[str],
    features: Sequence[tuple[str, Feature]],
    keys: Sequence[tuple[str, str | None]],
    *,
    path: Path,
) -> None:
    for key, name in _wanted(features, keys):
        if name not in names:
            remedy = "; set `column` where the feature has another name" if key.startswith("features") else ""
            raise DataError(f"{key}: {path} has no column {name}; its columns are {', '.join(names)}{remedy}")


def _wanted(features: Sequence[tuple[str, Feature]], keys: Sequence[tuple[str, str | None]]) -> list[tuple[str, str]]:
    """List the columns that the table itself must have, with their keys in the experiment file."""
    named = [(key, name) for key, name in keys if name]
    return named + [(key, feature.source) for key, feature in features if _npy_path(feature) is None]


def _with_embeddings(table: pa.Table, features: Sequence[tuple[str, Feature]], *, path: Path) -> pa.Table:
    """Replace list columns by vectors, and add the vectors of `.npy` files under their source name."""
    from_files: dict[str, Path] = {}
    for key, feature in features:
        if not isinstance(feature, EmbeddingFeature):
            continue
        if feature.path is None:
            vectors, _ = vectors_of(table[feature.source], what=f"{key}: column {feature.source} of {path.name}")
            if not vectors.shape[1]:
                raise DataError(f"{key}: column {feature.source} of {path} holds no vector at all; remove the feature")
            index = table.column_names.index(feature.source)
            table = table.set_column(index, feature.source, vector_array(vectors))
        elif from_files.get(feature.source) != feature.path:
            if feature.source in table.column_names:
                raise DataError(
                    f"{key}: {feature.source} is also the name of a column of {path.name} that is in use; "
                    "give the embedding another name"
                )
            from_files[feature.source] = feature.path
            vectors = read_npy(feature.path, rows=len(table), key=f"{key}.path", table=path.name)
            table = table.append_column(feature.source, vectors)
    return table


def _refuse_disguised_ids(table: pa.Table, features: Sequence[tuple[str, Feature]]) -> None:
    for key, feature in features:
        if not (key.startswith("features.meta") and isinstance(feature, CategoryFeature)):
            continue
        values = table[feature.source].drop_null()
        distinct = pc.count_distinct(values).as_py()
        if len(values) >= _ID_LIKE_ROWS and distinct > _ID_LIKE_SHARE * len(values):
            raise DataError(
                f"{key}: {feature.name} has {distinct:,} distinct values in {len(values):,} rows, so it names items "
                "instead of describing them; move it to `behaviour` as type: id, or set features.allow_mixed: true"
            )


def _append(ids: pa.StringArray, table: pa.Table, id_column: str, new: list[str]) -> tuple[pa.StringArray, pa.Table]:
    """Add rows that have nothing but an id."""
    added = pa.array(new, pa.string())
    rows = {field.name: added if field.name == id_column else pa.nulls(len(new), field.type) for field in table.schema}
    return pa.concat_arrays([ids, added]), pa.concat_tables([table, pa.table(rows, schema=table.schema)])


def _read_attributes(path: Path, id_column: str) -> pa.Table:
    """Read one JSON object {item id: [attribute ids]}, as S3-Rec publishes its data sets."""
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); expected one object {{item id: [...]}}") from error
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise DataError(f"{path}: expected one JSON object {{item id: [attribute ids]}}")
    for item, attributes in pairs:
        if not isinstance(attributes, list) or any(isinstance(value, list | tuple | dict) for value in attributes):
            raise DataError(f"{path}: item {item} has {str(attributes)[:50]}; expected a list of attribute ids")
    lists = [_texts_of(attributes, item, path) for item, attributes in pairs]
    return pa.table(
        {
            id_column: pa.array([item for item, _ in pairs], pa.string()),
            "attributes": pa.array(lists, pa.list_(pa.string())),
        }
    )


def _texts_of(attributes: Sequence[Any], item: str, path: Path) -> list[str]:
    try:
        return [canonical_text(value) for value in attributes]
    except ValueError as error:
        raise DataError(f"{path}: item {item} has {str(attributes)[:50]}: {error}; expected attribute ids") from error
