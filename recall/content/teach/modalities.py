"""Groups the base vectors of a catalogue by modality, as the content encoder reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recall.content.vectors import ContentVectors
from recall.core.arrays import Bools, Float32s
from recall.core.errors import DataError


@dataclass(frozen=True)
class Modality:
    """Hold base vectors of one kind; several vectors of an item are frames, which one tower reads.

    Attributes:
      name: of the modality.
      features: names of the embeddings, one per frame.
      frames: float32 [items, frames, width], of unit length; zeros where a frame is missing.
      present: bool [items, frames].
    """

    name: str
    features: tuple[str, ...]
    frames: Float32s
    present: Bools

    @property
    def width(self) -> int:
        """Return the numbers per base vector."""
        return self.frames.shape[2]


def group_modalities(vectors: Sequence[ContentVectors], modality_of: Mapping[str, str]) -> tuple[Modality, ...]:
    """Put embeddings of one modality side by side as frames.

    Args:
      vectors: the embeddings, by the names of their features.
      modality_of: feature -> modality, `FeatureSchema.modalities`.

    Raises:
      DataError: there is no embedding, their numbers of items differ, or the widths of one modality differ.
    """
    if not vectors:
        raise DataError(
            "content train: there are no base vectors to start from (no `embedding` in features.meta, or its clusters "
            "alone); add one, e.g. {name: text, type: embedding, path: text.npy}"
        )
    if len({len(one.unit) for one in vectors}) > 1:
        found = ", ".join(f"{one.name} has {len(one.unit):,}" for one in vectors)
        raise DataError(
            f"content train: base vectors are of differing numbers of items ({found}); row i is item i in all"
        )
    groups: dict[str, list[ContentVectors]] = {}
    for one in vectors:
        groups.setdefault(modality_of[one.name], []).append(one)
    return tuple(_modality(name, members) for name, members in groups.items())


def _modality(name: str, members: Sequence[ContentVectors]) -> Modality:
    if len({one.unit.shape[1] for one in members}) > 1:
        found = ", ".join(f"{one.name} has {one.unit.shape[1]}" for one in members)
        raise DataError(
            f"features.meta: modality {name} joins embeddings of differing width ({found}); frames need one width, so "
            "give the others a `modality` of their own, or choose some with content.features"
        )
    return Modality(
        name,
        tuple(one.name for one in members),
        np.stack([one.unit for one in members], axis=1),
        np.stack([one.present for one in members], axis=1),
    )


def side_by_side(vectors: Sequence[ContentVectors], *, name: str) -> ContentVectors:
    """Concatenate all base vectors of an item, the baseline without training.

    The cosine of two items with all vectors is the mean of their cosines. A missing vector adds nothing.
    """
    joined = np.concatenate([one.unit for one in vectors], axis=1)  # [items, sum of widths]
    present = np.logical_or.reduce([one.present for one in vectors])
    lengths = np.linalg.norm(joined, axis=1, keepdims=True)
    return ContentVectors(name, np.divide(joined, lengths, out=np.zeros_like(joined), where=lengths > 0), present)
