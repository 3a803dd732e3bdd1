"""Writes and reads DIR/content, which `recall content train` publishes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recall.content.teach.encoder import ContentEncoder
from recall.content.teach.modalities import Modality
from recall.content.teach.training import TrainingResult
from recall.core.arrays import Float32s
from recall.core.artifacts import publish, read_manifest
from recall.core.errors import DataError
from recall.data.features.clusters import HierarchicalKMeans
from recall.data.features.embeddings import vector_array

VECTORS = "vectors.npy"
_ITEMS, _WEIGHTS, _CLUSTERS, _HISTORY, _JUDGED = (
    "items.parquet",
    "encoder.npz",
    "clusters.npz",
    "history.json",
    "judged.json",
)


@dataclass(frozen=True)
class TrainedContent:
    """Open a published DIR/content.

    Attributes:
      directory: its path.
      manifest: the encoder's shape, weights of the losses, best epoch, counts, checksums.
    """

    directory: Path
    manifest: dict[str, Any]

    @classmethod
    def load(cls, directory: str | Path) -> TrainedContent:
        """Open a directory that `recall content train` published, and check every byte.

        Raises:
          ArtifactError: it is missing or damaged.
        """
        return cls(Path(directory), read_manifest(Path(directory), made_by="recall content train", verify=True))

    @cached_property
    def vectors(self) -> Float32s:
        """Load the vectors, float32 [items, dim]: row i of line i of the items file, zeros where an item has none."""
        return np.asarray(np.load(self.directory / VECTORS, allow_pickle=False), np.float32)

    @cached_property
    def items(self) -> pa.Table:
        """Load the columns item_id, vector (null where an item has none), and cluster_LEVEL int32 (null likewise)."""
        return pq.read_table(self.directory / _ITEMS)

    @cached_property
    def encoder(self) -> ContentEncoder:
        """Load the encoder with its weights."""
        encoder = ContentEncoder.from_settings(self.manifest["encoder"])
        with np.load(self.directory / _WEIGHTS, allow_pickle=False) as arrays:
            encoder.set_weights([arrays[f"arr_{place}"] for place in range(len(arrays.files))])
        return encoder

    @cached_property
    def clusters(self) -> HierarchicalKMeans | None:
        """Load the tree that gives virtual ids, to new vectors, too; None if no clusters were asked for."""
        path = self.directory / _CLUSTERS
        return HierarchicalKMeans.load(path) if path.exists() else None

    @property
    def history(self) -> list[dict[str, Any]]:
        """Read the training history, one entry per epoch of `train_content`."""
        return list(json.loads((self.directory / _HISTORY).read_text()))

    @property
    def judged(self) -> dict[str, Any]:
        """Read the results of `judge_content` for base vectors and trained vectors on validation clicks."""
        return dict(json.loads((self.directory / _JUDGED).read_text()))

    def encode(self, base: Mapping[str, Float32s]) -> Float32s:
        """Encode items that may be new.

        Args:
          base: feature -> float32 [items, width], zeros where an item has none; a feature that is left out is missing.

        Returns:
          float32 [items, dim], of unit length; zeros where an item has no base vector.

        Raises:
          DataError: a feature is none of the encoder's, or the arrays do not fit it or each other.
        """
        shapes = self.encoder.shapes
        known = {feature: shape.width for shape in shapes for feature in shape.features}
        for name, vectors in base.items():
            if vectors.ndim != 2 or vectors.shape[1] != known.get(name) or not np.isfinite(vectors).all():
                expected = ", ".join(f"{feature} [items, {width}]" for feature, width in known.items())
                raise DataError(f"base vectors {name} {list(vectors.shape)}: expected finite numbers of {expected}")
        if len(counts := {len(vectors) for vectors in base.values()}) != 1:
            raise DataError(f"base vectors are of {sorted(counts) or 'no'} items; give one row per item in each")
        count = counts.pop()
        modalities = []
        for shape in shapes:
            absent = np.zeros((count, shape.width), np.float32)
            frames = np.stack([base.get(name, absent) for name in shape.features], axis=1)  # [items, frames, width]
            lengths = np.linalg.norm(frames, axis=2, keepdims=True)
            unit = np.divide(frames, lengths, out=np.zeros_like(frames), where=lengths > 0)
            modalities.append(Modality(shape.name, shape.features, unit, lengths[..., 0] > 0))
        present = np.logical_or.reduce([one.present.any(axis=1) for one in modalities])
        return np.where(present[:, np.newaxis], self.encoder.vectors(modalities), np.float32(0))


def write_content(
    directory: Path,
    result: TrainingResult,
    *,
    item_ids: pa.StringArray,
    levels: tuple[int, ...],
    judged: Mapping[str, Any],
    seed: int,
    fingerprint: str,
) -> None:
    """Publish the result of the training.

    Args:
      directory: DIR/content.
      result: vectors and encoder of the best epoch.
      item_ids: string [items].
      levels: of the virtual ids. Centroids are placed by the items that training used; all items get ids.
      judged: results of `judge_content`.
      seed: of the clusters.
      fingerprint: hash of everything that the vectors depend on.
    """
    present = np.asarray(result.vectors.any(axis=1), bool)
    manifest = {
        "fingerprint": fingerprint,
        "encoder": result.encoder.settings(),
        "loss": result.weights,
        "best_epoch": result.best_epoch,
        "items": len(present),
        "items_with_vector": int(present.sum()),
        "items_learned_from": int(result.learned_from.sum()),
        "clusters": list(levels),
    }
    vectors = vector_array(result.vectors)
    # As lists of any length: Parquet keeps no values of a null, and pyarrow then fails to read fixed sizes.
    columns = {"item_id": item_ids, "vector": vectors.cast(pa.list_(pa.float32()))}
    with publish(directory, manifest=manifest) as scratch:
        np.save(scratch / VECTORS, result.vectors)
        np.savez(scratch / _WEIGHTS, *result.encoder.get_weights())
        if levels:
            tree = HierarchicalKMeans.fit(result.vectors[result.learned_from], levels, seed)
            tree.save(scratch / _CLUSTERS)
            nodes = tree.assign(result.vectors, present=present)  # [items, levels]
            columns |= {f"cluster_{level}": pa.array(nodes[:, level], mask=~present) for level in range(len(levels))}
        pq.write_table(pa.table(columns), scratch / _ITEMS)
        (scratch / _HISTORY).write_text(json.dumps(result.history, indent=2) + "\n")
        (scratch / _JUDGED).write_text(json.dumps(judged, indent=2) + "\n")
