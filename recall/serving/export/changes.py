"""Exports what changed in the index of a run since an earlier version: `recall export --since`.

For engines that keep the vectors themselves: delete, then upsert. `run.py` exports everything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recall.core.arrays import Float32s, Float64s
from recall.core.artifacts import publish, read_manifest
from recall.core.errors import ArtifactError, ConfigError
from recall.index import Index, LivingSnapshot
from recall.index.living.journal import Journal
from recall.index.living.storage import JOURNAL, PROMISE
from recall.index.saved.store import SavedVersion, load_version
from recall.index.saved.versions import current_version, versions_of
from recall.serving.export.replaceable import MADE_BY, require_replaceable
from recall.serving.recaller import Recaller
from recall.serving.required_steps import require_steps

FORMAT_VERSION = 1
_SHOWN = {"median": 0.5, "p90": 0.9, "max": 1.0}
_CHUNK = 65_536  # items that are compared or written at a time


class _Compared(NamedTuple):
    """Hold the items of now against an earlier version.

    Attributes:
      added: ids that the version lacks.
      changed: ids of the version whose vectors are others by now.
      deleted: ids that are no longer there.
      moves: float64 [items in both], the relative distance of each item's two vectors.
    """

    added: list[str]
    changed: list[str]
    deleted: list[str]
    moves: Float64s


def export_changes(run: str | Path, out: str | Path, *, since: str | Path, tolerance: float = 0.0) -> dict[str, Any]:
    """Write the vectors that are new or others since a version of the index, and the ids that are gone.

    OUT/upserts.parquet     item_id string, vector fixed_size_list<float32>: one row per vector, grouped by item
    OUT/deletions.parquet   item_id string
    OUT/manifest.json       the two versions with the fingerprints of their models, counts, checksums

    Vectors are as they are served, with the cold bias in the last number: a query's score is the inner product. Items
    that were added, refreshed or deleted over the API are part of it, whether a version has them or not. As an earlier
    export may have held any vector of theirs, those that are there are always among the upserts, and those that are
    not always among the deletions.

    Args:
      run: directory of a run with its index.
      out: directory of the export: created, or replaced if it is an earlier export.
      since: the version that the other engine was filled with: its number, the folder of a version, or the directory
        of another run, whose current version is meant.
      tolerance: vectors of items that moved by no more are left out. The move is the length of the difference by the
        length of the vector before: with 0.01 the score of a query moves by 1% of the product of both lengths at most.
        Moves add up over several exports: count from the last version that was exported in full.

    Returns:
      The manifest.

    Raises:
      ArtifactError: the version is gone or damaged, or its vectors are of another shape; a step of the run has not been
        done; or `out` holds something else.
      ConfigError: tolerance is negative or no number.
    """
    run, out = Path(run), Path(out)
    if not tolerance >= 0:
        raise ConfigError(f"tolerance: expected at least 0, found {tolerance}")
    require_replaceable(out)
    require_steps(run)
    before = load_version(_version(run / "index", since))
    current = current_version(run / "index")
    fingerprint = read_manifest(current, made_by=MADE_BY)["fingerprint"]
    # The journal first: whatever comes after is in the snapshot, and compared as any other item.
    journal = Journal(run / "index" / JOURNAL, writable=False, promise=run / "index" / PROMISE)
    touched = {name for record in journal.records() for name in record.ids}
    living = Recaller.load(run, living="read_only").items.living
    assert living is not None, "it was asked for"
    now, sequence = living.index.snapshot(), living.index.sequence
    _require_same_shape(before, now)
    found = _compared(before.index, now, touched=touched, tolerance=tolerance)
    manifest = {
        "format_version": FORMAT_VERSION,
        "made_by": MADE_BY,
        "from": {"version": before.name, "fingerprint": before.fingerprint},
        "to": {"version": current.name, "fingerprint": fingerprint, "changes_through": sequence},
        "tolerance": tolerance,
        "items": len(now),
        "dim": now.dim,
        "vectors_per_item": now.entries_per_item,
        "cold_bias": now.report.get("cold_bias", 0.0),
        "upserts": {"new": len(found.added), "changed": len(found.changed)},
        "unchanged": len(now) - len(found.added) - len(found.changed),
        "deletions": len(found.deleted),
        "moved": _quantiles(found.moves),
    }
    with publish(out, manifest=manifest) as scratch:
        _write_vectors(now, [*found.added, *found.changed], scratch / "upserts.parquet")
        pq.write_table(pa.table({"item_id": pa.array(found.deleted, pa.string())}), scratch / "deletions.parquet")
    return manifest


def _version(index: Path, since: str | Path) -> Path:
    """Find the folder of a version by its number, its path, or the path of a run."""
    there = versions_of(index)
    if str(since).isdecimal():
        named = [folder for folder in there if int(folder.name) == int(str(since))]
        if named:
            return named[0]
    elif (Path(since) / "index" / "CURRENT").exists():
        return current_version(Path(since) / "index")
    elif (Path(since) / "manifest.json").exists():
        return Path(since)
    raise ArtifactError(
        f"--since {since}: is no version any more; {index} has {', '.join(folder.name for folder in there) or 'none'}. "
        "Name one of them, the folder of a version of another run, or the directory of a run; or export everything"
    )


def _require_same_shape(before: SavedVersion, now: LivingSnapshot) -> None:
    """Refuse with ArtifactError a version whose vectors cannot be compared with the vectors of now."""
    old = (before.index.entries // len(before.index), before.index.dim)
    if old != (new := (now.entries_per_item, now.dim)):
        raise ArtifactError(
            f"--since: version {before.name} has {old[0]} vectors of {old[1]} numbers per item, the index now {new[0]} "
            f"of {new[1]}: the model is of another shape; export everything"
        )


def _compared(before: Index, now: LivingSnapshot, *, touched: Collection[str], tolerance: float) -> _Compared:
    """Compare the items of now with an earlier version; `touched` ids are told whatever their vectors are."""
    there = [name for name in now.ids if name is not None]
    row_of = dict(zip(before.ids, range(len(before)), strict=True))
    added = [name for name in there if name not in row_of]
    both = [name for name in there if name in row_of]
    changed, moves = list[str](), [np.empty(0)]
    for names in _chunks(both):
        old, new = (index.vectors(names).reshape(len(names), -1).astype(np.float64) for index in (before, now))
        length = np.linalg.norm(new - old, axis=1)
        scale = np.linalg.norm(old, axis=1)
        move = np.divide(length, scale, out=np.where(length > 0, np.inf, 0.0), where=scale > 0)
        moves.append(move)
        changed += [name for name, own in zip(names, move, strict=True) if own > tolerance or name in touched]
    gone = sorted({*row_of, *touched}.difference(there))
    return _Compared(added, changed, gone, np.concatenate(moves))


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _CHUNK):
        yield names[start : start + _CHUNK]


def _quantiles(moves: Float64s) -> dict[str, float]:
    """Return what to choose a tolerance by: quantiles of the moves of the items that are in both versions."""
    finite = moves[np.isfinite(moves)]
    if not finite.size:
        return {}
    return {name: round(float(np.quantile(finite, part)), 6) for name, part in _SHOWN.items()}


def _write_vectors(index: LivingSnapshot, names: Sequence[str], path: Path) -> None:
    """Write the vectors of some items, one row per vector."""
    schema = pa.schema([("item_id", pa.string()), ("vector", pa.list_(pa.float32(), index.dim))])
    with pq.ParquetWriter(path, schema) as writer:
        for chunk in _chunks(names):
            vectors: Float32s = index.vectors(chunk)
            flat = np.ascontiguousarray(vectors.reshape(-1, index.dim), np.float32)
            ids = np.repeat(np.asarray(chunk, object), index.entries_per_item)
            column = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), index.dim)
            writer.write_table(pa.table([pa.array(ids, pa.string()), column], schema=schema))
