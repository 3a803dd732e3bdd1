"""Encodes single features, one encoder per type: fitted on a column, applied to that column of any rows.

`table_encoder.py` applies them to whole tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recall.config.features import EmbeddingFeature, Feature, NumberFeature, TagsFeature
from recall.core.arrays import Bools, Float32s, Float64s, Int64s
from recall.core.canonical import Column
from recall.core.errors import DataError
from recall.core.tables import numbers
from recall.data.features.clusters import HierarchicalKMeans
from recall.data.features.embeddings import norms_of, require_similar_norms, shortened, vector_array, vectors_of
from recall.data.features.encoder import FeatureEncoder, Output, described
from recall.data.features.named_values import TagsEncoder, ValueEncoder
from recall.data.features.number_scale import NumberScale
from recall.data.features.vocabulary import FIRST_CODE, MISSING

# Vectors of one encoder differ in length by tens at most.
_LONGER = 100.0


@dataclass(frozen=True)
class NumberEncoder(FeatureEncoder):
    """Standardise a number: (x - mean) / std over the rows that have one; a constant column becomes zeros.

    Values outside of the range that training saw, and far outliers within the file, count as its nearest end.
    """

    feature: NumberFeature
    scale: NumberScale

    @classmethod
    def fit(cls, feature: NumberFeature, column: Column) -> NumberEncoder:
        """Fit the scale to the present values."""
        return cls(feature, NumberScale.of(_present_numbers(feature, column)))

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Describe the columns that `encode` makes."""
        return (Output(self.feature.name, "number", 1),)

    def encode(self, column: Column) -> list[pa.Array]:
        """Encode a column into one array per output."""
        values = _read_numbers(self.feature, column)
        return [pa.array(self.scale.scaled(values).astype(np.float32), mask=np.isnan(values))]

    def clipped(self, column: Column) -> Bools:
        """Mark the rows outside of the range that training saw."""
        return self.scale.outside(_read_numbers(self.feature, column))

    def require_plausible(self, column: Column) -> None:
        """Refuse values that lie orders of magnitude outside of the range."""
        self.scale.require_plausible(_read_numbers(self.feature, column), column, what=described(self.feature))

    def save(self, stem: Path) -> dict[str, Any]:
        """Write files, and return the rest as JSON content."""
        return self.scale.json()


