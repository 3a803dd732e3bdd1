"""Encodes ids, categories and tags: values that have a name, by a vocabulary that grows with the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recall.config.features import CategoryFeature, Feature, IdFeature, TagsFeature
from recall.core.arrays import Bools, Int32s, Int64s
from recall.core.canonical import Column, id_strings
from recall.core.errors import DataError
from recall.core.untyped import read_all_as
from recall.data.features.encoder import FeatureEncoder, Output, described
from recall.data.features.vocabulary import FIRST_CODE, Vocabulary


@dataclass(frozen=True)
class ValueEncoder(FeatureEncoder):
    """Encode an id or a category: one code per row."""

    feature: IdFeature | CategoryFeature
    vocabulary: Vocabulary

    @classmethod
    def fit(cls, feature: IdFeature | CategoryFeature, column: Column, *, clicks: Int64s | None) -> ValueEncoder:
        """Count values: an id counts the clicks of its rows, a category its rows."""
        counts = clicks if feature.type == "id" else None
        values = _read_values(feature, column)
        return cls(feature, Vocabulary.build(values, counts=counts, min_count=feature.min_count))

    def extended(self, column: Column, *, clicks: Int64s | None) -> ValueEncoder:
        """Add the values that have become frequent enough."""
        counts = clicks if self.feature.type == "id" else None
        values = _read_values(self.feature, column)
        vocabulary = self.vocabulary.extended(values, counts=counts, min_count=self.feature.min_count)
        return replace(self, vocabulary=vocabulary)

    def retired(self, column: Column, *, is_gone: Bools) -> ValueEncoder:
        """Take the ids off the list that only gone rows have; categories stay, as there are few."""
        if self.feature.type != "id":
            return self
        codes = self.vocabulary.encode(_read_values(self.feature, column))
        there = np.zeros(self.vocabulary.size, bool)
        there[codes[~is_gone]] = True
        gone = ~there[FIRST_CODE:] & ~self.vocabulary.is_retired
        return replace(self, vocabulary=self.vocabulary.retired(gone)) if gone.any() else self

    def first(self, size: int, *, without: Sequence[int] = ()) -> ValueEncoder:
        """Return the encoder of the codes below `size`, without some of them."""
        return replace(self, vocabulary=self.vocabulary.first(size, without=without))

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Describe the columns that `encode` makes."""
        return (Output(self.feature.name, "code", self.vocabulary.size, self.vocabulary.first_size),)

    def encode(self, column: Column) -> list[pa.Array]:
        """Encode a column into one array per output."""
        values = _read_values(self.feature, column)
        if self.feature.type == "category" and self.vocabulary.kind is not None:
            values = read_all_as(self.vocabulary.kind, values)  # what callers write as 3.0 or True
        return [pa.array(self.vocabulary.encode(values))]

    def save(self, stem: Path) -> dict[str, Any]:
        """Write files, and return the rest as JSON content."""
        return self.vocabulary.save(stem.with_suffix(".parquet"))

    @classmethod
    def load(cls, feature: IdFeature | CategoryFeature, stem: Path, state: Mapping[str, Any]) -> ValueEncoder:
        """Read the files of `save`."""
        return cls(feature, Vocabulary.load(stem.with_suffix(".parquet"), **state))


@dataclass(frozen=True)
class TagsEncoder(FeatureEncoder):
    """Encode tags: a list of codes per row, each tag once, in the order of the file."""

    feature: TagsFeature
    vocabulary: Vocabulary

    @classmethod
    def fit(cls, feature: TagsFeature, column: Column) -> TagsEncoder:
        """Count the rows that have a tag."""
        tags, _ = _split_tags(feature, column)
        return cls(feature, Vocabulary.build(tags, min_count=feature.min_count))

    def extended(self, column: Column, *, clicks: Int64s | None) -> TagsEncoder:
        """Add the tags that have become frequent enough."""
        del clicks
        tags, _ = _split_tags(self.feature, column)
        return replace(self, vocabulary=self.vocabulary.extended(tags, min_count=self.feature.min_count))

    def first(self, size: int, *, without: Sequence[int] = ()) -> TagsEncoder:
        """Return the encoder of the codes below `size`, without some of them."""
        return replace(self, vocabulary=self.vocabulary.first(size, without=without))

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Describe the columns that `encode` makes."""
        return (Output(self.feature.name, "codes", self.vocabulary.size, self.vocabulary.first_size),)

    def encode(self, column: Column) -> list[pa.Array]:
        """Encode a column into one array per output."""
        tags, offsets = _split_tags(self.feature, column)
        return [pa.ListArray.from_arrays(pa.array(offsets), pa.array(self.vocabulary.encode(tags)))]

    def save(self, stem: Path) -> dict[str, Any]:
        """Write files, and return the rest as JSON content."""
        return self.vocabulary.save(stem.with_suffix(".parquet"))

    @classmethod
    def load(cls, feature: TagsFeature, stem: Path, state: Mapping[str, Any]) -> TagsEncoder:
        """Read the files of `save`."""
        return cls(feature, Vocabulary.load(stem.with_suffix(".parquet"), **state))


def _read_values(feature: Feature, column: Column) -> pa.StringArray:
    try:
        return id_strings(column)
    except DataError as error:
        raise DataError(f"{described(feature)}: {error}; use type: tags for lists") from error


def _split_tags(feature: TagsFeature, column: Column) -> tuple[pa.StringArray, Int32s]:
    """Split all rows into tags, each once per row and at most max_tags; returns them and int32 [rows + 1] offsets."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = array.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        array = pc.split_pattern(_read_values(feature, array), feature.separator)
    tags = _read_values(feature, pc.list_flatten(array))
    rows = pc.list_parent_indices(array).to_numpy(zero_copy_only=False).astype(np.int64)
    codes = tags.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    there = np.flatnonzero(codes >= 0)
    pairs = rows[there] * (len(tags) + 1) + codes[there]
    kept = there[np.sort(np.unique(pairs, return_index=True)[1])]  # the first of equal tags in a row
    position = np.arange(len(kept)) - np.searchsorted(rows[kept], rows[kept])
    kept = kept[position < feature.max_tags]
    offsets = np.searchsorted(rows[kept], np.arange(len(array) + 1))
    return tags.take(pa.array(kept)), offsets.astype(np.int32)
