"""Saves and loads indexes: numbered versions, and a CURRENT file that names the one to load.

DIR/CURRENT                 the number, e.g. 0003
DIR/versions/0003/          manifest.json, ids.parquet, the files of the index, and maybe the queries it was tuned with
                            and the sources of items that were added or changed
DIR/versions/0003/cosine/   the files of its index by cosine, where comparing all vectors would take long
DIR/versions/0003/shards/00001/   the same for a shard, where there are several; a machine that holds this shard alone
                            needs no other files than CURRENT, the version's manifest and this folder

`versions.py` changes versions and CURRENT safely; `housekeeping.py` lists and removes versions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recall.core.arrays import Float32s, Int32s
from recall.core.artifacts import MANIFEST, checksum, publish, read_manifest, seal
from recall.core.errors import ArtifactError, DataError
from recall.index.base import Index, VectorIndex
from recall.index.exact import ExactIndex
from recall.index.saved.versions import (
    MADE_BY,
    current_version,
    next_version,
    point_to,
    publishing,
    remove_versions,
    require_model,
)
from recall.index.scann import ScannIndex
from recall.index.shards import HASH, Shard, ShardedIndex, ShardSource

KEPT_VERSIONS = 2

_T = TypeVar("_T")
_FORMAT_VERSION = 1
_IDS = "ids.parquet"
_SAMPLE_QUERIES = "sample_queries.npy"
_SOURCES = "sources.parquet"
_SHARDS = "shards"
_COSINE = "cosine"
_JOURNAL_THROUGH = "journal_through"
_KINDS: Mapping[str, type[VectorIndex]] = {kind.kind: kind for kind in (ExactIndex, ScannIndex)}


@dataclasses.dataclass(frozen=True)
class SavedVersion:
    """Hold an opened version of a saved index.

    Attributes:
      index: the index.
      name: number of the version, e.g. 0003.
      fingerprint: of the model that made its vectors.
      journal_through: sequence number of the last change of `living/journal.py` that it contains; 0 of a version that
        was made from the catalogue alone.
      sample_queries: float32 [queries, dim], real queries to tune the next build with; None where none were kept.
      sources: of the items that were added or changed since the catalogue was made, by id, the JSON values that their
        vectors were made from (see `LivingIndex.upsert`); None where none were kept.
    """

    index: Index
    name: str
    fingerprint: str
    journal_through: int
    sample_queries: Float32s | None = None
    sources: Mapping[str, Any] | None = None


def save_index(
    index: Index | ShardSource,
    directory: str | Path,
    *,
    fingerprint: str,
    journal_through: int = 0,
    replaces: str | None = None,
    sample_queries: Any | None = None,
    sources: Mapping[str, Any] | None = None,
) -> Path:
    """Publish an index as the current version; the one before stays, older ones are removed.

    A killed save, or a power cut, leaves the version that was current. Of several processes that save at a time each
    waits for the one before.

    Args:
      index: the index to save; of a build in shards, each is built, written and released before the next.
      directory: created if need be.
      fingerprint: of the model that made the vectors; `load_index` compares it.
      journal_through: see `SavedVersion`.
      replaces: number of the version that it was made from; nothing is saved if another version is current by now.
      sample_queries: float [queries, dim], kept beside the index: see `SavedVersion`.
      sources: kept beside the index: see `SavedVersion`.

    Returns:
      The directory of the new version.

    Raises:
      ArtifactError: it could not be written, or replaces what is not current; the current version is as it was.

    Example:
      >>> index = recall.build_index(["a", "b", "c"], np.eye(3))
      >>> recall.save_index(index, "index", fingerprint="model 1").name
      '0001'
    """
    directory = Path(directory)
    manifest: dict[str, Any] = {
        "format_version": _FORMAT_VERSION,
        "fingerprint": fingerprint,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    if journal_through:
        manifest[_JOURNAL_THROUGH] = journal_through
    with publishing(directory):
        if replaces is not None and (found := current_version(directory).name) != replaces:
            raise ArtifactError(
                f"{directory}: another process published version {found} meanwhile, this one was made from {replaces}; "
                "refresh what it is made from (LivingIndex.refresh), then try again if there is still need"
            )
        version = next_version(directory)
        with publish(version, manifest=manifest, parts=[_SHARDS]) as scratch:
            if isinstance(index, VectorIndex):
                manifest.update(_write(index, scratch))
            elif isinstance(index, ShardSource):
                manifest.update(_write_shards(index, scratch, about=dict(manifest)))
            else:
                raise TypeError(f"{type(index).__name__} cannot be saved")
            if sample_queries is not None:
                np.save(scratch / _SAMPLE_QUERIES, np.asarray(sample_queries, np.float32), allow_pickle=False)
            if sources is not None:
                pq.write_table(_sources_table(sources), scratch / _SOURCES)
        point_to(directory, version)
        remove_versions(directory, keep=KEPT_VERSIONS)
    return version


def load_index(directory: str | Path, *, fingerprint: str | None = None) -> Index:
    """Load the current version of a saved index, every byte checked.

    Args:
      directory: where `save_index` put it.
      fingerprint: of the model whose queries will be asked; None skips the comparison.

    Raises:
      ArtifactError: there is none, it is damaged, or it was made from another model's vectors.

    Example:
      >>> index = recall.build_index(["a", "b", "c"], np.eye(3))
      >>> path = recall.save_index(index, "index", fingerprint="model 1")
      >>> recall.load_index("index", fingerprint="model 1").ids.tolist()
      ['a', 'b', 'c']
    """
    return load_current(directory, fingerprint=fingerprint).index


def load_current(directory: str | Path, *, fingerprint: str | None = None) -> SavedVersion:
    """Load the current version as `load_index` does, with the facts in its manifest."""
    return _of_current(directory, lambda version: load_version(version, fingerprint=fingerprint))


def load_shard(directory: str | Path, number: int, *, fingerprint: str | None = None) -> Shard:
    """Load one shard of the current version of a saved index, every byte of it checked.

    No file of another shard is read.

    Args:
      directory: where `save_index` put the index; CURRENT, the version's manifest.json and the shard's folder are
        enough.
      number: of the shard, from 0.
      fingerprint: see `load_index`.

    Raises:
      ArtifactError: as `load_index`, or the index is not in shards.
      DataError: there is no shard of that number.
    """
    return _of_current(directory, lambda version: _load_shard(version, number, fingerprint))


def _of_current(directory: str | Path, load: Callable[[Path], _T]) -> _T:
    """Load the current version with `load`; if it is removed meanwhile, load the version that replaced it."""
    version = current_version(Path(directory))
    while True:
        try:
            return load(version)
        except ArtifactError:
            tried, version = version, current_version(Path(directory))
            if tried == version:
                raise


def load_version(version: Path, *, fingerprint: str | None = None) -> SavedVersion:
    """Load a version by its folder, the current one or another; see `load_current`."""
    manifest = _open(version, fingerprint)
    with _as_artifact_error(version):
        index = _read_whole(version, manifest)
        kept = _SAMPLE_QUERIES in manifest["files"]
        queries = np.load(version / _SAMPLE_QUERIES, allow_pickle=False) if kept else None
        sources = _read_sources(version / _SOURCES) if _SOURCES in manifest["files"] else None
    through = manifest.get(_JOURNAL_THROUGH, 0)
    return SavedVersion(index, version.name, manifest["fingerprint"], through, queries, sources)


def journal_through_of(version: Path) -> int:
    """Read the number of the last change that a version contains, as of `SavedVersion`, from its manifest alone."""
    return int(read_manifest(version, made_by=MADE_BY).get(_JOURNAL_THROUGH, 0))


def sources_of_version(version: Path) -> dict[str, Any]:
    """Read the sources that a version keeps, as of `SavedVersion`; nothing where it keeps none.

    Raises:
      ArtifactError: the version is damaged.
    """
    manifest = read_manifest(version, made_by=MADE_BY)
    with _as_artifact_error(version):
        return _read_sources(version / _SOURCES) if _SOURCES in manifest["files"] else {}


def _sources_table(sources: Mapping[str, Any]) -> pa.Table:
    """Encode sources as a table."""
    texts = [json.dumps(source, ensure_ascii=False, separators=(",", ":")) for source in sources.values()]
    return pa.table({"item_id": pa.array(sources, pa.string()), "source": pa.array(texts, pa.string())})


def _read_sources(path: Path) -> dict[str, Any]:
    """Read the sources that `_sources_table` encoded."""
    table = pq.read_table(path)
    texts = table.column("source").to_pylist()
    return dict(zip(table.column("item_id").to_pylist(), map(json.loads, texts), strict=True))


def _read_whole(version: Path, manifest: Mapping[str, Any]) -> Index:
    """Read the index of a version with all its shards."""
    if manifest["kind"] != ShardedIndex.kind:
        index, _ = _read(version, manifest)
        return index
    shards = [_read_shard(version, manifest, number) for number in range(len(manifest["shards"]))]
    sharded = ShardedIndex(shards, report=manifest["report"])
    _require_size(sharded, manifest)
    return sharded


def _load_shard(version: Path, number: int, fingerprint: str | None) -> Shard:
    """Read one shard of a version by its folder."""
    manifest = _open(version, fingerprint)
    if manifest["kind"] != ShardedIndex.kind:
        raise ArtifactError(
            f"{version}: holds one index of kind {manifest['kind']}, no shards; open it with load_index"
        )
    with _as_artifact_error(version):
        if not 0 <= number < (count := len(manifest["shards"])):
            raise DataError(f"shard: expected 0 to {count - 1}, found {number}")
        return _read_shard(version, manifest, number)


def _open(version: Path, fingerprint: str | None) -> dict[str, Any]:
    """Read and check the manifest of a version, and the checksums of its files."""
    manifest = read_manifest(version, made_by=MADE_BY, verify=True)
    kinds = (*_KINDS, ShardedIndex.kind)
    if manifest.get("format_version") != _FORMAT_VERSION or manifest.get("kind") not in kinds:
        raise ArtifactError(
            f"{version}: expected format {_FORMAT_VERSION} of kind {' or '.join(kinds)}, found format "
            f"{manifest.get('format_version')} of kind {manifest.get('kind')}; run `{MADE_BY}` again"
        )
    if fingerprint is not None:
        require_model(version, manifest, fingerprint=fingerprint, remedy=f"run `{MADE_BY}` again")
    return manifest


@contextlib.contextmanager
def _as_artifact_error(version: Path) -> Iterator[None]:
    """Turn an error while files are opened, which their checksums did not show, into an ArtifactError."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ArtifactError(f"{version}: cannot be opened ({error}); run `{MADE_BY}` again") from error