@dataclass(frozen=True)
class BucketEncoder(FeatureEncoder):
    """Encode a number as the code of its quantile bucket; a value on an edge belongs to the bucket above."""

    feature: NumberFeature
    edges: tuple[float, ...]

    @classmethod
    def fit(cls, feature: NumberFeature, column: Column) -> BucketEncoder:
        """Take quantiles of the present values; repeated ones would leave empty buckets and are merged."""
        values = _present_numbers(feature, column)
        inner = np.linspace(0, 1, feature.buckets + 1)[1:-1]
        return cls(feature, tuple(np.unique(np.quantile(values, inner)).tolist()) if len(values) else ())

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Describe the columns that `encode` makes."""
        return (Output(self.feature.name, "code", FIRST_CODE + len(self.edges) + 1),)

    def encode(self, column: Column) -> list[pa.Array]:
        """Encode a column into one array per output."""
        values = _read_numbers(self.feature, column)
        codes = FIRST_CODE + np.searchsorted(np.array(self.edges), values, side="right")
        return [pa.array(np.where(np.isnan(values), MISSING, codes).astype(np.int32))]

    def save(self, stem: Path) -> dict[str, Any]:
        """Write files, and return the rest as JSON content."""
        return {"edges": list(self.edges)}


@dataclass(frozen=True)
class EmbeddingEncoder(FeatureEncoder):
    """Encode an embedding: the vector, its virtual cluster ids, or both.

    A vector longer than all that training saw is shortened to the longest of them: its direction is what it says.

    Attributes:
      feature: the feature.
      dim: numbers of a vector.
      clusters: the tree of centroids; None without clusters.
      longest: largest norm that training saw; None in encoders that were saved before it was kept.
    """

    feature: EmbeddingFeature
    dim: int
    clusters: HierarchicalKMeans | None
    longest: float | None = None
    has_gaps: bool = True  # whether rows of the fit had no vector; encoders of before do not know

    @classmethod
    def fit(cls, feature: EmbeddingFeature, column: Column, *, fit_rows: Bools | None, seed: int) -> EmbeddingEncoder:
        """Fix the dimension, and place clusters on the rows of `fit_rows` that have a vector."""
        vectors, present = vectors_of(column, what=described(feature))
        if not present.any():
            raise DataError(f"{described(feature)}: no row has a vector; remove the feature")
        norms = require_similar_norms(vectors, present, what=described(feature))
        chosen = present if fit_rows is None else present & fit_rows
        if not chosen.any():
            chosen = present
        clusters = (
            HierarchicalKMeans.fit(vectors[chosen], feature.clusters, seed=seed) if feature.cluster_names else None
        )
        return cls(feature, vectors.shape[1], clusters, float(norms.max()), has_gaps=not present.all())

    @property
    def allows_missing(self) -> bool:
        """Tell whether rows of the fit had no vector: a row that leaves it out is one of them, else a mistake."""
        return self.has_gaps

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Describe the columns that `encode` makes."""
        vector = (Output(self.feature.name, "vector", self.dim),) if self.feature.uses_vector else ()
        levels = zip(self.feature.cluster_names, self.feature.clusters, strict=False)
        return (*vector, *(Output(name, "code", FIRST_CODE + nodes) for name, nodes in levels))

    def encode(self, column: Column) -> list[pa.Array]:
        """Encode a column into one array per output."""
        vectors, present = self._vectors(column)
        if self.longest is not None:
            vectors = shortened(vectors, self.longest)
        arrays = [vector_array(vectors)] if self.feature.uses_vector else []
        if self.clusters:
            nodes = self.clusters.assign(vectors, present=present)
            codes = np.where(nodes < 0, MISSING, FIRST_CODE + nodes).astype(np.int32)
            arrays += [pa.array(np.ascontiguousarray(level)) for level in codes.T]
        return arrays

    def clipped(self, column: Column) -> Bools:
        """Mark the rows whose vector is longer than all that training saw."""
        vectors, present = self._vectors(column)
        return present & (norms_of(vectors) > _limit(self.longest))

    def require_plausible(self, column: Column) -> None:
        """Refuse vectors that are orders of magnitude longer than all that training saw."""
        vectors, _ = self._vectors(column)
        norms = norms_of(vectors)
        if (absurd := norms > _LONGER * _limit(self.longest)).any():
            row = int(np.argmax(absurd))
            raise DataError(
                f"{described(self.feature)}: {int(absurd.sum()):,} of {len(norms):,} vectors are far longer than all "
                f"that training saw, the first in row {row} (counted from 0): its norm is {norms[row]:.4g}, and theirs "
                f"at most {self.longest:.4g}; make new rows' vectors as those of the items file were made"
            )

    def _vectors(self, column: Column) -> tuple[Float32s, Bools]:
        """Read vectors, float32 [rows, dim], and which rows have one; DataError for another dimension."""
        vectors, present = vectors_of(column, what=described(self.feature))
        if not vectors.shape[1]:
            vectors = np.zeros((len(column), self.dim), np.float32)
        if vectors.shape[1] != self.dim:
            raise DataError(
                f"{described(self.feature)}: vectors have {vectors.shape[1]} numbers, the model was trained on "
                f"{self.dim}; make new rows' vectors as those of the items file were made"
            )
        return vectors, present

    def save(self, stem: Path) -> dict[str, Any]:
        """Write files, and return the rest as JSON content."""
        if self.clusters:
            self.clusters.save(stem.with_suffix(".npz"))
        longest = {} if self.longest is None else {"longest": self.longest}
        return {"dim": self.dim, "has_gaps": bool(self.has_gaps), **longest}

    @classmethod
    def load(cls, feature: EmbeddingFeature, stem: Path, state: Mapping[str, Any]) -> EmbeddingEncoder:
        """Read the files of `save`."""
        clusters = HierarchicalKMeans.load(stem.with_suffix(".npz")) if feature.cluster_names else None
        has_gaps = state.get("has_gaps", True)
        return cls(feature, state["dim"], clusters, state.get("longest"), has_gaps=has_gaps)


def fit_encoder(
    feature: Feature,
    column: Column,
    *,
    clicks: Int64s | None,
    fit_rows: Bools | None,
    seed: int,
) -> FeatureEncoder:
    """Fit the encoder of the feature's type; arguments as in `TableEncoder.fit`."""
    if isinstance(feature, EmbeddingFeature):
        return EmbeddingEncoder.fit(feature, column, fit_rows=fit_rows, seed=seed)
    if isinstance(feature, TagsFeature):
        return TagsEncoder.fit(feature, column)
    if isinstance(feature, NumberFeature):
        encoder = BucketEncoder if feature.transform == "bucketise" else NumberEncoder
        return encoder.fit(feature, column)
    return ValueEncoder.fit(feature, column, clicks=clicks)


def load_encoder(feature: Feature, stem: Path, state: Mapping[str, Any]) -> FeatureEncoder:
    """Read the files that the encoder of the feature's type saved."""
    if isinstance(feature, EmbeddingFeature):
        return EmbeddingEncoder.load(feature, stem, state)
    if isinstance(feature, TagsFeature):
        return TagsEncoder.load(feature, stem, state)
    if isinstance(feature, NumberFeature):
        if feature.transform == "bucketise":
            return BucketEncoder(feature, tuple(state["edges"]))
        return NumberEncoder(feature, NumberScale.from_json(state))
    return ValueEncoder.load(feature, stem, state)


def _limit(longest: float | None) -> float:
    return np.inf if longest is None else longest * (1 + 1e-5)  # a norm is not added up alike everywhere


def _read_numbers(feature: NumberFeature, column: Column) -> Float64s:
    values = numbers(column, what=described(feature))
    return np.sign(values) * np.log1p(np.abs(values)) if feature.log else values


def _present_numbers(feature: NumberFeature, column: Column) -> Float64s:
    values = _read_numbers(feature, column)
    return values[~np.isnan(values)]
