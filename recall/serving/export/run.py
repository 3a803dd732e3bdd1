"""Exports a finished run for programs without recall: the `recall export` command.

`features.py` and `index_graph.py` are the parts in TensorFlow -> `saved_model.py` joins them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from recall.config.index import IndexConfig
from recall.core.arrays import Float32s
from recall.core.artifacts import publish, read_manifest
from recall.core.errors import ArtifactError, ConfigError
from recall.data.features.table_encoder import TableEncoder
from recall.data.prepared import PreparedData
from recall.index import Index, build_index
from recall.index.saved.store import load_current
from recall.index.scann import ScannIndex
from recall.model.saved_model import USER_ENCODER
from recall.serving.export.features import GraphEncoder
from recall.serving.export.index_graph import ExactGraph, GraphIndex, ScannGraph
from recall.serving.export.replaceable import MADE_BY, require_replaceable
from recall.serving.export.saved_model import CandidateModule
from recall.serving.items.changed import rows_of

FORMAT_VERSION = 1
Kind = Literal["exact", "scann"]


def export_run(run: str | Path, out: str | Path, *, k: int = 100, index: Kind | None = None) -> dict[str, Any]:
    """Write a run's query towers and current index as one SavedModel, and its vectors for other engines.

    OUT/saved_model       a `CandidateModule`: ids or raw features in, ids and scores out
    OUT/vectors.parquet   item_id string, vector fixed_size_list<float32>: one row per vector, grouped by item
    OUT/vectors.npy       the same vectors, float32 [vectors, dim]; a query's score is the inner product. Items like an
                          item have large cosines without the last number, which is added to every score
    OUT/ids.npy           their item ids, Unicode text [vectors]
    OUT/manifest.json     inputs of every signature, the model's fingerprint, checksums

    Items that were upserted into a living index are exported only when they are part of a version.

    Args:
      run: directory of a run with its index.
      out: directory of the export: created, or replaced if it is an earlier export.
      k: candidates per query, fixed in the SavedModel; at most the number of items.
      index: kind of search of the SavedModel; default: the kind of the run's index. A ScaNN index of the run is taken
        over as it is, else one is built; a program that loads the SavedModel then needs ScaNN's TensorFlow ops
        (`import scann`).

    Returns:
      The manifest.

    Raises:
      ArtifactError: a step has not been run or its files are damaged, the index belongs to another model, the model
        has no encoder of user features, or `out` holds something else.
      ConfigError: k is below 1, or index is neither exact nor scann.
    """
    run, out = Path(run), Path(out)
    if k < 1:
        raise ConfigError(f"k: expected at least 1, found {k}")
    if index not in (None, "exact", "scann"):
        raise ConfigError(f"index: expected exact or scann, found {index}")
    require_replaceable(out)
    model = read_manifest(run / "model", made_by=f"recall train --run {run}", verify=True)
    version = load_current(run / "index", fingerprint=model["fingerprint"])
    searched = version.index
    prepared = PreparedData.load(run / "data", verify="tables")
    query = tf.saved_model.load(str(run / "model" / "query"))
    if not (run / "model" / USER_ENCODER).is_dir():
        raise ArtifactError(
            f"{run / 'model'}: was written before it could be asked by features of users; "
            "remove the folder model of the run and train again"
        )
    encoder = TableEncoder.load(run / "model" / USER_ENCODER)
    kind = index or ("exact" if searched.is_exact else "scann")
    added = rows_of(version.sources or {})
    is_by_cosine = bool(added) or "trigger" not in query.signatures
    module = CandidateModule(
        query,
        encoder=GraphEncoder(encoder, id_column=prepared.user_id_name),
        index=_graph(searched, kind),
        by_cosine=_graph(searched.by_cosine(searched.dim - 1), kind) if is_by_cosine else None,
        ids=list(searched.ids),
        k=min(k, len(searched)),
        added=added,
    )
    manifest = {
        "format_version": FORMAT_VERSION,
        "made_by": MADE_BY,
        "fingerprint": model["fingerprint"],
        "index": kind,
        "needs": ["tensorflow", *(["scann"] if kind == "scann" else [])],
        "k": min(k, len(searched)),
        "items": len(searched),
        "dim": searched.dim,
        "cold_bias": searched.report.get("cold_bias", 0.0),
        "signatures": {name: _inputs(function) for name, function in module.functions.items()},
        "columns": {fitted.feature.name: fitted.feature.source for _, fitted in encoder.features},
    }
    with publish(out, manifest=manifest) as scratch:
        _save(module, scratch / "saved_model")
        _write_vectors(searched, scratch)
    return manifest


def _graph(index: Index, kind: Kind) -> GraphIndex:
    """Convert an index to TensorFlow, built anew where it is of another kind."""
    if kind == "exact":
        return ExactGraph.of_index(index)
    if isinstance(index, ScannIndex):
        return ScannGraph(index)
    vectors = index.vectors(np.arange(len(index), dtype=np.int32))
    built = build_index(index.ids, vectors, config=IndexConfig(kind="scann"))
    assert isinstance(built, ScannIndex)
    return ScannGraph(built)


def _save(module: CandidateModule, folder: Path) -> None:
    """Write a SavedModel without TensorFlow's warnings."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        tf.saved_model.save(module, str(folder), signatures=module.functions)
    finally:
        logger.setLevel(level)


def _write_vectors(index: Index, folder: Path) -> None:
    """Write the vectors of an index as Parquet and NumPy files."""
    vectors: Float32s = index.vectors(np.arange(len(index), dtype=np.int32))
    entries_per_item = vectors.shape[1] if vectors.ndim == 3 else 1
    flat = np.ascontiguousarray(vectors.reshape(-1, vectors.shape[-1]), np.float32)
    ids = np.repeat(index.ids.astype(str), entries_per_item)  # fixed-width text: numpy.load needs no pickle for it
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
    pq.write_table(pa.table({"item_id": pa.array(ids, pa.string()), "vector": column}), folder / "vectors.parquet")
    np.save(folder / "vectors.npy", flat, allow_pickle=False)
    np.save(folder / "ids.npy", ids, allow_pickle=False)


def _inputs(function: Any) -> dict[str, dict[str, Any]]:
    """Describe the inputs of a signature for the manifest: dtype and shape by name."""
    (inputs,) = function.input_signature
    return {name: {"dtype": spec.dtype.name, "shape": list(spec.shape)} for name, spec in inputs.items()}