def _write(index: VectorIndex, folder: Path, *, rows: Int32s | None = None) -> dict[str, Any]:
    """Write ids, the rows of a shard's items in the whole, and the index; return the facts for the manifest."""
    columns = {"item_id": pa.array(index.items.ids, pa.string())}
    if rows is not None:
        columns["row"] = pa.array(rows, pa.int32())
    pq.write_table(pa.table(columns), folder / _IDS)
    index.write(folder)
    facts = {
        "kind": index.kind,
        "items": len(index),
        "entries_per_item": index.items.entries_per_item,
        "dim": index.dim,
        "settings": index.settings,
        "report": dict(index.report),
    }
    cosine = index.cosine
    if cosine is not None and not cosine.is_exact:  # an exact one is made of the vectors in no time
        (folder / _COSINE).mkdir()
        cosine.write(folder / _COSINE)
        facts[_COSINE] = {"kind": cosine.kind, "settings": cosine.settings, "report": dict(cosine.report)}
    return facts


def _read(folder: Path, manifest: Mapping[str, Any]) -> tuple[VectorIndex, pa.Table]:
    """Read the index in a folder, and its table of ids."""
    table = pq.read_table(folder / _IDS)
    ids = table.column("item_id").combine_chunks()
    kind = _KINDS[manifest["kind"]]
    index = kind.read(folder, ids, settings=manifest["settings"], report=manifest["report"])
    _require_size(index, manifest)
    if by_cosine := manifest.get(_COSINE):
        own = {"settings": by_cosine["settings"], "report": by_cosine["report"]}
        cosine = index.cosine = _KINDS[by_cosine["kind"]].read(folder / _COSINE, ids, **own)
        cosine.items = index.items.with_vectors(cosine.items.vectors)  # ids are looked up in one place
    return index, table


