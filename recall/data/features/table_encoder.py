"""Encodes raw columns as the towers read them: codes, lists of codes, standardised numbers and vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa
from pydantic import TypeAdapter

from recall.config.features import Feature
from recall.core.arrays import Bools, Int64s
from recall.core.canonical import Column
from recall.core.errors import DataError
from recall.data.features.encoder import FeatureEncoder, Kind
from recall.data.features.encoders import fit_encoder, load_encoder
from recall.data.features.raw_values import raw_column
from recall.data.features.vocabulary import Vocabulary

Tower: TypeAlias = Literal["user", "behaviour", "meta"]
Rows: TypeAlias = pa.Table | Sequence[Mapping[str, Any]]

_FILE = "encoder.json"
_FEATURE: TypeAdapter[Feature] = TypeAdapter(Feature)


@dataclass(frozen=True)
class EncodedColumn:
    """Describe one column of an encoded table.

    Attributes:
      name: name of the column: the feature's, or NAME_cluster_LEVEL.
      feature: the feature that it was made of.
      tower: the tower that sees it.
      kind: code int32 (0 missing, 1 out of vocabulary), codes list<int32> (empty: missing), number float32 (null:
        missing), vector fixed_size_list<float32> (null: missing). Buckets and clusters are codes from 2.
      size: number of codes, 1 for a number, the dimension of a vector.
      first_size: number of codes before values were added to the vocabulary; 0 where none was.
    """

    name: str
    feature: str
    tower: Tower
    kind: Kind
    size: int
    first_size: int = 0


@dataclass(frozen=True)
class TableEncoder:
    """Encode rows of the items or the users file.

    It is fitted once, stored with the model, and applied to new rows too.
    """

    features: tuple[tuple[Tower, FeatureEncoder], ...]

    @classmethod
    def fit(
        cls,
        features: Mapping[Tower, Sequence[Feature]],
        table: pa.Table,
        *,
        clicks: Int64s | None = None,
        fit_rows: Bools | None = None,
        seed: int = 1,
    ) -> TableEncoder:
        """Learn vocabularies, means, quantiles and clusters.

        Args:
          features: the features of each tower, e.g. {"behaviour": schema.behaviour, "meta": schema.meta}.
          table: raw columns, one row per item or user.
          clicks: int64 [rows], training clicks of each row; an `id` feature counts these (an author's count is the
            clicks of all his items). Default: one per row. Other vocabularies count rows.
          fit_rows: bool [rows], rows on whose vectors clusters are placed; default: all that have one.
          seed: seed of the clusters.

        Raises:
          DataError: a column is missing, holds other than the feature's type, or (embedding) no vector at all.
        """
        fitted: list[tuple[Tower, FeatureEncoder]] = []
        for tower, listed in features.items():
            for feature in listed:
                if feature.source not in table.column_names:
                    names = ", ".join(table.column_names)
                    raise DataError(f"feature {feature.name}: no column {feature.source}; the table has {names}")
                column = table[feature.source]
                fitted.append((tower, fit_encoder(feature, column, clicks=clicks, fit_rows=fit_rows, seed=seed)))
        return cls(tuple(fitted))

    def extended(self, table: pa.Table, *, clicks: Int64s | None = None) -> TableEncoder:
        """Add the ids, categories and tags that have become frequent enough; everything else stays as it was fitted.

        Args:
          table: raw columns, one row per item or user of now.
          clicks: int64 [rows], clicks of each row until now, as of `fit`.
        """
        return TableEncoder(
            tuple(
                (tower, fitted.extended(table[fitted.feature.source], clicks=clicks)) for tower, fitted in self.features
            )
        )

    def retired(self, table: pa.Table, *, is_gone: Bools) -> TableEncoder:
        """Take the ids off the lists that only gone rows have, so that `extended` gives their codes to others.

        Args:
          table: raw columns, one row per item or user of now.
          is_gone: bool [rows], rows that nobody saw for long.
        """
        return TableEncoder(
            tuple(
                (tower, fitted.retired(table[fitted.feature.source], is_gone=is_gone))
                for tower, fitted in self.features
            )
        )

    def first(self, sizes: Mapping[str, int], *, without: Mapping[str, Sequence[int]] | None = None) -> TableEncoder:
        """Return the encoder without codes that were added later.

        Args:
          sizes: number of codes by name of a column; columns that it lacks stay as they are.
          without: codes below that were given to other values later, by name of a column.
        """
        return TableEncoder(
            tuple(
                (tower, fitted.first(sizes.get(name, 1 << 62), without=(without or {}).get(name, ())))
                for tower, fitted in self.features
                for name in (fitted.feature.name,)
            )
        )

    @property
    def columns(self) -> tuple[EncodedColumn, ...]:
        """Describe the encoded columns, in the order of the features."""
        return tuple(
            EncodedColumn(output.name, encoder.feature.name, tower, output.kind, output.size, output.first_size)
            for tower, encoder in self.features
            for output in encoder.outputs
        )

    @property
    def vocabularies(self) -> dict[str, Vocabulary]:
        """Return the vocabularies of the id, category and tags features by the feature's name."""
        found = {encoder.feature.name: getattr(encoder, "vocabulary", None) for _, encoder in self.features}
        return {name: vocabulary for name, vocabulary in found.items() if vocabulary is not None}

    def encode(self, rows: Rows, *, strict: bool = True) -> pa.Table:
        """Encode rows, whether the encoder was fitted on them or not.

        Args:
          rows: a table of raw columns or a list of mappings from column to value; a column that is not there, and
            a key that a mapping lacks, is a missing value. Values of a list need not agree in type: each is brought
            to its feature's type.
          strict: refuse a value of a list that cannot be brought to its feature's type; otherwise it is missing.

        Returns:
          A table with `columns`, as `EncodedColumn` describes them.

        Raises:
          DataError: a value is not of its feature's type, or a vector has another dimension than when fitted.
        """
        arrays = [
            array for encoder, column in self._columns_in(rows, strict=strict) for array in encoder.encode(column)
        ]
        return pa.table(arrays, names=[column.name for column in self.columns])

    def clipped(self, rows: Rows) -> dict[str, int]:
        """Count the rows whose value lies outside of what training saw and counts as its nearest end, by feature.

        Features without such rows are left out.
        """
        found = {encoder.feature.name: int(encoder.clipped(column).sum()) for encoder, column in self._columns_in(rows)}
        return {name: count for name, count in found.items() if count}

    def require_plausible(self, rows: Rows) -> None:
        """Refuse new rows with values that are orders of magnitude outside of what training saw.

        Raises:
          DataError: names the feature, a row, its value and the range.
        """
        for encoder, column in self._columns_in(rows):
            encoder.require_plausible(column)

    def _columns_in(self, rows: Rows, *, strict: bool = True) -> Iterator[tuple[FeatureEncoder, Column]]:
        """Pair each encoder with its raw column; nulls where there is none."""
        for _, encoder in self.features:
            source = encoder.feature.source
            if not isinstance(rows, pa.Table):
                yield encoder, raw_column(encoder.feature, [row.get(source) for row in rows], strict=strict)
            else:
                yield encoder, rows[source] if source in rows.column_names else pa.nulls(len(rows))

    def save(self, directory: Path) -> None:
        """Write encoder.json and, per feature that needs them, NAME.parquet (vocabulary) or NAME.npz (centroids).

        Items and users want a directory each, as their features may have the same names.
        """
        directory.mkdir(parents=True, exist_ok=True)
        entries = []
        for tower, encoder in self.features:
            # The .npy that vectors came from belongs to one machine; new rows bring their own vectors. Modalities are
            # the model's: it may group the same columns otherwise.
            feature = encoder.feature.model_dump(mode="json", exclude={"path", "modality"})
            state = encoder.save(directory / encoder.feature.name)
            entries.append({"tower": tower, "feature": feature, "state": state})
        (directory / _FILE).write_text(json.dumps({"features": entries}, indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path) -> TableEncoder:
        """Read the files of `save`."""
        fitted: list[tuple[Tower, FeatureEncoder]] = []
        for entry in json.loads((directory / _FILE).read_text())["features"]:
            feature = _FEATURE.validate_python(entry["feature"])
            fitted.append((entry["tower"], load_encoder(feature, directory / feature.name, entry["state"])))
        return cls(tuple(fitted))
