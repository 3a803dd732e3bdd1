"""Saves encoded vectors by the hash of their content, finds them again, and lines them up with items.

    OUT/manifest.json                vectors, encoder, and the number of items without a vector by reason
    OUT/text.npy, OUT/image.npy      float32 [items, dim], row i = line i of the items file, zeros where there is none
    OUT/text/part-00000.parquet ...  item_id, vector, content_hash; parts in order are the items in order
    OUT/rejected.parquet             items whose content could not be encoded, each with the reason

During a run, batches lie beside OUT in `.OUT-embedding/ENCODER/`; a later run reuses the batches of a killed one.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recall.core.arrays import Bools, Float32s
from recall.core.artifacts import MANIFEST, read_manifest
from recall.core.canonical import Column
from recall.core.errors import ArtifactError
from recall.data.features.embeddings import vector_array, vectors_of

FORMAT_VERSION = 1
MADE_BY = "python -m pipelines.content_vectors"

_ROWS_PER_PART = 1 << 16
_HASH = "S32"
# Floats of vectors hardly repeat or compress, and trying takes longer than writing them.
_PLAIN: dict[str, Any] = {"use_dictionary": False, "compression": "none"}


def hash_array(column: Column) -> npt.NDArray[np.bytes_]:
    """Convert content hashes, none missing, to a NumPy array that sorts and searches without Python objects."""
    return np.array(column.to_pylist(), _HASH)


def is_among(hashes: npt.NDArray[np.bytes_], known: npt.NDArray[np.bytes_]) -> Bools:
    """Mark the hashes that are in a sorted array, bool [hashes]."""
    if not len(known):
        return np.zeros(len(hashes), bool)
    places = np.searchsorted(known, hashes)
    return np.asarray(known[np.minimum(places, len(known) - 1)] == hashes)


@dataclass(frozen=True)
class Batches:
    """Save batches of one encoder and modality in a folder that all workers reach.

    Attributes:
      folder: its path; the first `save` makes it.
    """

    folder: str

    def save(self, hashes: Sequence[str], vectors: Float32s) -> None:
        """Save hashes [n] and vectors [n, dim]; the file appears whole or not at all, however the process ends."""
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        # A bundle that a runner repeats begins its batches with the same content, and so writes the same file.
        path = folder / f"{hashes[0]}.parquet"
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        table = pa.table({"vector": vector_array(vectors), "content_hash": pa.array(hashes, pa.string())})
        pq.write_table(table, temporary, **_PLAIN)
        os.replace(temporary, path)

    def embedded(self) -> Embedded:
        """Return the vectors that are in the folder."""
        return Embedded(tuple(sorted(Path(self.folder).glob("[0-9a-f]*.parquet"))))


@dataclass(frozen=True)
class Embedded:
    """Read vectors of one encoder and modality.

    Attributes:
      files: Parquet with `content_hash` and `vector`; a hash may be in several, or null.
    """

    files: tuple[Path, ...] = ()

    @classmethod
    def published(cls, directory: Path, modality: str, *, encoder: str) -> Embedded:
        """Find the vectors of an earlier run; none if another encoder made them or the files are damaged."""
        try:
            manifest = read_manifest(directory, made_by=MADE_BY, verify=True)
        except ArtifactError:
            return cls()
        if manifest.get("encoder", {}).get("identity") != encoder or modality not in manifest.get("vectors", {}):
            return cls()
        return cls(tuple(sorted((directory / modality).glob("part-*.parquet"))))

    def __add__(self, other: Embedded) -> Embedded:
        return Embedded(self.files + other.files)

    def hashes(self) -> npt.NDArray[np.bytes_]:
        """Collect all hashes, sorted, each once."""
        found = [hash_array(pq.read_table(path, columns=["content_hash"])[0].drop_null()) for path in self.files]
        return np.unique(np.concatenate([np.zeros(0, _HASH), *found]))

    def tables(self) -> Iterator[tuple[npt.NDArray[np.bytes_], Float32s]]:
        """Read hashes [n] and vectors [n, dim] file by file."""
        for path in self.files:
            table = pq.ParquetFile(path).read(columns=["content_hash", "vector"])
            table = table.filter(table["content_hash"].is_valid())
            if len(table):
                yield hash_array(table["content_hash"]), vectors_of(table["vector"])[0]


def line_up(path: Path, hashes: npt.NDArray[np.bytes_], embedded: Embedded, *, dim: int) -> tuple[Float32s, Bools]:
    """Write the `.npy` file of a catalogue without ever holding all vectors in memory.

    Args:
      path: of the file.
      hashes: [items], empty where an item has no content.
      embedded: the vectors.
      dim: length of a vector.

    Returns:
      The file, mapped into memory, float32 [items, dim]; and a mark for items with a vector, bool [items].
    """
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(hashes), dim))
    present = np.zeros(len(hashes), bool)
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    for known, values in embedded.tables():
        first, last = (np.searchsorted(ordered, known, side) for side in ("left", "right"))
        items = last - first  # [known]; several items may have the same content
        source = np.repeat(np.arange(len(known)), items)
        within = np.arange(len(source)) - np.repeat(np.cumsum(items) - items, items)
        rows = order[first[source] + within]
        vectors[rows] = values[source]
        present[rows] = True
    vectors.flush()
    return vectors, present


def write_parts(folder: Path, ids: pa.Array, hashes: npt.NDArray[np.bytes_], vectors: Float32s,
                present: Bools) -> None:  # fmt: skip
    """Write `item_id`, `vector`, `content_hash`, a row per item; the last two are null where there is no vector."""
    folder.mkdir()
    for part, start in enumerate(range(0, len(ids), _ROWS_PER_PART)):
        rows = slice(start, min(start + _ROWS_PER_PART, len(ids)))
        table = pa.table(
            {
                "item_id": ids[rows],
                # Not of a fixed size: Arrow writes null rows of such lists to Parquet, but refuses to read them.
                "vector": vector_array(vectors[rows]).cast(pa.list_(pa.float32())),
                "content_hash": pa.array(np.char.decode(hashes[rows], "ascii"), pa.string(), mask=~present[rows]),
            }
        )
        pq.write_table(table, folder / f"part-{part:05d}.parquet", **_PLAIN)


def require_replaceable(directory: Path, modalities: Sequence[str]) -> None:
    """Check that publishing into a folder deletes nothing but vectors that are made anew.

    Raises:
      ArtifactError: the folder holds other files, or vectors of a modality that this run does not make.
    """
    if not directory.exists():
        return
    if not directory.is_dir() or (any(directory.iterdir()) and not (directory / MANIFEST).exists()):
        raise ArtifactError(f"{directory}: holds something other than content vectors; choose another --out")
    try:
        manifest = read_manifest(directory, made_by=MADE_BY)
    except ArtifactError:
        return  # damaged, or empty: made again
    if "vectors" not in manifest or "encoder" not in manifest:
        raise ArtifactError(f"{directory}: holds something other than content vectors; choose another --out")
    if lost := sorted(set(manifest["vectors"]) - set(modalities)):
        raise ArtifactError(
            f"{directory}: holds {' and '.join(lost)} vectors, which this run does not make and would take away; "
            f"give --{lost[0]} as well, or another --out"
        )