def _require_size(index: Index, manifest: Mapping[str, Any]) -> None:
    """Raise a ValueError if an index has another size than its manifest says."""
    entries = manifest["items"] * manifest.get("entries_per_item", 1)  # an item had one before it was noted
    found, expected = (len(index), index.entries, index.dim), (manifest["items"], entries, manifest["dim"])
    if found != expected:
        raise ValueError(f"ids, vectors and dimensions: expected {expected}, found {found}")


def _write_shards(source: ShardedIndex | ShardSource, folder: Path, *, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write and seal every shard; return the facts for the manifest of the index."""

    def write(shard: Shard) -> dict[str, Any]:
        """Write and seal one shard; return its facts."""
        name = _shard_folder(shard.number)
        (folder / name).mkdir(parents=True)
        written = _write(shard.index, folder / name, rows=shard.rows)
        seal(folder / name, {**about, **written, "shard": {"number": shard.number, "of": shard.count}})
        sizes = {key: written[key] for key in ("items", "entries_per_item", "dim")}
        return {"folder": name, **sizes, "manifest_crc32c": checksum(folder / name / MANIFEST)}

    # No name is bound to a shard here: it is gone when the next is built.
    shards = [write(source.shard(number)) for number in range(source.count)]
    return {
        "kind": ShardedIndex.kind,
        "items": sum(shard["items"] for shard in shards),
        "entries_per_item": shards[0]["entries_per_item"],
        "dim": shards[0]["dim"],
        "settings": {"shards": source.count, "hash": HASH},
        "report": dict(source.report),
        "shards": [{key: shard[key] for key in ("folder", "items", "manifest_crc32c")} for shard in shards],
    }


def _shard_folder(number: int) -> str:
    """Return the folder of a shard within a version."""
    return f"{_SHARDS}/{number:05d}"


def _read_shard(version: Path, manifest: Mapping[str, Any], number: int) -> Shard:
    """Read one shard and check that it belongs to the version."""
    count, expected = len(manifest["shards"]), manifest["shards"][number]["manifest_crc32c"]
    which = f"shard {number} of {count}"
    remedy = f"copy it again from where the index was made, or run `{MADE_BY}` again"
    folder = version / _shard_folder(number)
    path = folder / MANIFEST
    if not path.exists():
        raise ArtifactError(f"{path}: {which} is missing; {remedy}")
    # The manifest vouches for the shard's files, and this one for the manifest: a shard of another index has others.
    if checksum(path) != expected:
        raise ArtifactError(f"{path}: {which} is damaged or belongs to another index; {remedy}")
    try:
        own = read_manifest(folder, made_by=MADE_BY, verify=True)
    except ArtifactError as error:
        raise ArtifactError(f"{which}: {error}") from error
    index, table = _read(folder, own)
    return Shard(index, table.column("row").to_numpy(), number, count)
