"""Writes and reads vectors/: the table of the model's item vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recall.core.arrays import Float32s, Int64s
from recall.core.artifacts import HIDDEN_MANIFEST, publish, read_manifest

_VECTORS, _MODALITIES, _CODES = "vectors.parquet", "modality_weights", "code_vectors"


@dataclass(frozen=True)
class ItemVectorTable:
    """Hold item vectors of a model, aligned with the catalogue. An index adds its cold bias to the last dimension."""

    ids: pa.StringArray  # [items]
    vectors: Float32s  # [items, width], or [items, codes, width]
    behaviour_share: Float32s  # [items], NaN without a gate
    exposures: Int64s  # [items], in the posterior that the vectors were computed from
    fingerprint: str  # of the model
    # Modality -> [items], 0 where the item lacks it; empty where the model weighs no modalities.
    modality_weights: Mapping[str, Float32s] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Publish the table as Parquet with the columns item_id, vector, behaviour_share and exposures.

        If modalities are weighted, the column modality_weights is a struct with a float per modality. If items have
        several vectors, code_vectors holds all of them and vector is their mean, so that there is one row and one
        vector per item in any case.
        """
        several = self.vectors.ndim == 3
        columns = {
            "item_id": self.ids,
            "vector": _lists(self.vectors.mean(axis=1) if several else self.vectors),
            "behaviour_share": pa.array(self.behaviour_share, from_pandas=True),
            "exposures": self.exposures,
        }
        if several:
            columns[_CODES] = _lists(self.vectors)
        if self.modality_weights:
            weights = [pa.array(np.ascontiguousarray(weight)) for weight in self.modality_weights.values()]
            columns[_MODALITIES] = pa.StructArray.from_arrays(weights, names=list(self.modality_weights))
        table = pa.table(columns)
        manifest = {"fingerprint": self.fingerprint, "items": len(table)}
        with publish(directory, manifest=manifest, name=HIDDEN_MANIFEST) as scratch:
            pq.write_table(table, scratch / _VECTORS)

    @classmethod
    def read(cls, directory: Path) -> ItemVectorTable:
        """Read the table from its folder; raise ArtifactError if it is missing or damaged."""
        manifest = read_manifest(directory, made_by="recall vectors", verify=True, name=HIDDEN_MANIFEST)
        table = pq.read_table(directory / _VECTORS)
        return cls(
            ids=table["item_id"].combine_chunks().cast(pa.string()),
            vectors=_matrix(table[_CODES if _CODES in table.column_names else "vector"]),
            behaviour_share=table["behaviour_share"].to_numpy(zero_copy_only=False).astype(np.float32),
            exposures=table["exposures"].to_numpy(),
            fingerprint=manifest["fingerprint"],
            modality_weights=_fields(table[_MODALITIES]) if _MODALITIES in table.column_names else {},
        )


class GateShares:
    """Look up behaviour shares and exposures by item id, without the vectors.

    Attributes:
      fingerprint: fingerprint of the model.
    """

    def __init__(self, table: pa.Table, *, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._row_of = {item: row for row, item in enumerate(table["item_id"].to_pylist())}
        self._shares = table["behaviour_share"].to_numpy(zero_copy_only=False)
        self._exposures = table["exposures"].to_numpy()

    @classmethod
    def read(cls, directory: Path) -> GateShares:
        """Read the folder of an `ItemVectorTable`; raise ArtifactError if it is missing or damaged."""
        manifest = read_manifest(directory, made_by="recall vectors", verify=True, name=HIDDEN_MANIFEST)
        table = pq.read_table(directory / _VECTORS, columns=["item_id", "behaviour_share", "exposures"])
        return cls(table, fingerprint=manifest["fingerprint"])

    def of(self, item: str) -> dict[str, float | int]:
        """Return gate_share (absent without a gate) and exposures of an item; an empty dict for an item added later."""
        if (row := self._row_of.get(item)) is None:
            return {}
        share, exposures = float(self._shares[row]), int(self._exposures[row])
        return {"exposures": exposures} if np.isnan(share) else {"gate_share": share, "exposures": exposures}


def _lists(numbers: Float32s) -> pa.FixedSizeListArray:
    """Convert numbers [rows, ...] to one nested list per row."""
    values = pa.array(np.ascontiguousarray(numbers).reshape(-1))
    for length in reversed(numbers.shape[1:]):
        values = pa.FixedSizeListArray.from_arrays(values, length)
    return values


def _matrix(column: pa.ChunkedArray) -> Float32s:
    """Convert a column of `_lists` back to numbers [rows, ...]."""
    values, shape = column.combine_chunks(), [len(column)]
    while pa.types.is_fixed_size_list(values.type):
        shape.append(values.type.list_size)
        values = values.flatten()
    return values.to_numpy().reshape(shape)


def _fields(column: pa.ChunkedArray) -> dict[str, Float32s]:
    """Split a column of structs into an array per field."""
    values = column.combine_chunks()
    return {field.name: values.field(field.name).to_numpy(zero_copy_only=False) for field in values.type}
